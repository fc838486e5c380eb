"""Frames of the PostgreSQL protocol (version 3): reading them off a stream, building the ones the front sends itself.

Pure bytes; which frame means what to a session is decided in session.py.
"""

import asyncio
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

PROTOCOL_3 = 3 << 16
SSL_REQUEST = 80877103
GSS_REQUEST = 80877104
CANCEL_REQUEST = 80877102
MAX_STARTUP_BYTES = 10_000  # PostgreSQL's own limit
MAX_FRAME_BYTES = 1 << 30
MAX_AHEAD_BYTES = 1 << 20
_READ_BYTES = 1 << 18
_BULK = frozenset(b"Dd")  # DataRow and CopyData come by the thousand: a run of them is handed on as one piece
_HEADER = struct.Struct("!cI")


class ProtocolError(Exception):
    """The other side does not speak the protocol; the connection is of no more use."""


@dataclass(frozen=True)
class Frame:
    """One message as it is on the wire, or a run of DataRow or CopyData messages."""

    kind: bytes
    raw: bytes

    @property
    def body(self) -> bytes:
        """The message without its type and length."""
        return self.raw[5:]


class FrameReader:
    """Cuts a stream into frames; reads ahead, so that small frames do not cost a system call each."""

    def __init__(self, stream: asyncio.StreamReader) -> None:
        self._stream = stream
        self._buffer = bytearray()
        self._start = 0

    async def read(self) -> Frame | None:
        """The next frame, or None at the end of the stream. Raises ProtocolError for a length that cannot be."""
        end = self._complete(self._start)
        while end is None:
            if not await self._fill():
                return None
            end = self._complete(self._start)
        kind = self._buffer[self._start]
        if kind in _BULK:
            while (further := self._complete(end)) is not None and self._buffer[end] == kind:
                end = further
        raw = bytes(self._buffer[self._start : end])
        self._start = end
        return Frame(raw[:1], raw)

    async def until_end(self) -> None:
        """Read ahead until the other side closes, or sends more than fits: how a peer that went away is noticed."""
        while len(self._buffer) - self._start < MAX_AHEAD_BYTES:
            if not await self._fill():
                return
        await asyncio.Event().wait()

    async def startup(self) -> tuple[int, bytes]:
        """The first packet of a connection, which has no type: its code and what follows it."""
        while len(self._buffer) < 8:
            if not await self._fill():
                raise ProtocolError("closed before a start-up packet")
        length, code = struct.unpack_from("!II", self._buffer)
        if not 8 <= length <= MAX_STARTUP_BYTES:
            raise ProtocolError(f"start-up packet of {length} bytes")
        while len(self._buffer) < length:
            if not await self._fill():
                raise ProtocolError("closed inside a start-up packet")
        rest = bytes(self._buffer[8:length])
        del self._buffer[:length]
        return code, rest

    def _complete(self, start: int) -> int | None:
        """Where the frame at `start` ends, None while it is not all here."""
        if len(self._buffer) - start < _HEADER.size:
            return None
        _, length = _HEADER.unpack_from(self._buffer, start)
        if not 4 <= length <= MAX_FRAME_BYTES:
            raise ProtocolError(f"frame of {length} bytes")
        end = start + 1 + length
        return end if end <= len(self._buffer) else None

    async def _fill(self) -> bool:
        if self._start:
            del self._buffer[: self._start]
            self._start = 0
        data = await self._stream.read(_READ_BYTES)
        self._buffer += data
        return bool(data)


def frame(kind: bytes, body: bytes = b"") -> bytes:
    """A message on the wire."""
    return kind + struct.pack("!I", len(body) + 4) + body


def startup_packet(parameters: Mapping[str, str]) -> bytes:
    """A StartupMessage of protocol 3.0."""
    pairs = b"".join(cstring(name) + cstring(value) for name, value in parameters.items())
    body = struct.pack("!I", PROTOCOL_3) + pairs + b"\0"
    return struct.pack("!I", len(body) + 4) + body


def startup_parameters(rest: bytes) -> dict[str, str]:
    """The parameters of a StartupMessage."""
    parts = rest.rstrip(b"\0").split(b"\0")
    return {
        name.decode(errors="replace"): value.decode(errors="replace")
        for name, value in zip(parts[::2], parts[1::2], strict=False)
    }


def cancel_packet(key: bytes) -> bytes:
    """A CancelRequest; `key` is the body of the BackendKeyData message."""
    return struct.pack("!II", 8 + len(key), CANCEL_REQUEST) + key


def cstring(text: str) -> bytes:
    """A zero-terminated string."""
    return text.encode(errors="surrogateescape") + b"\0"


def read_cstring(body: bytes, start: int = 0) -> tuple[str, int]:
    """The string at `start` and where the next field begins."""
    end = body.index(b"\0", start)
    return body[start:end].decode(errors="surrogateescape"), end + 1


def error_response(fields: Iterable[tuple[str, str]]) -> bytes:
    """An ErrorResponse; without field C redshift-connector fails with a KeyError of its own."""
    return frame(b"E", _fields(fields))


def notice_response(message: str) -> bytes:
    """A NoticeResponse of severity INFO."""
    return frame(b"N", _fields([("S", "INFO"), ("V", "INFO"), ("C", "00000"), ("M", message)]))


def error_fields(body: bytes) -> dict[str, str]:
    """The fields of an ErrorResponse or NoticeResponse by their letters."""
    fields = (part.decode(errors="replace") for part in body.split(b"\0") if part)
    return {field[0]: field[1:] for field in fields}


def _fields(fields: Iterable[tuple[str, str]]) -> bytes:
    return b"".join(letter.encode() + cstring(text) for letter, text in fields) + b"\0"
