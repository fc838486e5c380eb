"""The PostgreSQL back-end of a session, spoken to by the front itself: while the session's own frames wait.

Each method leaves the conversation where the next can begin: after a ReadyForQuery.
"""

import asyncio
import struct
from collections.abc import Sequence

from psycopg import adapters

from data_platform.local.warehouse.protocol import (
    Frame,
    FrameReader,
    cancel_packet,
    cstring,
    error_fields,
    frame,
    read_cstring,
)
from data_platform.local.warehouse.unload.contract import ColumnFacts, WarehouseError

HOST = "127.0.0.1"
STREAM_LIMIT = 1 << 20
_FIELD = struct.Struct("!IhIhih")  # table, attribute, type, size, modifier, format
_VARHDRSZ = 4
_NUMERIC, _BPCHAR, _VARCHAR = 1700, 1042, 1043


class Backend:
    """One connection to PostgreSQL."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._writer: asyncio.StreamWriter | None = None
        self._reader: FrameReader | None = None
        self._copying = False
        self.key = b""
        self.status = b"I"

    async def open(self, startup: bytes) -> None:
        """Connect and send the StartupMessage. Raises OSError."""
        stream, self._writer = await asyncio.open_connection(HOST, self._port, limit=STREAM_LIMIT)
        self._reader = FrameReader(stream)
        self._writer.write(startup)

    async def close(self) -> None:
        """Close the socket; PostgreSQL then ends the session."""
        if self._writer is not None:
            self._writer.close()
            await asyncio.gather(self._writer.wait_closed(), return_exceptions=True)

    async def send(self, data: bytes) -> None:
        """Send frames, waiting while the other side is slow."""
        if self._writer is None:
            raise ConnectionError("not connected")
        self._writer.write(data)
        await self._writer.drain()

    async def read(self) -> Frame | None:
        """The next frame, None when PostgreSQL has closed."""
        return None if self._reader is None else await self._reader.read()

    async def cancel(self) -> None:
        """Cancel what runs; nothing when nothing does."""
        _, writer = await asyncio.open_connection(HOST, self._port)
        writer.write(cancel_packet(self.key))
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def ready(self) -> list[Frame]:
        """Read up to the ReadyForQuery; the frames before it. Raises WarehouseError with the first error among them."""
        frames: list[Frame] = []
        while (message := await self._expect()).kind != b"Z":
            frames.append(message)
        for message in frames:
            if message.kind == b"E":
                raise as_error(message)
        return frames

    async def rows(self, query: str) -> list[list[str | None]]:
        """Run a simple query of the front's own; its rows as text."""
        await self.send(frame(b"Q", cstring(query)))
        return [row for message in await self.ready() if message.kind == b"D" for row in _data_rows(message.raw)]

    async def describe(self, query: str) -> list[ColumnFacts]:
        """The columns of one query, which is not run. A second statement in the text is refused by PostgreSQL."""
        name = cstring("dp_describe")
        parse = frame(b"P", name + cstring(query) + struct.pack("!h", 0))
        describe = frame(b"D", b"S" + name) + frame(b"C", b"S" + name)
        await self.send(parse + describe + frame(b"S"))
        fields = [field for message in await self.ready() if message.kind == b"T" for field in _fields(message.body)]
        if not fields:
            raise WarehouseError("42601", "the query of UNLOAD returns no columns")
        names = await self._type_names({oid for _, oid, _ in fields})
        return [_column(name, oid, names[oid], modifier) for name, oid, modifier in fields]

    async def start_copy(self, statement: str) -> None:
        """Begin a COPY ... TO STDOUT; then `copied` until None."""
        parse = frame(b"P", b"\0" + cstring(statement) + struct.pack("!h", 0))
        bind = frame(b"B", b"\0\0" + struct.pack("!hhh", 0, 0, 0))
        await self.send(parse + bind + frame(b"E", b"\0" + struct.pack("!i", 0)) + frame(b"S"))
        self._copying = True

    async def copied(self) -> bytes | None:
        """The next rows of the COPY, None at its end. Raises WarehouseError."""
        while self._copying:
            message = await self._expect()
            if message.kind == b"d":
                return _copy_data(message.raw)
            if message.kind == b"E":
                self._copying = False
                error = as_error(message)
                await self.ready()
                raise error
            if message.kind == b"Z":
                self._copying = False
        return None

    async def abandon_copy(self) -> None:
        """Cancel a COPY that is not wanted to its end."""
        if not self._copying:
            return
        await self.cancel()
        try:
            while await self.copied() is not None:
                pass
        except WarehouseError as error:
            if error.sqlstate != "57014":
                raise

    async def _expect(self) -> Frame:
        message = await self.read()
        if message is None:
            raise ConnectionError("PostgreSQL has closed the session")
        if message.kind == b"Z":
            self.status = message.body
        return message

    async def _type_names(self, oids: set[int]) -> dict[int, str]:
        names = {oid: info.name for oid in oids if (info := adapters.types.get(oid)) is not None}
        unknown = sorted(oids - set(names))
        if unknown:
            numbers = ", ".join(map(str, unknown))
            for oid, name in await self.rows(f"SELECT oid, typname FROM pg_catalog.pg_type WHERE oid IN ({numbers})"):
                names[int(oid or 0)] = name or ""
        return names


