"""One OTLP/JSON document too large to parse at once, taken apart into its resources and log records as it is read.

It follows brackets and strings only; what it hands out is parsed, and so checked, by whoever takes it.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

# A string up to its closing quote (group 1), or up to the end of what has been read.
_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*(?:(")|\\?\Z)|[{}\[\]]', re.DOTALL)
_RECORD_PATH = [None, b"resourceLogs", None, b"scopeLogs", None, b"logRecords", None]
_RESOURCE_PATH = [None, b"resourceLogs", None, b"resource"]
_RESOURCE_LOGS_DEPTH = 3
_OPENING = {b"}": b"{", b"]": b"["}
# One resource or record beyond this is not held in memory.
PIECE_LIMIT = 16 << 20


class SplitError(Exception):
    """The brackets contradict each other, or one piece is too large."""


@dataclass(frozen=True, slots=True)
class Piece:
    """The JSON of one log record or resource; `end` closes the resource's records and has no JSON."""

    kind: Literal["record", "resource", "end"]
    json: bytes = b""


class Splitter:
    """Feed it the stream piece by piece, then call `finish`."""

    def __init__(self) -> None:
        self._buffer = b""
        self._scanned = 0  # up to where in the buffer brackets have been followed
        self._start: int | None = None  # of the piece that is open
        self._piece_depth = 0
        self._kind: Literal["record", "resource"] = "record"
        self._brackets: list[bytes] = []
        self._path: list[bytes | None] = []
        self._last: bytes | None = None  # the string before the bracket: its key, inside an object

    def feed(self, data: bytes) -> Iterator[Piece]:
        """The pieces that end in `data`. Raises SplitError."""
        self._buffer += data
        for token in _TOKEN.finditer(self._buffer, self._scanned):
            text = token.group()
            if text[0] == 0x22:
                if token.group(1) is None:
                    self._scanned = token.start()
                    break
                self._last = text[1:-1]
            elif text in _OPENING:
                yield from self._close(text, token.end())
            else:
                self._open(text, token.start())
            self._scanned = token.end()
        self._forget()

    def finish(self) -> None:
        """Raises SplitError when the stream ended inside a document, or holds something after it."""
        if self._brackets:
            raise SplitError("the document is not closed")
        if self._buffer.strip():
            raise SplitError("something after the document that is no object")

    def _open(self, bracket: bytes, at: int) -> None:
        if not self._brackets and self._buffer[self._scanned : at].strip():
            raise SplitError("something before the document that is no object")
        inside_object = bool(self._brackets) and self._brackets[-1] == b"{"
        self._path.append(self._last if inside_object else None)
        self._brackets.append(bracket)
        if self._start is None and bracket == b"{":
            # Compared by length first: most brackets are deep inside a record and never get here.
            if self._path == _RECORD_PATH:
                self._start, self._piece_depth, self._kind = at, len(self._path), "record"
            elif self._path == _RESOURCE_PATH:
                self._start, self._piece_depth, self._kind = at, len(self._path), "resource"

    def _close(self, bracket: bytes, end: int) -> Iterator[Piece]:
        if not self._brackets or self._brackets.pop() != _OPENING[bracket]:
            raise SplitError(f"a {bracket.decode()} closes nothing")
        depth = len(self._path)
        self._path.pop()
        if self._start is not None and depth == self._piece_depth:
            yield Piece(self._kind, self._buffer[self._start : end])
            self._start = None
        elif depth == _RESOURCE_LOGS_DEPTH and self._path == _RECORD_PATH[:2]:
            yield Piece("end")

    def _forget(self) -> None:
        """Drop what is no longer needed of the buffer."""
        keep = self._scanned if self._start is None else self._start
        self._buffer = self._buffer[keep:]
        self._scanned -= keep
        if self._start is not None:
            self._start = 0
        if len(self._buffer) > PIECE_LIMIT:
            raise SplitError(f"one record of more than {PIECE_LIMIT:,} bytes")
