"""The engine: one chDB path, a connection of its own for every request, sessions, running queries.

Belongs here: settings, query ids, execution, cancellation. Does not: HTTP.
A connection costs 0.2 ms, so each request has a fresh one and nothing a caller sets can reach the next caller.
"""

import contextlib
import importlib
import json
import os
import re
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_platform.local.clickhouse import codes, query_log, sql
from data_platform.local.clickhouse.codes import EngineError
from data_platform.local.clickhouse.config import QUERY_ID_SETTING
from data_platform.local.clickhouse.request import PIECE, ExternalTable

# Formats whose pieces put end to end are the whole; the engine writes a header or a frame into each piece of others.
STREAMING_FORMATS = frozenset(
    {"native", "tabseparated", "tsv", "tabseparatedraw", "tsvraw", "csv", "jsoneachrow", "jsonlines", "ndjson",
     "jsoncompacteachrow", "rowbinary", "msgpack", "rawblob", "lineasstring"}
)  # fmt: skip
# Formats the engine reads from the end or by seeking: streamed, it would collect the whole body in memory first.
FILE_FORMATS = frozenset({"parquet", "orc", "arrow"})
_SETTING_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
CLIENT_POLL_S = 0.2


@dataclass
class Statistics:
    """What the summary header tells; filled while the result is read."""

    started: float = field(default_factory=time.monotonic)
    read_rows: int = 0
    read_bytes: int = 0
    written_rows: int = 0
    written_bytes: int = 0
    result_rows: int = 0
    result_bytes: int = 0

    def summary(self) -> dict[str, str]:
        """The header's fields, numbers as text as the server writes them."""
        numbers = {
            "read_rows": self.read_rows,
            "read_bytes": self.read_bytes,
            "written_rows": self.written_rows,
            "written_bytes": self.written_bytes,
            "total_rows_to_read": self.read_rows,
            "result_rows": self.result_rows,
            "result_bytes": self.result_bytes,
            "elapsed_ns": int((time.monotonic() - self.started) * 1e9),
        }
        return {name: str(value) for name, value in numbers.items()}


@dataclass
class Query:
    """One statement with everything that goes with it."""

    query_id: str
    text: bytes
    settings: Mapping[str, str]
    parameters: Mapping[str, str]
    database: str | None
    default_format: str
    readonly: bool = False  # a GET changes nothing
    insert: sql.InlineInsert | None = None
    data: Iterator[bytes] | None = None  # rows of an inline INSERT
    external: list[ExternalTable] = field(default_factory=list[ExternalTable])
    client: socket.socket | None = None  # whose end cancels the query, where the caller asked for that


@dataclass
class _Session:
    connection: Any = None  # only once a statement left something behind
    busy: bool = False
    deadline: float = 0.0


