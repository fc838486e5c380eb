"""What a header and a record must be, decided on text; values are converted by PostgreSQL only after they fit.

What belongs here: the rules, their names, their sentences. What does not: rules that need other rows or the database
(duplicates, unknown users), which are SQL.
"""

import re
import unicodedata
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from data_platform.statistics.errors import ErrorClass, RowError, shown
from data_platform.statistics.records import Block

if TYPE_CHECKING:
    import numpy as np

COLUMNS = ("user_id", "login_count", "post_count")
HEADERS = {"english": COLUMNS, "japanese": ("ユーザーID", "ログイン回数", "投稿回数")}
MAX_ID = 64
MAX_DIGITS = 19
MAX_COUNT = 2**63 - 1  # bigint
QUOTE = ord('"')
_ID = re.compile(r"[A-Za-z0-9]{1,64}")
_COUNT = re.compile(r"[0-9]{1,19}")
_NEGATIVE = re.compile(r"-[0-9]+")
_DIGITS = re.compile(r"[0-9]+")


@dataclass(frozen=True, slots=True)
class Checked:
    """A block's verdicts: positions of the good records in it, and one error for each of the others, in order."""

    good: "np.ndarray[Any, Any]"
    errors: tuple[RowError, ...]


def header_of(block: Block) -> tuple[str | None, str]:
    """Which accepted header the block's first record is (None: none), and the sentence that says what was found."""
    found = _fields(block, 0)
    names = tuple(unicodedata.normalize("NFKC", name) for name in found)
    for variant, expected in HEADERS.items():
        if names == tuple(unicodedata.normalize("NFKC", name) for name in expected) and 0 not in block.misquoted:
            return variant, ",".join(expected)
    expected = " or ".join(",".join(header) for header in HEADERS.values())
    return None, f"the header must be {expected}; found {shown(','.join(found))}"


def check(block: Block, file: str, *, first: int = 0) -> Checked:
    """Apply the rules of one record to all records from `first` on."""
    import numpy as np

    octets = np.frombuffer(block.data, np.uint8)
    low = np.searchsorted(block.commas, block.starts)
    separators = np.searchsorted(block.commas, block.ends) - low
    candidates = np.flatnonzero(separators == 2)
    candidates = candidates[candidates >= first]
    if block.misquoted:
        candidates = candidates[~np.isin(candidates, list(block.misquoted))]
    one, two = block.commas[low[candidates]], block.commas[low[candidates] + 1]
    quoted = b'"' in block.data
    users = _Field(octets, block.starts[candidates], one, quoted=quoted)
    logins = _Field(octets, one + 1, two, quoted=quoted)
    posts = _Field(octets, two + 1, block.ends[candidates], quoted=quoted)
    others, non_digits = (_running_count(octets, table) for table in _tables())
    fits = users.holds_only(others, MAX_ID)
    for counts in (logins, posts):
        fits &= counts.holds_only(non_digits, MAX_DIGITS)
        for at in np.flatnonzero(fits & (counts.sizes == MAX_DIGITS)).tolist():
            fits[at] = int(block.data[counts.starts[at] : counts.ends[at]]) <= MAX_COUNT
    good = candidates[fits]
    bad = np.ones(len(block), np.bool_)
    bad[:first] = False
    bad[good] = False
    return Checked(good, tuple(_explained(block, at, file) for at in np.flatnonzero(bad).tolist()))


class _Field:
    """One field of many records, by the positions of its text (within its quotes, where it has some)."""

    def __init__(self, octets: Any, starts: Any, ends: Any, *, quoted: bool) -> None:
        self.starts, self.ends = starts, ends
        if quoted:
            # An empty field begins where the next byte is a separator or the end of the data.
            inside = (ends - starts >= 2) & (octets[starts.clip(max=max(len(octets) - 1, 0))] == QUOTE)
            self.starts, self.ends = starts + inside, ends - inside
        self.sizes = self.ends - self.starts

    def holds_only(self, strangers: Any, most: int) -> Any:
        """Whether each text has 1..`most` bytes, none of them counted in `strangers`."""
        return (self.sizes >= 1) & (self.sizes <= most) & (strangers[self.ends] == strangers[self.starts])


