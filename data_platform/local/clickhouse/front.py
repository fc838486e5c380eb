"""ClickHouse's HTTP interface over the embedded engine: /, /ping, /replicas_status.

Belongs here: the life of one HTTP exchange, and the fault switches that break it. Does not: execution, parsing.
"""

import hmac
import json
import logging
import os
import select
import socket
import tempfile
import time
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

from data_platform.local.clickhouse import answer, codes, request, sql
from data_platform.local.clickhouse.codes import EngineError
from data_platform.local.clickhouse.database import Answer, Database, Query, SessionTicket, Statistics
from data_platform.local.faults import FaultBoard, FaultRule

FAULT_KINDS = (
    "clickhouse.error",  # args code, status, message: refused before anything is executed
    "clickhouse.delay",  # args seconds: waits before executing
    "clickhouse.drop_before",  # the connection closes, nothing is executed
    "clickhouse.drop_after",  # everything is executed, then the connection closes: the lost acknowledgement
    "clickhouse.truncate",  # args bytes: the answer ends after so many bytes
    "clickhouse.late_exception",  # args code, message: HTTP 200, then an exception in the body
)
logger = logging.getLogger(__name__)
HEAD_BYTES = 256 << 10  # the server's max_query_size: an INSERT's statement has to end within it
SPOOL_IN_MEMORY = 32 << 20
ANSWER_BUFFER = 1 << 20  # as the server's output buffer: an answer that fits goes out whole, errors as errors
SQL_FACT_BYTES = 8192
SESSION_TIMEOUT_S = 60.0
LINGER_S = 5.0


class _DropError(Exception):
    """A fault wants the connection closed without an answer."""


