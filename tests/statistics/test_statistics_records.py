"""Cutting text into records: against the csv module and the independent count, in pieces of any size."""

import csv
import io
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_platform.statistics import records
from data_platform.statistics.count import RecordCounter
from data_platform.statistics.records import BrokenError, blocks

pytestmark = pytest.mark.unit

ATOMS = [b"U1", b",", b",", b"5", b'"', b"\n", b"\r", b"\r\n", b'""', b"U2,1,2\n", b'"a",', "é".encode(), b"\0"]
TEXT = st.lists(st.sampled_from(ATOMS), max_size=18).map(b"".join)
Cut = tuple[list[tuple[bytes, int, bool]], tuple[str, int] | None]


def cut(pieces: Iterator[bytes]) -> Cut:
    """Records with line and misquotation, and the error that ended them."""
    found: list[tuple[bytes, int, bool]] = []
    try:
        for block in blocks(pieces):
            for at in range(len(block)):
                text = block.data[int(block.starts[at]) : int(block.ends[at])]
                found.append((text, int(block.lines[at]), at in block.misquoted))
    except BrokenError as error:
        return found, (error.rule, error.line)
    return found, None


def count(*pieces: bytes) -> int:
    counter = RecordCounter()
    for piece in pieces:
        counter.feed(piece)
    return counter.total


@given(TEXT)
def test_records_are_those_of_the_csv_module_and_of_the_count(text: bytes) -> None:
    found, error = cut(iter([text]))
    if error is not None:
        return
    assert len(found) == count(text)
    if not any(misquoted for _, _, misquoted in found):
        rows = list(csv.reader(io.StringIO(text.decode(), newline=""), strict=True))
        assert len(rows) == len(found)


@given(TEXT, st.lists(st.integers(1, 5), min_size=1, max_size=20))
def test_where_pieces_end_changes_nothing(text: bytes, sizes: list[int]) -> None:
    pieces, at = list[bytes](), 0
    for size in sizes:
        pieces.append(text[at : at + size])
        at += size
    pieces.append(text[at:])
    whole = cut(iter([text]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "MAX_RECORD_BYTES", 128)  # so that blocks are cut after 32 bytes
        in_pieces = cut(iter(pieces))
    if whole[1] is None:
        assert in_pieces == whole
    else:
        assert in_pieces[1] == whole[1]
    assert count(*pieces) == count(text)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("last", [True, False])
def test_every_terminator_ends_a_record(end: str, last: bool) -> None:
    text = end.join(["a,b,c", "1,2,3", "4,5,6"]) + (end if last else "")
    found, error = cut(iter([text.encode()]))
    assert (found, error) == ([(b"a,b,c", 1, False), (b"1,2,3", 2, False), (b"4,5,6", 3, False)], None)


def test_a_quoted_newline_is_no_end_and_lines_stay_physical() -> None:
    found, _ = cut(iter([b'h\n"a\nb",1\nc\n']))
    assert found == [(b"h", 1, False), (b'"a\nb",1', 2, False), (b"c", 4, False)]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (b'h\na\n"b,1,2\nc,3,4\n', 3),
        (b'h\n"b,1\nc,"3",4\nd\n', 2),  # closed by the next stray quote, with text behind it
        (b'"h', 1),
        (b'h\na,1,"2', 2),
    ],
)
def test_a_quote_that_is_not_closed_ends_the_file_at_its_record(text: bytes, line: int) -> None:
    assert cut(iter([text]))[1] == ("unclosed_quote", line)


def test_a_misquoted_record_costs_only_itself() -> None:
    found, error = cut(iter([b'h\nU1,"5"x,1\nU2,5"5,1\nU3,1,1\n']))
    assert error is None
    assert [misquoted for _, _, misquoted in found] == [False, True, True, False]


def test_a_record_longer_than_the_limit_ends_the_file() -> None:
    long = b"x" * (records.MAX_RECORD_BYTES + 1)
    assert cut(iter([b"h\n", long]))[1] == ("record_size", 2)
    assert cut(iter([b"h\n", long, b"\nU1,1,1\n"]))[1] == ("record_size", 2)
    assert cut(iter([b'h\n"', long, b'",1,1\n']))[1] == ("unclosed_quote", 2)
