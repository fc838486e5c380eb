"""An object's bytes, decompressed as they are read: never more in memory than was asked for, never an exception.

What belongs here: gzip by content, damage, reading by size. What does not: what the bytes mean.
"""

import zlib
from base64 import b64encode
from contextlib import suppress
from typing import BinaryIO

from data_platform.curation.otlp.model import RAW_LIMIT, Fault, Reason

GZIP_MAGIC = b"\x1f\x8b"
READ_BYTES = 1 << 18
# A decompressed piece is bounded whatever the compression ratio (a gzip of zeros is 1 : 1000).
INFLATE_BYTES = 1 << 20
INFLATE_STEP = 1 << 14  # compressed; what is gone through again, byte by byte, where it turns out to be damaged


def printable(raw: bytes) -> str:
    """At most RAW_LIMIT characters of it: the text, or base64 where it is none."""
    head = raw[:RAW_LIMIT]
    try:
        # A multi-byte character may have been cut in two at the limit.
        return head.decode("utf-8", errors="strict" if len(head) == len(raw) else "ignore")
    except UnicodeDecodeError:
        return b64encode(raw[: RAW_LIMIT * 3 // 4]).decode()


class Source:
    """Reads a stream that may be gzip, by content and not by name. `damage` says why it ended early, if it did."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._buffer = bytearray()
        self._inflater: zlib._Decompress | None = None  # pyright: ignore[reportPrivateUsage] - zlib names no other
        self._compressed = b""
        self._ended = False
        self.offset = 0  # of the next byte, uncompressed
        self.damage: Fault | None = None
        first = self._read_raw()
        if first.startswith(GZIP_MAGIC):
            self._inflater = zlib.decompressobj(wbits=31)
            self._compressed = first
        else:
            self._buffer += first

    def peek(self, size: int) -> bytes:
        """The next `size` bytes without taking them; fewer only at the end."""
        self._fill(size)
        return bytes(self._buffer[:size])

    def read(self, size: int) -> bytes:
        """The next `size` bytes; fewer only at the end."""
        self._fill(size)
        taken = bytes(memoryview(self._buffer)[:size])
        del self._buffer[:size]
        self.offset += len(taken)
        return taken

    def read_some(self, size: int) -> bytes:
        """Between 1 and `size` bytes, without waiting for more than one read; empty at the end."""
        piece = b""
        while not self._buffer and not piece and not self._ended:
            piece = self._next_piece()
        if piece and len(piece) <= size:  # most of an object goes this way, without a copy
            self.offset += len(piece)
            return piece
        self._buffer += piece
        taken = bytes(memoryview(self._buffer)[:size])
        del self._buffer[:size]
        self.offset += len(taken)
        return taken

    def _fill(self, size: int) -> None:
        while len(self._buffer) < size and not self._ended:
            self._buffer += self._next_piece()

    def _next_piece(self) -> bytes:
        return self._read_raw() if self._inflater is None else self._inflate(self._inflater)

    def _read_raw(self) -> bytes:
        piece = self._stream.read(READ_BYTES)
        if not piece:
            self._ended = True
        return piece

    def _inflate(self, inflater: "zlib._Decompress") -> bytes:  # pyright: ignore[reportPrivateUsage]
        if inflater.eof:
            self._next_member(inflater.unused_data + self._compressed)
            return b""
        if not self._compressed:
            self._compressed = self._stream.read(READ_BYTES)
            if not self._compressed:
                self._end(Reason.TRUNCATED, "the object ends inside a gzip member", b"")
                return b""
        step, rest = self._compressed[:INFLATE_STEP], self._compressed[INFLATE_STEP:]
        before = inflater.copy()
        try:
            piece = inflater.decompress(step, INFLATE_BYTES)
        except zlib.error as error:
            piece = _salvage(before, step)
            self._end(Reason.DAMAGED_GZIP, str(error), step, salvaged=len(piece))
            return piece
        if inflater.eof:
            self._compressed = rest  # follows unused_data
        else:
            self._compressed = inflater.unconsumed_tail + rest
        return piece

    def _next_member(self, rest: bytes) -> None:
        """gzip members may follow each other, and zeros may pad them."""
        while True:
            rest = rest.lstrip(b"\x00")
            more = b"" if len(rest) >= len(GZIP_MAGIC) else self._stream.read(READ_BYTES)
            if not more:
                break
            rest += more
        if rest.startswith(GZIP_MAGIC):
            self._inflater = zlib.decompressobj(wbits=31)
            self._compressed = rest
        elif rest:
            self._end(Reason.TRAILING_GARBAGE, "bytes after the last gzip member", rest)
        else:
            self._ended = True

    def _end(self, reason: Reason, detail: str, raw: bytes, salvaged: int = 0) -> None:
        self._ended = True
        self.damage = Fault(reason, detail, printable(raw), offset=self.offset + len(self._buffer) + salvaged)


def _salvage(inflater: "zlib._Decompress", step: bytes) -> bytes:  # pyright: ignore[reportPrivateUsage]
    """What a damaged piece holds before the damage: zlib gives nothing of a call that fails."""
    found = bytearray()
    with suppress(zlib.error):
        for index in range(len(step)):
            found += inflater.decompress(step[index : index + 1])
    return bytes(found)