class Front(ThreadingHTTPServer):
    """The server; one thread per connection."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(
        self, port: int, database: Database, faults: FaultBoard, spool: Path, *, user: str, password: str
    ) -> None:
        self.database = database
        self.faults = faults
        self.spool = spool
        self.user = user
        self.password = password
        super().__init__(("127.0.0.1", port), Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is not an error worth a traceback; anything else is."""
        import sys

        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    server: Front  # pyright: ignore[reportIncompatibleVariableOverride] - always ours
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm: ClassVar[bool] = True
    wbufsize: ClassVar[int] = -1

    def do_GET(self) -> None:
        """A query that changes nothing, or a health check."""
        path = self.path.partition("?")[0]
        if path in ("/ping", "/replicas_status") or self.path == "/":
            self._send(200, b"Ok.\n", {"Content-Type": "text/html; charset=UTF-8"})
        else:
            self._serve()

    def do_POST(self) -> None:
        """Any query."""
        self._serve()

    def handle_expect_100(self) -> bool:
        """curl waits a second for this line before it sends a large body: the buffer must not keep it."""
        answered = super().handle_expect_100()
        self.wfile.flush()
        return answered

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """The query log tells what was asked."""

    # One exchange

    def _serve(self) -> None:
        self._headers: dict[str, str] = {}
        self._committed = False
        self._tag = answer.new_tag()
        wanted = None
        try:
            wanted = request.parse(self.command, self.path, self.headers, self.rfile)
            self._headers["X-ClickHouse-Query-Id"] = wanted.query_id = wanted.query_id or str(uuid.uuid4())
            self._authenticate(wanted)
            self._exchange(wanted)
        except request.UnsupportedEncodingError as error:
            self._fail(self._error(codes.UNKNOWN_COMPRESSION_METHOD, f"Unknown compression method: {error}"))
        except request.BrokenBodyError as error:
            self._fail(self._error(codes.CANNOT_DECOMPRESS, str(error)))
        except EngineError as error:
            self._fail(error)
        except _DropError:
            self._drop()
        if wanted is None or not wanted.body.ended():
            self._discard(wanted)

    def _exchange(self, wanted: request.Request) -> None:
        query = self._understand(wanted)
        facts = {
            "sql": query.text[:SQL_FACT_BYTES].decode(errors="replace"),
            "query_id": query.query_id,
            "verb": sql.verb(query.text).value,
        }
        self._strike_before(facts)
        statistics = Statistics()
        session = self._session(wanted)
        try:
            with (
                self.server.database.running(query),
                self.server.database.execute(query, statistics, session) as result,
            ):
                self._strike_after(facts, result)
                self._answer(wanted, result, statistics, facts)
        finally:
            if session is not None:
                session.release()

    def _authenticate(self, wanted: request.Request) -> None:
        user, password = self.server.user.encode(), self.server.password.encode()
        right = hmac.compare_digest(wanted.user.encode(), user) & hmac.compare_digest(
            wanted.password.encode(), password
        )
        if not right:
            raise self._error(
                codes.AUTHENTICATION_FAILED,
                f"{wanted.user}: Authentication failed: password is incorrect, or there is no user with such name.",
            )

    def _understand(self, wanted: request.Request) -> Query:
        """The statement out of the `query` parameter and the body, and where its inline rows begin."""
        for name in ("compress", "decompress"):
            if wanted.flag(name):
                raise self._error(codes.NOT_IMPLEMENTED, f"{name}=1 (use Content-Encoding or Accept-Encoding)")
        in_url = wanted.parameters.get("query", "").encode(errors="surrogateescape")
        if in_url and not in_url.endswith(b"\n"):
            in_url += b"\n"
        text = in_url or wanted.body.peek(HEAD_BYTES)
        insert = sql.inline_insert(text) if sql.verb(text) is sql.Verb.INSERT else None
        data: Iterator[bytes] | None = None
        if insert is not None and in_url:
            inline = in_url[insert.data_start :]
            data = _joined(inline if inline.strip() else b"", wanted.body.rest())
        elif insert is not None:
            data = wanted.body.rest(skip=insert.data_start)
        else:
            text = (in_url + wanted.body.read()) if in_url else wanted.body.read()
            statements = sql.statements(text)
            if statements > 1:
                raise self._error(codes.SYNTAX_ERROR, "Syntax error (Multi-statements are not allowed)")
            if not statements:  # nothing, or comments only
                raise self._error(codes.SYNTAX_ERROR, "Syntax error: Empty query")
        readonly = wanted.method == "GET"
        watched = (readonly or wanted.settings.get("readonly", "0") != "0") and (
            wanted.settings.get("cancel_http_readonly_queries_on_client_close", "0") == "1"
        )
        return Query(
            query_id=wanted.query_id,
            text=text,
            settings=wanted.settings,
            parameters=wanted.query_parameters,
            database=wanted.parameters.get("database") or self.headers.get("X-ClickHouse-Database"),
            default_format=wanted.default_format,
            readonly=readonly,
            insert=insert,
            data=data,
            external=wanted.external,
            client=self.connection if watched else None,
        )

    def _session(self, wanted: request.Request) -> SessionTicket | None:
        name = wanted.parameters.get("session_id")
        if not name:
            return None
        try:
            timeout_s = float(wanted.parameters.get("session_timeout") or SESSION_TIMEOUT_S)
        except ValueError:
            raise self._error(codes.INVALID_SESSION_TIMEOUT, "Invalid session timeout") from None
        return self.server.database.session(name, must_exist=wanted.flag("session_check"), timeout_s=timeout_s)

    # Answers

    def _answer(self, wanted: request.Request, result: Answer, statistics: Statistics, facts: dict[str, str]) -> None:
        self._headers |= {
            "X-ClickHouse-Timezone": self.server.database.timezone,
            "X-ClickHouse-Server-Display-Name": "embedded",
            "Content-Type": answer.content_type(result.format or "TabSeparated"),
        }
        if result.format is not None:
            self._headers["X-ClickHouse-Format"] = result.format
        encoding = None
        if wanted.flag("enable_http_compression"):
            encoding = answer.choose_encoding(self.headers.get("Accept-Encoding") or "")
        if wanted.flag("wait_end_of_query"):
            self._buffered(result, statistics, encoding, facts)
        else:
            self._streamed(result, statistics, encoding, facts)

    def _buffered(self, result: Answer, statistics: Statistics, encoding: str | None, facts: dict[str, str]) -> None:
        """The whole answer first (on disk when it is large), then the headers, which tell the true summary."""
        with tempfile.SpooledTemporaryFile(max_size=SPOOL_IN_MEMORY, dir=str(self.server.spool)) as spool:
            for piece in _encoded(result.pieces, encoding):
                spool.write(piece)
            size = spool.tell()
            spool.seek(0)
            pieces = iter(lambda: spool.read(ANSWER_BUFFER), b"")
            self._send_pieces(pieces, size, statistics, encoding, facts)

    def _streamed(self, result: Answer, statistics: Statistics, encoding: str | None, facts: dict[str, str]) -> None:
        """An answer that fits the buffer goes out whole; a larger one in chunks while it is computed."""
        pieces = _encoded(result.pieces, encoding)
        head: list[bytes | memoryview] = []
        size = 0
        for piece in pieces:
            head.append(piece)
            size += len(piece)
            if size > ANSWER_BUFFER:
                self._send_pieces(_joined(b"".join(head), pieces), None, statistics, encoding, facts)
                return
        self._send_pieces(iter(head), size, statistics, encoding, facts)

    def _send_pieces(
        self,
        pieces: Iterator[bytes | memoryview],
        size: int | None,
        statistics: Statistics,
        encoding: str | None,
        facts: dict[str, str],
    ) -> None:
        cut = self.server.faults.strike("clickhouse.truncate", **facts)
        late = self.server.faults.strike("clickhouse.late_exception", **facts)
        if late is not None:
            size = None
        self._headers["X-ClickHouse-Summary"] = json.dumps(statistics.summary(), separators=(",", ":"))
        self._headers["X-ClickHouse-Exception-Tag"] = self._tag
        if encoding is not None:
            self._headers["Content-Encoding"] = encoding
        if size is None:
            self._headers["Transfer-Encoding"] = "chunked"
        else:
            self._headers["Content-Length"] = str(size)
        self._head(200)
        left = int(cut.args.get("bytes", 0)) if cut is not None else None
        try:
            for piece in pieces:
                shown = piece if left is None else piece[:left]
                self._write(shown, chunked=size is None)
                if left is not None:
                    left -= len(shown)
                    if left <= 0:
                        break
        except EngineError as error:
            self._end_with(error)
            return
        if cut is not None:
            raise _DropError
        if late is not None:
            self._end_with(self._fault_error(late))
        elif size is None:
            self.wfile.write(b"0\r\n\r\n")

    def _write(self, piece: bytes | memoryview, *, chunked: bool) -> None:
        if not piece:
            return
        if chunked:
            self.wfile.write(b"%x\r\n" % len(piece))
        self.wfile.write(piece)
        if chunked:
            self.wfile.write(b"\r\n")

    def _end_with(self, error: EngineError) -> None:
        """The rows have begun: the exception goes behind them, and no last chunk follows it."""
        frame = answer.late_exception(error.text, self._tag)
        if "Content-Encoding" in self._headers:
            frame = b"".join(_encoded(iter([frame]), self._headers["Content-Encoding"]))
        self._write(frame, chunked=True)
        self.close_connection = True

    def _fail(self, error: EngineError) -> None:
        if error.fatal:  # the engine refuses everything from now on; a server's process would be gone
            logger.critical("%s", error.text)
            os._exit(1)
        if self._committed:
            self._end_with(error)
            return
        self._headers = {name: value for name, value in self._headers.items() if name == "X-ClickHouse-Query-Id"} | {
            "X-ClickHouse-Exception-Code": str(error.code),
            "X-ClickHouse-Server-Display-Name": "embedded",
            "X-ClickHouse-Exception-Tag": self._tag,
        }
        self._send(error.status, error.text.encode() + b"\n", {"Content-Type": "text/plain; charset=UTF-8"})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self._headers = getattr(self, "_headers", {}) | headers | {"Content-Length": str(len(body))}
        self._head(status)
        self.wfile.write(body)

    def _head(self, status: int) -> None:
        self._committed = True
        self.send_response(status)
        for name, value in self._headers.items():
            self.send_header(name, value)
        self.send_header("Connection", "close" if self.close_connection else "Keep-Alive")
        self.end_headers()

    def _error(self, code: int, message: str) -> EngineError:
        return EngineError.make(code, message, self.server.database.version)

    # Faults

    def _strike_before(self, facts: dict[str, str]) -> None:
        faults = self.server.faults
        if (rule := faults.strike("clickhouse.delay", **facts)) is not None:
            time.sleep(float(rule.args.get("seconds", 1.0)))
        if faults.strike("clickhouse.drop_before", **facts) is not None:
            raise _DropError
        if (rule := faults.strike("clickhouse.error", **facts)) is not None:
            raise self._fault_error(rule)

    def _strike_after(self, facts: dict[str, str], result: Answer) -> None:
        if self.server.faults.strike("clickhouse.drop_after", **facts) is not None:
            for _ in result.pieces:
                pass
            raise _DropError

    def _fault_error(self, rule: FaultRule) -> EngineError:
        error = self._error(int(rule.args.get("code", 1000)), str(rule.args.get("message", "injected")))
        return (
            error if "status" not in rule.args else codes.ChosenStatusError(error.code, error.text, rule.args["status"])
        )

    # Ends

    def _drop(self) -> None:
        """Close without another byte; what has been written goes out, as when a server dies."""
        self.close_connection = True
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)

    def _discard(self, wanted: request.Request | None) -> None:
        """A body nobody read would be taken for the next request: the connection ends here.

        What the client is still sending is read away for a moment, or the kernel's reset would overtake the answer.
        """
        if wanted is not None and self.command == "GET" and "Content-Length" not in self.headers:
            return
        if not self.headers.get("Transfer-Encoding") and int(self.headers.get("Content-Length") or 0) == 0:
            return
        self.close_connection = True
        if self.wfile.closed:
            return
        self.wfile.flush()
        deadline = time.monotonic() + LINGER_S
        while time.monotonic() < deadline:
            ready, _, _ = select.select([self.connection], [], [], 0.2)
            if not ready or not self.connection.recv(1 << 16):
                return


def _joined(first: bytes, rest: Iterator[Any]) -> Iterator[Any]:
    if first:
        yield first
    yield from rest


def _encoded(pieces: Iterator[bytes | memoryview], encoding: str | None) -> Iterator[bytes | memoryview]:
    if encoding is None:
        yield from pieces
        return
    compressor = answer.COMPRESSORS[encoding]()
    for piece in pieces:
        yield compressor.compress(bytes(piece))
    yield compressor.flush()