def as_error(message: Frame) -> WarehouseError:
    """An ErrorResponse as the error the front works with. Positions count in a text the client never sent."""
    fields = error_fields(message.body)
    return WarehouseError(fields.get("C", "XX000"), fields.get("M", ""), detail=fields.get("D"), hint=fields.get("H"))


def _fields(body: bytes) -> list[tuple[str, int, int]]:
    """Name, type oid and type modifier of each field of a RowDescription."""
    (number,) = struct.unpack_from("!h", body)
    fields: list[tuple[str, int, int]] = []
    at = 2
    for _ in range(number):
        name, at = read_cstring(body, at)
        _, _, oid, _, modifier, _ = _FIELD.unpack_from(body, at)
        at += _FIELD.size
        fields.append((name, oid, modifier))
    return fields


def _column(name: str, oid: int, type_name: str, modifier: int) -> ColumnFacts:
    declared = modifier - _VARHDRSZ if modifier >= _VARHDRSZ else None
    if oid == _NUMERIC and declared is not None:
        return ColumnFacts(name, oid, type_name, precision=declared >> 16, scale=declared & 0x7FF)
    return ColumnFacts(name, oid, type_name, length=declared if oid in {_BPCHAR, _VARCHAR} else None)


def _copy_data(raw: bytes) -> bytes:
    """The payload of a run of CopyData messages."""
    pieces: list[bytes] = []
    at = 0
    while at < len(raw):
        end = at + 1 + int.from_bytes(raw[at + 1 : at + 5], "big")
        pieces.append(raw[at + 5 : end])
        at = end
    return b"".join(pieces)


def _data_rows(raw: bytes) -> list[list[str | None]]:
    """The rows of a run of DataRow messages."""
    rows: list[list[str | None]] = []
    at = 0
    while at < len(raw):
        length, number = struct.unpack_from("!Ih", raw, at + 1)
        rows.append(_values(raw, at + 7, number))
        at += 1 + length
    return rows


def _values(raw: bytes, at: int, number: int) -> list[str | None]:
    values: list[str | None] = []
    for _ in range(number):
        (size,) = struct.unpack_from("!i", raw, at)
        at += 4
        values.append(None if size < 0 else raw[at : at + size].decode())
        at += max(size, 0)
    return values


def copy_statement(query: str, copy_format: str, options: "Sequence[tuple[str, str]]") -> str:
    """COPY (query) TO STDOUT; option values become literals."""
    quoted = [(name, "'" + value.replace("\\", "\\\\").replace("'", "''") + "'") for name, value in options]
    words = ", ".join([f"FORMAT {copy_format}", *(f"{name.upper()} {value}" for name, value in quoted)])
    # The line feed ends a comment in the query's last line.
    return f"COPY (\n{query}\n) TO STDOUT WITH ({words})"