@cache
def _tables() -> tuple[Any, Any]:
    """Per byte, whether it is no letter or digit, and whether it is no digit."""
    import numpy as np

    letters, digits = np.ones(256, np.bool_), np.ones(256, np.bool_)
    for byte in range(128):
        letters[byte] = not chr(byte).isalnum()
        digits[byte] = not chr(byte).isdigit()
    return letters, digits


def _running_count(octets: Any, table: Any) -> Any:
    """How many bytes of `table` stand before each position."""
    import numpy as np

    counts = np.zeros(len(octets) + 1, np.int32)
    np.cumsum(table[octets], out=counts[1:])
    return counts


def _fields(block: Block, at: int) -> list[str]:
    """The fields of one record as text; bytes that are no UTF-8 stay as escapes."""
    start, end = int(block.starts[at]), int(block.ends[at])
    low, high = block.commas.searchsorted([start, end])
    edges = [start - 1, *block.commas[low:high].tolist(), end]
    return [_unquoted(block.data[left + 1 : right]) for left, right in pairwise(edges)]


def _unquoted(field: bytes) -> str:
    if len(field) >= 2 and field[:1] == field[-1:] == b'"':
        field = field[1:-1].replace(b'""', b'"')
    return field.decode("utf-8", "backslashreplace")


def _explained(block: Block, at: int, file: str) -> RowError:
    """The first thing that is wrong with a record, from left to right."""
    fields = _fields(block, at)
    line = int(block.lines[at])
    raw = block.data[int(block.starts[at]) : int(block.ends[at])]
    if at in block.misquoted:
        text = raw.decode("utf-8", "backslashreplace")
        column, value, rule, reason = None, text, "quoting", "a quote where none may be"
    else:
        column, value, rule, reason = _first_fault(fields, raw)
    # Where a quote is part of a value nobody can be sure what the first field was meant to be.
    fits = '"' not in "".join(fields) and at not in block.misquoted
    fits = fits and _ID.fullmatch(fields[0]) is not None
    return RowError(
        ErrorClass.VALIDATION,
        file,
        line,
        column,
        shown(value),
        rule,
        reason,
        lines=int(block.lines[at + 1]) - line,
        user_id=fields[0] if fits else None,
    )


def _first_fault(fields: list[str], raw: bytes) -> tuple[str, str, str, str]:
    """Column, value, rule and reason."""
    text = raw.decode("utf-8", "backslashreplace")
    if not raw:
        return COLUMNS[0], "", "missing_column", "the line is blank; 3 columns are expected"
    if len(fields) < len(COLUMNS):
        return COLUMNS[len(fields)], text, "missing_column", f"{len(fields)} columns, 3 are expected"
    if len(fields) > len(COLUMNS):
        return f"column {len(COLUMNS) + 1}", text, "extra_column", f"{len(fields)} columns, 3 are expected"
    user_id, *counts = fields
    fault = _id_fault(user_id)
    if fault is not None:
        return COLUMNS[0], user_id, *fault
    for name, value in zip(COLUMNS[1:], counts, strict=True):
        fault = _count_fault(value)
        if fault is not None:
            return name, value, *fault
    raise AssertionError(f"no rule rejects {text!r}")


def _id_fault(text: str) -> tuple[str, str] | None:
    if _ID.fullmatch(text):
        return None
    if not text:
        return "user_id", "the user id is empty"
    if len(text) > MAX_ID and _ID.fullmatch(text[:MAX_ID]):
        return "user_id", f"the user id has {len(text)} characters, {MAX_ID} are the most"
    return "user_id", "a user id is 1 to 64 ASCII letters and digits"


def _count_fault(text: str) -> tuple[str, str] | None:
    if _COUNT.fullmatch(text) and int(text) <= MAX_COUNT:
        return None
    if not text:
        return "not_an_integer", "the count is empty"
    if _NEGATIVE.fullmatch(text):
        return "negative", "a count is not negative"
    if _DIGITS.fullmatch(text):
        most = f"{MAX_COUNT} is the most" if len(text) <= MAX_DIGITS else f"{MAX_DIGITS} digits are the most"
        return "overflow", f"the count is too large: {most}"
    return "not_an_integer", "a count is digits 0-9 and nothing else: no sign, blank, separator, point or exponent"
