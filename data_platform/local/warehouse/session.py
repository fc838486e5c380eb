"""One client's session: its frames on their way to PostgreSQL and back, and what the front does in between.

An error of the front's own is made by PostgreSQL: it is sent a word that is no SQL, and its ErrorResponse is exchanged
on the way back. So the order of answers, the skipping up to Sync and the state of the transaction are always right.
"""

import asyncio
import re
import struct
from collections.abc import MutableMapping
from dataclasses import dataclass
from itertools import count

from data_platform.local.faults import FaultBoard
from data_platform.local.warehouse.backend import Backend
from data_platform.local.warehouse.interference import Interference
from data_platform.local.warehouse.pending import Kind, Pending
from data_platform.local.warehouse.protocol import (
    Frame,
    FrameReader,
    cstring,
    error_fields,
    error_response,
    frame,
    notice_response,
    read_cstring,
    startup_packet,
)
from data_platform.local.warehouse.querylog import QueryLog, QueryRecord
from data_platform.local.warehouse.source import CANCELLED
from data_platform.local.warehouse.statements import DEFAULT_LABEL, Plan, plan
from data_platform.local.warehouse.unload.contract import ConnectionDroppedError, WarehouseError
from data_platform.local.warehouse.unloading import Unloader, UnloadTask

SERVER_VERSION = "8.0.2"  # what Redshift reports; drivers parse it
# redshift-connector sends more (driver_version, os_version, ...), which PostgreSQL refuses.
PASSED_PARAMETERS = ("user", "database", "application_name", "client_encoding", "options")
# Redshift reads a backslash in a literal as an escape.
SESSION_OPTIONS = "-c standard_conforming_strings=off -c escape_string_warning=off"
_AUTH_SASL = b"\0\0\0\x0a"
_REFUSED = re.compile(r"\bdp_refused_(\d+)\b")


class SessionEndedError(Exception):
    """The session is closed without another word."""


@dataclass(frozen=True)
class SessionEnvironment:
    """What all sessions share."""

    postgres_port: int
    faults: FaultBoard
    log: QueryLog
    unloader: Unloader
    sessions: "MutableMapping[bytes, Session]"  # by cancel key


