"""What sessions run, written into schema redshift_log, where the system views read it.

Rows are upserted in batches: a short query costs one write, one that runs for longer is visible while it does.
"""

import asyncio
import contextlib
import logging
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count

import psycopg

logger = logging.getLogger(__name__)
FLUSH_S = 0.1
MAX_TEXT = 65_535
_PASSWORD = re.compile(r"(\bpassword\s+)'(?:[^'\\]|\\.|'')*'", re.IGNORECASE)
_SLICE = re.compile(r"/?(\d{4})_part_\d+[^/]*$")

_QUERY = """
INSERT INTO redshift_log.query
    (query, username, pid, database, label, querytxt, starttime, endtime, status, error_message)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (query) DO UPDATE
SET endtime = excluded.endtime, status = excluded.status, error_message = excluded.error_message
"""
_UNLOAD = """
INSERT INTO redshift_log.unload (query, location, file_format, compression, rows, bytes, files)
VALUES (%s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (query) DO UPDATE SET rows = excluded.rows, bytes = excluded.bytes, files = excluded.files
"""
_FILE = """
INSERT INTO redshift_log.unload_file (query, slice, path, line_count, transfer_size)
VALUES (%s, %s, %s, %s, %s) ON CONFLICT DO NOTHING
"""


@dataclass
class UnloadProgress:
    """An UNLOAD as the views show it: totals so far, and each file (url, lines, bytes) once it is done."""

    location: str
    file_format: str
    compression: str
    rows: int = 0
    bytes: int = 0
    files: int = 0
    parts: list[tuple[str, int, int]] = field(default_factory=list[tuple[str, int, int]])


@dataclass
class QueryRecord:
    """One statement a session runs."""

    query: int
    username: str
    pid: int
    database: str
    label: str
    text: str
    started: datetime
    ended: datetime | None = None
    status: str = "running"
    error: str | None = None
    unload: UnloadProgress | None = None


@dataclass
class QueryLog:
    """Belongs to one event loop."""

    dsn: str
    _connection: "psycopg.AsyncConnection[tuple[object, ...]] | None" = None
    _changed: dict[int, QueryRecord] = field(default_factory=dict[int, QueryRecord])
    _ids: "count[int]" = field(default_factory=count)
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    _writer: "asyncio.Task[None] | None" = None

    async def start(self) -> None:
        """Connect and begin to write."""
        self._connection = await psycopg.AsyncConnection.connect(self.dsn, autocommit=True)
        row = await (await self._connection.execute("SELECT nextval('redshift_log.start')")).fetchone()
        self._ids = count(int(str(row[0])) if row else 1)
        self._writer = asyncio.create_task(self._write())

    async def stop(self) -> None:
        """Write what is left, disconnect."""
        if self._writer is not None:
            self._writer.cancel()
        await self.flush()
        if self._connection is not None:
            await self._connection.close()

    def begin(self, username: str, pid: int, database: str, label: str, text: str) -> QueryRecord:
        """A statement starts; gives it its id."""
        text = _PASSWORD.sub(r"\1'***'", text[:MAX_TEXT]).encode(errors="replace").decode()
        record = QueryRecord(next(self._ids), username, pid, database, label, text, _now())
        self._changed[record.query] = record
        return record

    def progress(self, record: QueryRecord) -> None:
        """Something about the statement has changed."""
        self._changed[record.query] = record

    def finish(self, record: QueryRecord, sqlstate: str | None = None, error: str | None = None) -> None:
        """The statement has ended; with an error unless `sqlstate` is None."""
        record.ended = _now()
        record.status = "success" if sqlstate is None else "canceled" if sqlstate == "57014" else "failed"
        record.error = error
        self._changed[record.query] = record

    async def flush(self) -> None:
        """Write now; on return every change so far is visible to all."""
        async with self._lock:
            changed, self._changed = self._changed, {}
            if not changed or self._connection is None:
                return
            try:
                async with self._connection.pipeline():
                    await self._upsert(list(changed.values()))
            except psycopg.Error as error:  # the views are a service; statements do not fail because of them
                logger.warning("the query log could not be written: %s", error)

    async def _write(self) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            while True:
                await asyncio.sleep(FLUSH_S)
                await self.flush()

    async def _upsert(self, records: list[QueryRecord]) -> None:
        if self._connection is None:
            return
        async with self._connection.transaction(), self._connection.cursor() as cursor:
            await cursor.executemany(_QUERY, [_query_row(record) for record in records])
            unloads = [(record.query, record.unload) for record in records if record.unload is not None]
            for query, unload in unloads:
                row = (query, unload.location, unload.file_format, unload.compression, unload.rows, unload.bytes)
                await cursor.execute(_UNLOAD, (*row, unload.files))
                if unload.parts:
                    await cursor.executemany(_FILE, [(query, _slice(url), url, *sizes) for url, *sizes in unload.parts])


def _query_row(record: QueryRecord) -> tuple[object, ...]:
    head = (record.query, record.username, record.pid, record.database, record.label, record.text)
    return (*head, record.started, record.ended, record.status, record.error)


def _slice(url: str) -> int:
    found = _SLICE.search(url)
    return int(found.group(1)) if found else 0


def _now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)