class Database:
    """A chDB path, opened by this process alone."""

    def __init__(self, path: Path, config: Path, spool: Path) -> None:
        state = config.parent
        query_log.put_aside(state, path)
        os.environ["TZ"] = "UTC"  # as production servers run; the engine takes the zone when it is loaded
        time.tzset()
        self._chdb = importlib.import_module("chdb")
        self._target = f"{path}?config-file={config}"
        self._spool = spool
        self._lock = threading.Lock()
        self._running: dict[str, Query] = {}
        self._sessions: dict[str, _Session] = {}
        self._closed = threading.Event()
        self._anchor: Any = self._chdb.connect(self._target)  # the engine lives as long as one connection does
        self.version = self._scalar("SELECT version()")
        self.timezone = self._scalar("SELECT timezone()")
        query_log.restore(self._anchor, state, path)
        threading.Thread(target=self._watch_clients, name="clickhouse-clients", daemon=True).start()

    def _scalar(self, statement: str) -> str:
        return self._anchor.query(statement, "TSVRaw").bytes().decode().strip()

    # Execution

    @contextlib.contextmanager
    def running(self, query: Query) -> Generator[None]:
        """Register the query under its id for as long as the block lasts. Raises EngineError 216 for a duplicate."""
        with self._lock:
            if query.query_id in self._running:
                raise EngineError.make(
                    codes.QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING,
                    f"Query with id = {query.query_id} is already running.",
                    self.version,
                )
            self._running[query.query_id] = query
        try:
            yield
        finally:
            with self._lock:
                del self._running[query.query_id]

    @contextlib.contextmanager
    def execute(self, query: Query, statistics: Statistics, session: "SessionTicket | None") -> Generator["Answer"]:
        """Run the query; the answer's pieces can be read inside the block. Raises EngineError."""
        sticky = session is not None and (session.connection is not None or sql.changes_session(query.text))
        connection = session.hold() if sticky and session is not None else self._chdb.connect(self._target)
        restore: Callable[[], None] | None = None
        answer: Answer | None = None
        try:
            try:
                if sticky:
                    restore = self._remember(connection, query)
                    self._refuse_change(connection, query)
                self._apply(connection, query, enforce_readonly=not sticky)
                answer = self._run(connection, query, statistics)
            except (RuntimeError, self._chdb.ChdbError) as error:
                raise EngineError.of(error, self.version) from error
            yield answer
        finally:
            if answer is not None:
                answer.pieces.close()  # before the connection: the engine dies of a stream whose connection is gone
            if not sticky:
                connection.close()
            elif restore is not None:
                restore()

    def _refuse_change(self, connection: Any, query: Query) -> None:
        """Readonly for a kept connection: the engine's own setting could not be taken back afterwards."""
        if not query.readonly and query.settings.get("readonly", "0") == "0":
            return
        found = connection._conn.classify_query(query.text.decode(errors="surrogateescape"))
        if found["query_class"].name not in ("READ_ONLY", "CONTROL"):
            raise EngineError.make(codes.READONLY, "Cannot execute query in readonly mode.", self.version)

    def _apply(self, connection: Any, query: Query, *, enforce_readonly: bool) -> None:
        settings = {
            "implicit_select": "0",  # on in chDB, off in a server
            QUERY_ID_SETTING: query.query_id,
            "log_comment": query.query_id,
            "log_queries": "1",
            **query.settings,
        }
        if query.readonly and settings.get("readonly", "0") == "0":
            settings["readonly"] = "2"
        readonly = settings.pop("readonly", None)
        if query.database:
            connection.query(f"USE {quote_identifier(query.database)}")
        for table in query.external:
            connection.query(f"CREATE TEMPORARY TABLE {quote_identifier(table.name)} ({table.structure})")
            inserter = connection.send_insert(f"INSERT INTO {quote_identifier(table.name)}", table.format)
            inserter.append(table.data)
            inserter.finish()
        if query.insert is not None:  # a streamed insert takes its parameters from the session
            settings |= {f"param_{name}": value for name, value in query.parameters.items()}
        if readonly is not None and enforce_readonly:  # last, since it forbids the others
            settings["readonly"] = readonly
        connection.query("SET " + ", ".join(f"{self._setting(name)} = {_quote(v)}" for name, v in settings.items()))

    def _setting(self, name: str) -> str:
        if _SETTING_NAME.fullmatch(name) is None:
            raise EngineError.make(115, f"Unknown setting '{name}'", self.version)
        return name

    def _run(self, connection: Any, query: Query, statistics: Statistics) -> "Answer":
        if query.insert is not None and query.data is not None:
            if query.insert.from_input or query.insert.format.lower() in FILE_FORMATS:
                self._insert_through_file(connection, query, query.insert, query.data, statistics)
            else:
                self._insert(connection, query, query.insert, query.data, statistics)
            return Answer(None, _nothing())
        text = sql.with_query_ids(query.text)
        output = sql.output_format(text) or query.default_format
        if self._streams(text, output, query):
            return Answer(output, self._stream(connection, text, output, query, statistics))
        result = connection.query(text, output, params=dict(query.parameters))
        statistics.read_rows = result.storage_rows_read()
        statistics.read_bytes = result.storage_bytes_read()
        statistics.written_rows = result.rows_written()
        statistics.written_bytes = result.bytes_written()
        statistics.result_rows = result.rows_read() or result.rows_written()
        statistics.result_bytes = result.size()
        return Answer(output if sql.answers_rows(text) or result.size() else None, _slices(result))

    def _streams(self, text: bytes, output: str, query: Query) -> bool:
        return (
            output.lower() in STREAMING_FORMATS
            and sql.verb(text) is sql.Verb.SELECT
            and not sql.has_word(text, b"TOTALS", b"EXTREMES", b"OUTFILE")
            and query.settings.get("extremes", "0") == "0"
            and sql.statements(text) == 1
        )

    def _stream(
        self, connection: Any, text: bytes, output: str, query: Query, statistics: Statistics
    ) -> Generator[bytes]:
        try:
            stream = connection.send_query(text, output, params=dict(query.parameters))
            try:
                for chunk in stream:
                    data = chunk.bytes()
                    statistics.read_rows += chunk.storage_rows_read()
                    statistics.read_bytes += chunk.storage_bytes_read()
                    statistics.result_rows += chunk.rows_read()
                    statistics.result_bytes += len(data)
                    yield data
            finally:
                stream.close()
        except (RuntimeError, self._chdb.ChdbError) as error:  # of the syntax at the start, of the rows later
            raise EngineError.of(error, self.version) from error

    def _insert(
        self, connection: Any, query: Query, insert: sql.InlineInsert, data: Iterator[bytes], statistics: Statistics
    ) -> None:
        inserter = connection.send_insert(query.text[: insert.head_end], insert.format)
        try:
            for piece in data:
                inserter.append(piece)
            result = inserter.finish()
        finally:
            inserter.cancel()  # nothing after finish(); a caller that went away commits nothing
        statistics.written_rows = statistics.read_rows = statistics.result_rows = result.rows_written
        statistics.written_bytes = statistics.read_bytes = statistics.result_bytes = result.bytes_written

    def _insert_through_file(
        self, connection: Any, query: Query, insert: sql.InlineInsert, data: Iterator[bytes], statistics: Statistics
    ) -> None:
        """The rows wait in a file: where the format asks for it, and for INSERT ... SELECT ... FROM input(...)."""
        with tempfile.NamedTemporaryFile(dir=self._spool) as spool:
            for piece in data:
                spool.write(piece)
            spool.flush()
            statement = self._reading_file(query.text, insert, spool.name)
            result = connection.query(statement, "Null", params=dict(query.parameters))
        statistics.written_rows = statistics.result_rows = result.rows_written()
        statistics.read_rows = result.storage_rows_read()

    def _reading_file(self, text: bytes, insert: sql.InlineInsert, path: str) -> bytes:
        if not insert.from_input:
            source = f" FROM INFILE {_quote(path)} COMPRESSION 'none' ".encode()
            settings = text[insert.target_end : insert.head_end]
            return text[: insert.target_end] + source + settings + b" FORMAT " + insert.format.encode()
        head = text[: insert.head_end]
        call = sql.input_call(head)
        if call is None:
            raise EngineError.make(codes.SYNTAX_ERROR, "INSERT with data needs input()", self.version)
        source = f"file({_quote(path)}, {_quote(insert.format)}, ".encode()
        return head[: call[0]] + source + head[call[1] :]

    # Sessions

    def session(self, session_id: str, *, must_exist: bool, timeout_s: float) -> "SessionTicket":
        """Take a session for one request. Raises EngineError 372 (must exist and does not), 373 (another uses it)."""
        now = time.monotonic()
        with self._lock:
            for name in [name for name, s in self._sessions.items() if not s.busy and s.deadline < now]:
                expired = self._sessions.pop(name)
                if expired.connection is not None:
                    expired.connection.close()
            if must_exist and session_id not in self._sessions:
                raise EngineError.make(codes.SESSION_NOT_FOUND, f"Session {session_id} not found", self.version)
            session = self._sessions.setdefault(session_id, _Session())
            if session.busy:
                raise EngineError.make(
                    codes.SESSION_IS_LOCKED, f"Session {session_id} is locked by a concurrent client", self.version
                )
            session.busy = True
        return SessionTicket(self, session, timeout_s)

    def connect(self) -> Any:
        """A fresh connection."""
        return self._chdb.connect(self._target)

    def _remember(self, connection: Any, query: Query) -> Callable[[], None]:
        """How to give a kept session back the settings and the database it had before this request."""
        if sql.verb(query.text) in (sql.Verb.SET, sql.Verb.USE):
            return lambda: None
        names = ", ".join(_quote(name) for name in (*query.settings, "readonly", "log_comment", QUERY_ID_SETTING))
        rows = connection.query(
            f"SELECT name, value, changed FROM system.settings WHERE name IN ({names})",
            "JSONCompactEachRow",
        )
        database = connection.query("SELECT currentDatabase()", "TSVRaw").bytes().decode().strip()
        before = [json.loads(line) for line in rows.bytes().splitlines()]

        def restore() -> None:
            parts = [f"{name} = {_quote(value) if changed else 'DEFAULT'}" for name, value, changed in before]
            connection.query("SET " + ", ".join(parts))
            connection.query(f"USE {quote_identifier(database)}")

        return restore

    # Cancellation and end

    def kill(self, query_id: str) -> None:
        """Cancel a running query, without waiting for its end."""
        self._anchor.query(f"KILL QUERY WHERE Settings['{QUERY_ID_SETTING}'] = {_quote(query_id)} ASYNC")

    def _watch_clients(self) -> None:
        while not self._closed.wait(CLIENT_POLL_S):
            with self._lock:
                watched = [query for query in self._running.values() if query.client is not None]
            for query in watched:
                if query.client is not None and _gone(query.client):
                    query.client = None
                    self.kill(query.query_id)

    def close(self) -> None:
        """Cancel what runs, close the engine; what was acknowledged is on disk already."""
        self._closed.set()
        with self._lock:
            running = list(self._running)
            sessions, self._sessions = list(self._sessions.values()), {}
        for query_id in running:
            self.kill(query_id)
        for session in sessions:
            if session.connection is not None and not session.busy:
                session.connection.close()
        self._anchor.close()


@dataclass
class SessionTicket:
    """The right to use a session, until `release`."""

    _database: Database
    _session: _Session
    _timeout_s: float

    @property
    def connection(self) -> Any:
        """The connection the session keeps, None while nothing needs keeping."""
        return self._session.connection

    def hold(self) -> Any:
        """The connection the session keeps from now on."""
        if self._session.connection is None:
            self._session.connection = self._database.connect()
        return self._session.connection

    def release(self) -> None:
        """Let the next request have the session."""
        self._session.deadline = time.monotonic() + self._timeout_s
        self._session.busy = False


@dataclass
class Answer:
    """A result: its format (None: it is no rows) and its bytes, which may still be computed while they are read."""

    format: str | None
    pieces: Generator[bytes | memoryview]


def _nothing() -> Generator[bytes]:
    yield from ()


def _slices(result: Any) -> Generator[memoryview]:
    view = result.get_memview().view()
    for start in range(0, len(view), PIECE):
        yield view[start : start + PIECE]


def _gone(client: socket.socket) -> bool:
    try:
        return client.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def quote_identifier(name: str) -> str:
    """The name as an identifier."""
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"


def _quote(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