class Session:
    """Pumps frames both ways until either side ends."""

    def __init__(
        self,
        client: FrameReader,
        to_client: asyncio.StreamWriter,
        parameters: dict[str, str],
        environment: SessionEnvironment,
    ) -> None:
        self._client = client
        self._to_client = to_client
        self._parameters = parameters
        self._environment = environment
        self._backend = Backend(environment.postgres_port)
        self._user = parameters.get("user", "")
        self._database = parameters.get("database", self._user)
        application = parameters.get("application_name", "")
        self._interference = Interference(environment.faults, self._user, self._database, application)
        self._label = DEFAULT_LABEL
        self._statements: dict[str, Plan] = {}
        self._portals: dict[str, Plan] = {}
        self._pending = Pending()
        self._answered = asyncio.Event()
        self._refusals: dict[int, WarehouseError] = {}
        self._refusal_numbers = count(1)
        self._parked: asyncio.Future[bool] | None = None
        self._resume = asyncio.Event()
        self._unload: UnloadTask | None = None
        self._cancelled = asyncio.Event()
        self._mute = False  # a fault: what PostgreSQL still answers does not reach the client

    async def cancel(self) -> None:
        """A CancelRequest has come for this session."""
        self._cancelled.set()
        if self._unload is not None:
            self._unload.source.stop(CANCELLED)
        await self._backend.cancel()

    async def run(self) -> None:
        """Connect to PostgreSQL and serve; registered under its cancel key while it lives."""
        refusal = self._interference.refuse()
        if refusal is not None:
            if refusal.error is not None:
                await self._send(_error(refusal.error, severity="FATAL"))
            return
        try:
            await self._backend.open(self._startup())
        except OSError:
            error = WarehouseError("57P03", "the database system is starting up")
            await self._send(_error(error, severity="FATAL"))
            return
        ends = [asyncio.create_task(self._serve_client()), asyncio.create_task(self._serve_server())]
        try:
            done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            for end in done:
                error = end.exception()
                if error is not None and not isinstance(error, SessionEndedError | ConnectionError):
                    raise error
        finally:
            self._environment.sessions.pop(self._backend.key, None)
            await self._end(ends)

    async def _end(self, ends: "list[asyncio.Task[None]]") -> None:
        if self._unload is not None:
            self._unload.source.stop(CANCELLED)
        for end in ends:
            end.cancel()
        await self._backend.close()
        await asyncio.gather(*ends, return_exceptions=True)
        for record in self._pending.abandoned():
            self._environment.log.finish(record, "08006", "the session ended")

    def _startup(self) -> bytes:
        parameters = {name: self._parameters[name] for name in PASSED_PARAMETERS if name in self._parameters}
        parameters["options"] = f"{parameters.get('options', '')} {SESSION_OPTIONS}".strip()
        return startup_packet(parameters)

    # -- client to server ---------------------------------------------------------------------------------------------

    async def _serve_client(self) -> None:
        while (message := await self._client.read()) is not None:
            if message.kind == b"Q":
                await self._on_query(message)
            elif message.kind == b"P":
                await self._on_parse(message)
            elif message.kind == b"B":
                await self._on_bind(message)
            elif message.kind == b"E":
                await self._on_execute(message)
            else:
                if message.kind in b"SF":
                    self._pending.sent(Kind.SYNC)
                elif message.kind == b"C":
                    name, _ = read_cstring(message.body, 1)
                    (self._statements if message.body[:1] == b"S" else self._portals).pop(name, None)
                await self._backend.send(message.raw)

    async def _on_query(self, message: Frame) -> None:
        text, _ = read_cstring(message.body)
        decided = plan(text)
        if decided.reads_log:
            await self._environment.log.flush()
        record, error = await self._begin(decided)
        error = error or decided.error
        if error is None and decided.unload is not None:
            await self._run_unload(decided, record, frame(b"Q", b"\0"), simple=True)
            return
        self._pending.sent(Kind.QUERY, record)
        if error is not None:
            await self._backend.send(frame(b"Q", cstring(self._refuse(error))))
        else:
            await self._backend.send(message.raw if decided.sent == text else frame(b"Q", cstring(decided.sent)))

    async def _on_parse(self, message: Frame) -> None:
        name, at = read_cstring(message.body)
        text, at = read_cstring(message.body, at)
        decided = self._statements[name] = plan(text)
        if decided.error is not None:
            await self._backend.send(_parse(name, self._refuse(decided.error)))
        elif decided.unload is not None:  # an empty statement stands for it: no parameters, no rows
            await self._backend.send(_parse(name, ""))
        elif decided.sent != text:
            await self._backend.send(frame(b"P", cstring(name) + cstring(decided.sent) + message.body[at:]))
        else:
            await self._backend.send(message.raw)

    async def _on_bind(self, message: Frame) -> None:
        portal, at = read_cstring(message.body)
        statement, _ = read_cstring(message.body, at)
        decided = self._statements.get(statement)
        if decided is not None:
            self._portals[portal] = decided
            if decided.reads_log:  # the snapshot is taken here, not when it is executed
                await self._environment.log.flush()
        await self._backend.send(message.raw)

    async def _on_execute(self, message: Frame) -> None:
        portal, _ = read_cstring(message.body)
        decided = self._portals.get(portal)
        if decided is None:
            self._pending.sent(Kind.EXECUTE)
            await self._backend.send(message.raw)
            return
        record, error = await self._begin(decided)
        if error is None and decided.unload is not None:
            await self._run_unload(decided, record, message.raw + frame(b"H"), simple=False)
            return
        self._pending.sent(Kind.EXECUTE, record)
        await self._backend.send(message.raw if error is None else _parse("", self._refuse(error)))

    async def _begin(self, decided: Plan) -> tuple[QueryRecord, WarehouseError | None]:
        """What happens before a statement is executed: faults, the query log. The error, if it is to fail."""
        self._label = decided.label or self._label
        self._cancelled.clear()
        pid = struct.unpack_from("!i", self._backend.key)[0] if self._backend.key else 0
        record = self._environment.log.begin(self._user, pid, self._database, self._label, decided.text)
        interference = await self._interference.strike(decided.text, self._cancelled)
        if interference.drop == "before":
            self._environment.log.finish(record, "08006", "the connection was dropped")
            raise SessionEndedError
        self._mute = self._mute or interference.drop == "after"
        return record, interference.error

    def _refuse(self, error: WarehouseError) -> str:
        """A text that PostgreSQL answers with an ErrorResponse, for which the client will see `error`."""
        number = next(self._refusal_numbers)
        self._refusals[number] = error
        return f"dp_refused_{number}"

    # -- UNLOAD -------------------------------------------------------------------------------------------------------

    async def _run_unload(self, decided: Plan, record: QueryRecord, sentinel: bytes, *, simple: bool) -> None:
        """Bring the server to a stop where the UNLOAD stands (an EmptyQueryResponse marks the place), run it there."""
        if decided.unload is None:
            return
        while self._pending.ready_owed:
            self._answered.clear()
            await self._answered.wait()
        if self._pending.batch_failed:
            return  # skipped up to the Sync, as PostgreSQL would
        self._pending.sent(Kind.QUERY if simple else Kind.EXECUTE, record)
        loop = asyncio.get_running_loop()
        self._parked = loop.create_future()
        self._resume.clear()
        await self._backend.send(sentinel)
        if not await self._parked:
            return  # something before it in the batch has failed, and the client knows
        try:
            if simple:
                await self._backend.ready()
            answer = await self._unloaded(decided, record)
        except ConnectionDroppedError:
            raise SessionEndedError from None
        except WarehouseError as error:
            refusal = self._refuse(error)
            await self._backend.send(frame(b"Q", cstring(refusal)) if simple else _parse("", refusal) + frame(b"H"))
        else:
            done = self._pending.ready() if simple else self._pending.executed()
            if done is not None:
                self._environment.log.finish(done)
            await self._environment.log.flush()
            await self._send(answer + (frame(b"Z", self._backend.status) if simple else b""))
            if simple and self._mute:
                raise SessionEndedError
        self._resume.set()

    async def _unloaded(self, decided: Plan, record: QueryRecord) -> bytes:
        """Execute; the answer to the client. A client that goes away cancels what it asked for."""
        if decided.unload is None:
            return b""
        self._unload = self._environment.unloader.task(decided.unload, self._backend, record)
        watch = asyncio.create_task(self._client.until_end())
        watch.add_done_callback(self._client_gone)
        try:
            outcome = await self._unload.run()
        finally:
            self._unload = None
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)  # one reader at a time
        notice = f"UNLOAD completed, {outcome.rows} record(s) unloaded successfully."
        return notice_response(notice) + frame(b"C", cstring("UNLOAD"))

    def _client_gone(self, watch: "asyncio.Task[None]") -> None:
        if not watch.cancelled() and self._unload is not None:
            self._unload.stop(CANCELLED)

    # -- server to client ---------------------------------------------------------------------------------------------

    async def _serve_server(self) -> None:
        while (message := await self._backend.read()) is not None:
            if message.kind == b"I" and self._parked is not None:
                parked, self._parked = self._parked, None
                parked.set_result(True)
                await self._resume.wait()
                continue
            self._note(message)
            await self._send(self._as_redshift(message))
            if message.kind == b"Z" and self._mute:
                return

    async def _send(self, data: bytes) -> None:
        if not self._mute:
            self._to_client.write(data)
            await self._to_client.drain()

    def _note(self, message: Frame) -> None:
        """Keep the books: which statement this answers."""
        if message.kind == b"K":
            self._backend.key = message.body
            self._environment.sessions[message.body] = self
        elif message.kind == b"E":
            self._note_error(message)
        elif message.kind in b"CIs":
            record = self._pending.executed()
            if record is not None:
                self._environment.log.finish(record)
        elif message.kind == b"Z":
            self._backend.status = message.body
            record = self._pending.ready()
            if record is not None:
                self._environment.log.finish(record)
            self._answered.set()

    def _note_error(self, message: Frame) -> None:
        record = self._pending.failed()
        if record is not None:
            error = self._refusal(message)
            fields = error_fields(message.body)
            state, text = (error.sqlstate, error.message) if error else (fields.get("C", ""), fields.get("M", ""))
            self._environment.log.finish(record, state, text)
        if self._parked is not None:
            parked, self._parked = self._parked, None
            parked.set_result(False)

    def _refusal(self, message: Frame) -> WarehouseError | None:
        found = _REFUSED.search(error_fields(message.body).get("M", ""))
        return self._refusals.get(int(found.group(1))) if found else None

    def _as_redshift(self, message: Frame) -> bytes:
        if message.kind == b"S" and message.body.startswith(b"server_version\0"):
            return frame(b"S", cstring("server_version") + cstring(SERVER_VERSION))
        if message.kind == b"R" and "driver_version" in self._parameters and message.body.startswith(_AUTH_SASL):
            # redshift-connector 2.2 takes the list's end for a mechanism with an empty name and fails.
            return frame(b"R", message.body.removesuffix(b"\0"))
        if message.kind == b"E" and self._refusals:
            error = self._refusal(message)
            if error is not None:
                return _error(error)
        if message.kind == b"Z":
            self._refusals.clear()
        return message.raw


def _parse(name: str, text: str) -> bytes:
    return frame(b"P", cstring(name) + cstring(text) + struct.pack("!h", 0))


def _error(error: WarehouseError, severity: str = "ERROR") -> bytes:
    optional = [("D", error.detail), ("H", error.hint), ("P", None if error.position is None else str(error.position))]
    fields = [("S", severity), ("V", severity), ("C", error.sqlstate), ("M", error.message)]
    return error_response(fields + [(letter, text) for letter, text in optional if text is not None])
