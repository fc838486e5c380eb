"""One client's session: its frames on their way to PostgreSQL and back, and what the front does in between."""

import asyncio
import contextlib
from collections.abc import MutableMapping

from data_platform.local.faults import FaultBoard
from data_platform.local.warehouse.protocol import Frame, FrameReader, cstring, frame, startup_packet

HOST = "127.0.0.1"
SERVER_VERSION = "8.0.2"  # what Redshift reports; drivers parse it
AUTH_SASL = b"\0\0\0\x0a"
# redshift-connector sends more (driver_version, os_version, ...), which PostgreSQL refuses.
PASSED_PARAMETERS = ("user", "database", "application_name", "client_encoding", "options")
# Redshift reads a backslash in a literal as an escape.
SESSION_OPTIONS = "-c standard_conforming_strings=off -c escape_string_warning=off"


class Session:
    """Pumps frames both ways until either side ends."""

    def __init__(
        self,
        client: FrameReader,
        to_client: asyncio.StreamWriter,
        parameters: dict[str, str],
        postgres_port: int,
        faults: FaultBoard,
    ) -> None:
        self._client = client
        self._to_client = to_client
        self._parameters = parameters
        self._postgres_port = postgres_port
        self._faults = faults

    def cancel(self) -> None:
        """A CancelRequest has come for this session."""

    async def run(self, sessions: "MutableMapping[bytes, Session]") -> None:
        """Connect to PostgreSQL and serve; registered in `sessions` under its cancel key while it lives."""
        parameters = {name: self._parameters[name] for name in PASSED_PARAMETERS if name in self._parameters}
        parameters["options"] = f"{parameters.get('options', '')} {SESSION_OPTIONS}".strip()
        stream, to_server = await asyncio.open_connection(HOST, self._postgres_port)
        server = FrameReader(stream)
        to_server.write(startup_packet(parameters))
        ends = [
            asyncio.create_task(self._serve_client(to_server)),
            asyncio.create_task(self._serve_server(server, sessions)),
        ]
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for key in [key for key, session in sessions.items() if session is self]:
                del sessions[key]
            for end in ends:
                end.cancel()
            to_server.close()
            await asyncio.gather(*ends, return_exceptions=True)
            with contextlib.suppress(ConnectionError):
                await to_server.wait_closed()

    async def _serve_client(self, to_server: asyncio.StreamWriter) -> None:
        while (message := await self._client.read()) is not None:
            to_server.write(message.raw)
            await to_server.drain()

    async def _serve_server(self, server: FrameReader, sessions: "MutableMapping[bytes, Session]") -> None:
        while (message := await server.read()) is not None:
            if message.kind == b"K":
                sessions[message.body] = self
            self._to_client.write(self._as_redshift(message))
            await self._to_client.drain()

    def _as_redshift(self, message: Frame) -> bytes:
        if message.kind == b"S" and message.body.startswith(b"server_version\0"):
            return frame(b"S", cstring("server_version") + cstring(SERVER_VERSION))
        if message.kind == b"R" and "driver_version" in self._parameters and message.body.startswith(AUTH_SASL):
            # redshift-connector 2.2 takes the list's end for a mechanism with an empty name and fails.
            return frame(b"R", message.body.removesuffix(b"\0"))
        return message.raw
