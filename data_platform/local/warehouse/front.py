"""The listening side of the embedded Redshift: start-up packets, cancel requests, one session per connection.

Runs an event loop in a thread of its own. What happens inside a session is in session.py.
"""

import asyncio
import contextlib
import threading
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

from data_platform.local.faults import FaultBoard
from data_platform.local.warehouse.protocol import (
    CANCEL_REQUEST,
    GSS_REQUEST,
    SSL_REQUEST,
    FrameReader,
    ProtocolError,
    startup_parameters,
)
from data_platform.local.warehouse.querylog import QueryLog
from data_platform.local.warehouse.session import Session, SessionEnvironment
from data_platform.local.warehouse.unload.contract import UnloadEnvironment
from data_platform.local.warehouse.unloading import Unloader

HOST = "127.0.0.1"
STOP_TIMEOUT_S = 1.0


@dataclass
class Front:
    """Serves the Redshift protocol on `port` over the PostgreSQL server on `postgres_port`."""

    port: int
    postgres_port: int
    faults: FaultBoard
    log_dsn: str
    unload: UnloadEnvironment | None = None
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)
    _thread: threading.Thread | None = None
    _server: asyncio.Server | None = None
    _environment: SessionEnvironment | None = None
    _tasks: set["asyncio.Task[None]"] = field(default_factory=set["asyncio.Task[None]"])

    def start(self) -> None:
        """Listen; returns when connections are taken."""
        self._thread = threading.Thread(target=self._loop.run_forever, name="redshift-front", daemon=True)
        self._thread.start()
        self._run(self._listen())

    def stop(self) -> None:
        """Refuse new connections, end the sessions, end the thread."""
        if self._thread is None:
            return
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(STOP_TIMEOUT_S)
        self._thread = None

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _listen(self) -> None:
        log = QueryLog(self.log_dsn)
        await log.start()
        self._environment = SessionEnvironment(self.postgres_port, self.faults, log, Unloader(self.unload, log), {})
        self._server = await asyncio.start_server(self._accept, HOST, self.port, backlog=512)

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=STOP_TIMEOUT_S)
        if self._environment is not None:
            self._environment.unloader.close()
            await self._environment.log.stop()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        try:
            await self._greet(FrameReader(reader), writer)
        except (ProtocolError, ConnectionError, asyncio.CancelledError):
            pass  # the client went away, or we are stopping: nobody is left to be told
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                await writer.wait_closed()

    async def _greet(self, reader: FrameReader, writer: asyncio.StreamWriter) -> None:
        code, rest = await reader.startup()
        while code in {SSL_REQUEST, GSS_REQUEST}:
            writer.write(b"N")
            await writer.drain()
            code, rest = await reader.startup()
        if code == CANCEL_REQUEST:
            await self._cancel(rest)
            return
        if self._environment is not None:
            await Session(reader, writer, startup_parameters(rest), self._environment).run()

    async def _cancel(self, key: bytes) -> None:
        """A wrong key is ignored in silence, as PostgreSQL does: an answer would help guessing."""
        session = None if self._environment is None else self._environment.sessions.get(key)
        if session is not None:
            await session.cancel()
