"""Text -> records with the places of their fields, a block at a time, by RFC 4180 read strictly; no rule is applied.

Terminators are LF, CRLF and CR, also mixed. A block whose quotes all stand where quotes belong is cut with a handful
of array operations; any other is walked through record by record. A quote that is not closed never swallows lines in
silence: it ends the file (BrokenError).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from data_platform.errors import PlatformError

if TYPE_CHECKING:
    import numpy as np

    Positions = np.ndarray[Any, np.dtype[np.int64]]

LF, CR, QUOTE, COMMA = b'\n\r",'
MAX_RECORD_BYTES = 1 << 20  # the largest good record has 105 bytes
_QUOTED = re.compile(rb'"(?:[^"]|"")*+"')
_PLAIN = re.compile(rb"[^,\r\n]*+")
_LINE_END = re.compile(rb"\r\n|\r|\n")


class BrokenError(PlatformError):
    """From `line` on nobody can say where records begin; the whole file is refused."""

    def __init__(self, rule: str, line: int, reason: str) -> None:
        super().__init__(reason)
        self.rule = rule
        self.line = line


@dataclass(frozen=True, slots=True)
class Block:
    """Whole records of `data` (UTF-8): record i is data[starts[i]:ends[i]], its terminator left out.

    `commas` are all positions of separators, `lines` the physical line on which each record begins (plus one entry:
    the line after the block), `misquoted` the records with a quote where none belongs.
    """

    data: bytes
    starts: "Positions"
    ends: "Positions"
    commas: "Positions"
    lines: "Positions"
    misquoted: frozenset[int]

    def __len__(self) -> int:
        return len(self.starts)


def blocks(text: Iterator[bytes]) -> Iterator[Block]:
    """The records of UTF-8 text that comes in pieces of any size. Raises BrokenError."""
    carry, line = b"", 1
    for piece in text:
        carry += piece
        if len(carry) < MAX_RECORD_BYTES // 4:
            continue
        block, used = _cut(carry, line, last=False)
        if block is not None:
            _check_sizes(block)
            yield block
            line = int(block.lines[-1])
        carry = carry[used:]
        if len(carry) > MAX_RECORD_BYTES:
            raise _too_long(carry, line)
    while carry:
        block, used = _cut(carry, line, last=True)
        if block is None:
            raise _too_long(carry, line)
        _check_sizes(block)
        yield block
        line = int(block.lines[-1])
        carry = carry[used:]


def numbered(block: Block, chosen: "Positions") -> bytes:
    """The chosen records as they stand, each on a line of its own behind the number of its physical line and a comma.

    None of them may span lines. By array operations: a loop would cost a third of all reading.
    """
    import numpy as np

    if not len(chosen):
        return b""
    starts, ends, numbers = block.starts[chosen], block.ends[chosen], block.lines[chosen]
    digits = len(str(int(numbers[-1])))
    line_ends = np.cumsum(digits + 1 + ends - starts + 1)
    texts = line_ends - (ends - starts) - 1
    lines = np.full(int(line_ends[-1]), COMMA, np.uint8)
    for place in range(digits):
        lines[texts - 2 - place] = numbers % 10 + ord("0")
        numbers //= 10
    lines[line_ends - 1] = LF
    octets = np.frombuffer(block.data, np.uint8)
    # The texts keep their order, so that two masks say which byte goes where.
    lines[_between(texts, line_ends - 1, len(lines))] = octets[_between(starts, ends, len(octets))]
    return lines.tobytes()


def _between(starts: "Positions", ends: "Positions", size: int) -> Any:
    """A mask of the bytes that are in one of the stretches; no stretch begins where another ends."""
    import numpy as np

    steps = np.zeros(size + 1, np.int8)
    steps[starts] = 1
    steps[ends] = -1
    return np.cumsum(steps[:-1], dtype=np.int8).view(np.bool_)


def _cut(data: bytes, line: int, *, last: bool) -> tuple[Block | None, int]:
    """As many whole records as begin `data`, and how many bytes they are with their terminators."""
    import numpy as np

    octets = np.frombuffer(data, np.uint8)
    ends_at, after = _terminators(octets, data, last=last)
    quotes = np.flatnonzero(octets == QUOTE) if b'"' in data else np.empty(0, np.int64)
    if len(quotes):
        outside = np.searchsorted(quotes, ends_at) % 2 == 0
        record_ends, record_after = ends_at[outside], after[outside]
        used = int(record_after[-1]) if len(record_after) else 0
        quotes = quotes[quotes < used]
        # At the end of the file an even number of quotes lets its last line end without a terminator.
        if not used or not _well_placed(octets, quotes):
            return _walked(data, line, last=last)
    else:
        record_ends, record_after = ends_at, after
        used = int(record_after[-1]) if len(record_after) else 0
        if not used:
            return None, 0
    starts = np.concatenate((np.zeros(1, np.int64), record_after[:-1]))
    commas = np.flatnonzero(octets[:used] == COMMA)
    if len(quotes):
        commas = commas[np.searchsorted(quotes, commas) % 2 == 0]
        lines = line + np.searchsorted(after, np.append(starts, used), side="right")
    else:
        lines = np.arange(line, line + len(starts) + 1, dtype=np.int64)
    return Block(data, starts, record_ends, commas, lines, frozenset()), used


def _terminators(octets: Any, data: bytes, *, last: bool) -> "tuple[Positions, Positions]":
    """Where lines end and where the next begins. The end of the file ends a line that is not empty."""
    import numpy as np

    feeds = np.flatnonzero(octets == LF)
    if b"\r" not in data:
        ends, after = feeds, feeds + 1
    else:
        returns = np.flatnonzero(octets == CR)
        if not last and len(returns) and returns[-1] == len(octets) - 1:
            returns = returns[:-1]  # the next piece may begin with its LF
        paired = np.zeros(len(octets) + 1, np.bool_)
        paired[returns + 1] = True
        alone = feeds[~paired[feeds]]
        with_feed = np.zeros(len(returns), np.int64)
        inside = returns + 1 < len(octets)
        with_feed[inside] = octets[returns[inside] + 1] == LF
        ends = np.concatenate((alone, returns))
        after = np.concatenate((alone + 1, returns + 1 + with_feed))
        order = np.argsort(ends, kind="stable")
        ends, after = ends[order], after[order]
    if last and len(octets) and (not len(after) or after[-1] < len(octets)):
        ends, after = np.append(ends, len(octets)), np.append(after, len(octets))
    return ends, after


def _well_placed(octets: Any, quotes: "Positions") -> bool:
    """Whether every quote opens a field, closes one, or stands doubled inside one."""
    import numpy as np

    if len(quotes) % 2:
        return False
    opening, closing = quotes[0::2], quotes[1::2]
    boundary = np.zeros(256, np.bool_)
    boundary[[LF, CR, COMMA, QUOTE]] = True
    before = opening[opening > 0] - 1
    behind = closing[closing + 1 < len(octets)] + 1
    # A quote beside a quote is the other half of a doubled one: both are in the list, one closing, one opening.
    return bool(boundary[octets[before]].all() and boundary[octets[behind]].all())


def _walked(data: bytes, line: int, *, last: bool) -> tuple[Block | None, int]:
    """As `_cut`, record by record."""
    import numpy as np

    starts: list[int] = []
    ends: list[int] = []
    commas: list[int] = []
    lines: list[int] = []
    misquoted: set[int] = set()
    position, here = 0, line
    while position < len(data):
        walked = _record(data, position, here, last=last)
        if walked is None:
            break
        end, following, separators, stray = walked
        if stray:
            misquoted.add(len(starts))
        starts.append(position)
        ends.append(end)
        commas += separators
        lines.append(here)
        here += len(_LINE_END.findall(data, position, end)) + 1
        position = following
    if not starts:
        return None, 0

    def positions(values: list[int]) -> "Positions":
        return np.array(values, np.int64)

    lines.append(here)
    block = Block(data, positions(starts), positions(ends), positions(commas), positions(lines), frozenset(misquoted))
    return block, position


def _record(data: bytes, start: int, line: int, *, last: bool) -> tuple[int, int, list[int], bool] | None:
    """End, start of the next, separators, whether a quote is out of place; None when the record goes on beyond `data`.

    Raises BrokenError for a quoted field that spans lines and is not closed as one must be.
    """
    position, separators, stray = start, list[int](), False
    while True:
        if data[position : position + 1] == b'"':
            quoted = _QUOTED.match(data, position)
            if quoted is None:
                if not last:
                    return None
                raise _unclosed(line)
            close = quoted.end()
            if close >= len(data) and not last:
                return None  # a doubled quote may follow
            if close < len(data) and data[close] not in (COMMA, CR, LF):
                if _LINE_END.search(data, position, close):
                    raise _unclosed(line)
                stray = True
                position = _line_end(data, close)
            else:
                position = close
        else:
            plain = _PLAIN.match(data, position)
            end = position if plain is None else plain.end()
            stray = stray or QUOTE in data[position:end]
            position = end
        if position >= len(data):
            return (position, position, separators, stray) if last else None
        if data[position] != COMMA:
            terminator = _LINE_END.match(data, position)
            following = position + 1 if terminator is None else terminator.end()
            if not last and following == len(data) and data[position] == CR:
                return None
            return position, following, separators, stray
        separators.append(position)
        position += 1


def _line_end(data: bytes, position: int) -> int:
    found = _LINE_END.search(data, position)
    return len(data) if found is None else found.start()


def _check_sizes(block: Block) -> None:
    sizes = block.ends - block.starts
    longest = int(sizes.argmax())
    if sizes[longest] > MAX_RECORD_BYTES:
        raise _too_long(block.data[int(block.starts[longest]) :], int(block.lines[longest]))


def _unclosed(line: int) -> BrokenError:
    reason = "a quote opened in this record is not closed: nobody can say where the following records begin"
    return BrokenError("unclosed_quote", line, reason)


def _too_long(carry: bytes, line: int) -> BrokenError:
    if b'"' in carry[:MAX_RECORD_BYTES]:
        return _unclosed(line)
    return BrokenError("record_size", line, f"the record is longer than {MAX_RECORD_BYTES} bytes")
