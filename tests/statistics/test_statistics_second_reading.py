"""The second reading: the same from whatever pieces, by lines or by the csv module, and what the first reading says."""

import csv
import io
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_platform.statistics import records, rules
from data_platform.statistics.second_reading import records_again

pytestmark = pytest.mark.unit

HEADER = b"user_id,login_count,post_count\n"
ROWS = [b"U1,1,2\n", b"U2,3,4\r\n", b"U3,5,6", b"U4,x,1\n", b'"U5","7",8\n', b"U6,9223372036854775808,1\n"]
ATOMS = [*ROWS, b"\n", b"\r", b",", b"5", b'"', b"\r\n", b"U7", "\u00e9".encode(), b"\0", b"-1"]
TEXT = st.lists(st.sampled_from(ATOMS), max_size=15).map(b"".join)
Row = tuple[str, int, int]


def again(text: bytes, *, size: int = 1 << 20, encoding: str = "utf-8") -> tuple[int, bytes]:
    """Records and lines of the second reading; ASCII in Latin-1 takes the way through the csv module from the start."""
    found = list(records_again((text[at : at + size] for at in range(0, len(text), size)), encoding))
    return sum(count for count, _ in found), b"".join(lines for _, lines in found)


def parsed(lines: bytes) -> Iterator[Row]:
    for user, login, post in csv.reader(io.StringIO(lines.decode(), newline="")):
        if login:
            yield user, int(login), int(post)


def first_reading(text: bytes) -> tuple[int, list[Row]]:
    """Records and good rows. Raises BrokenError."""
    total, good = 0, list[Row]()
    for number, block in enumerate(records.blocks(iter([text]))):
        first = 1 if number == 0 else 0
        total += len(block) - first
        numbered = records.numbered(block, rules.check(block, "file", first=first).good)
        for _, user, login, post in csv.reader(io.StringIO(numbered.decode(), newline="")):
            good.append((user, int(login), int(post)))
    return total, good


@given(TEXT)
def test_lines_and_the_csv_module_say_the_same(text: bytes) -> None:
    assert again(HEADER + text) == again(HEADER + text, encoding="latin-1")


@given(TEXT, st.integers(1, 40))
def test_where_pieces_end_changes_nothing(text: bytes, size: int) -> None:
    assert again(HEADER + text, size=size) == again(HEADER + text)


@given(TEXT)
def test_both_readings_find_the_same_good_rows(text: bytes) -> None:
    try:
        total, good = first_reading(HEADER + text)
    except records.BrokenError:
        return  # refused: there is no second reading
    count, lines = again(HEADER + text)
    assert (count, sorted(parsed(lines))) == (total, sorted(good))


@pytest.mark.parametrize("length", [200_000, 900_000, 3_000_000])
def test_a_long_line_is_read_whole(length: int) -> None:
    text = HEADER + b"U1,1,2\n" + b"x" * length + b",1,1\nU2,3,4\n"
    assert again(text, size=100_000) == (3, b"U1,1,2\nU2,3,4\n")
