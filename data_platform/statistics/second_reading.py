"""The records of the file a second time, by other means: regular expressions, the csv and gzip modules.

What belongs here: a second opinion on what the file says. It shares nothing with records.py, count.py and rules.py, so
that a mistake of theirs shows.
"""

import codecs
import csv
import gzip
import io
import re
from collections.abc import Generator, Iterator
from itertools import chain, islice
from typing import IO, TYPE_CHECKING

from data_platform.statistics.source import BLOCK_BYTES

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

BATCH = 20_000
MAX_LINE = 1 << 18  # of an unfinished line beyond which the csv module has to find its end
MAX_FIELD = 4 << 20
BIGINT = 2**63 - 1
_ID = re.compile(r"[A-Za-z0-9]{1,64}")
_COUNT = re.compile(r"[0-9]{1,19}")
# Lines about which there can be no two opinions; the csv module reads all others.
_CLEAN = re.compile(rb"(?:[A-Za-z0-9]{1,64}+,[0-9]{1,18}+,[0-9]{1,18}+\r?\n)*+")
_LINE = re.compile(rb'[^"\r\n]*+\r?\n')


def records_again(stored: Iterator[bytes], encoding: str) -> Iterator[tuple[int, bytes]]:
    """How many records, and the lines COPY gets of them: all of a good one, the user of a bad one that names its user.

    UTF-8 is read a block at a time as long as every line is a record for sure, which needs no quote and no lone CR;
    from the first line that is not on, and in any other encoding, the csv module says what a record is.
    """
    csv.field_size_limit(MAX_FIELD)
    stream = _opened(stored)
    text, header = b"", True
    if codecs.lookup(encoding).name == "utf-8":
        encoding = "utf-8-sig"
        text = stream.read(BLOCK_BYTES)
        first = _LINE.match(text)
        if first is not None:
            text = yield from _plain_lines(stream, text[first.end() :])
            encoding, header = "utf-8", False
    rest = chain((text,), iter(lambda: stream.read(BLOCK_BYTES), b""))
    yield from _csv_records(io.BufferedReader(_Stream(rest), BLOCK_BYTES), encoding, header=header)


def _plain_lines(stream: IO[bytes], text: bytes) -> Generator[tuple[int, bytes], None, bytes]:
    """As `records_again`; returns the text that was read and is left, from the beginning of a record on."""
    at = 0
    while True:
        clean = _CLEAN.match(text, at)
        if clean is not None and clean.end() > at:
            at = clean.end()
            yield clean[0].count(b"\n"), clean[0].replace(b"\r", b"")
        line = _LINE.match(text, at)
        if line is not None:
            at = line.end()
            (row,) = csv.reader([line[0].decode("utf-8", "replace")], strict=True)
            yield 1, _line(row)
            continue
        more = stream.read(BLOCK_BYTES) if len(text) - at < MAX_LINE else b""
        if not more:
            return text[at:]
        text, at = text[at:] + more, 0


def _csv_records(stream: IO[bytes], encoding: str, *, header: bool) -> Iterator[tuple[int, bytes]]:
    rows = _rows(stream, encoding)
    if header:
        next(rows, None)
    while batch := list(islice(rows, BATCH)):
        yield len(batch), b"".join(map(_line, batch))


def _line(row: list[str] | None) -> bytes:
    """What COPY gets of a record; nothing where nobody can be sure which user it names."""
    if not row or not _ID.fullmatch(row[0]):
        return b""
    if len(row) == 3 and _COUNT.fullmatch(row[1]) and _COUNT.fullmatch(row[2]):
        login, post = int(row[1]), int(row[2])
        if login <= BIGINT and post <= BIGINT:
            return f"{row[0]},{login},{post}\n".encode()
    return b"" if any('"' in field for field in row) else f"{row[0]},,\n".encode()


def _rows(stream: IO[bytes], encoding: str) -> Iterator[list[str] | None]:
    """The records; None for one whose quotes the csv module refuses."""
    reader = csv.reader(io.TextIOWrapper(stream, encoding, errors="replace", newline=""), strict=True)
    while True:
        try:
            yield next(reader)
        except csv.Error:
            yield None
        except StopIteration:
            return


def _opened(blocks: Iterator[bytes]) -> IO[bytes]:
    buffered = io.BufferedReader(_Stream(blocks), 1 << 18)
    if buffered.peek(2)[:2] == b"\x1f\x8b":
        return gzip.GzipFile(fileobj=buffered)  # pyright: ignore[reportReturnType] - it is a binary file
    return buffered


class _Stream(io.RawIOBase):
    """Blocks of bytes as a file."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks = blocks
        self._left = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        while not self._left:
            block = next(self._blocks, None)
            if block is None:
                return 0
            self._left = memoryview(block)
        target = memoryview(buffer).cast("B")
        size = min(len(target), len(self._left))
        target[:size] = self._left[:size]
        self._left = self._left[size:]
        return size
