"""The front before the mock broker: keeps one port, passes frames both ways, creates topics, strikes with faults.

Every request passes here, so a fault strikes exactly the request that was asked for, and its count is what happened.
"""

import asyncio
import contextlib
import logging
import threading
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field
from struct import error as StructError  # noqa: N812 - the module names its exception in lower case
from typing import Any

from confluent_kafka import KafkaError

from data_platform.local.faults import FaultBoard, FaultRule
from data_platform.local.kafka import protocol
from data_platform.local.kafka.mock import MockCluster
from data_platform.local.kafka.protocol import Api, RequestHeader, TopicResult

HOST = "127.0.0.1"
MAX_FRAME_BYTES = 100 * 1024 * 1024  # a broker's socket.request.max.bytes
DEFAULT_PARTITIONS = 3
# The mock broker lets a group that a member has left wait for the session time-out less 1 s before it goes on: 44 s
# by default. Twice the clients' heartbeat interval (3 s) is the least that keeps living members in.
SESSION_LIMIT_MS = 6_000
_log = logging.getLogger(__name__)


def error_code(args: Mapping[str, Any]) -> int:
    """The broker's error code in `args`: a number, or Kafka's name such as NOT_LEADER_FOR_PARTITION.

    Raises ValueError for anything else, and for librdkafka's own (negative) codes, which no broker sends.
    """
    code = args.get("code")
    if isinstance(code, str):
        code = getattr(KafkaError, code, None)
    if not isinstance(code, int) or isinstance(code, bool) or code < -1 or code == 0:
        message = "kafka.error needs code=, an error code of Kafka's protocol or its name"
        raise ValueError(message)
    return code


class _Hangup(Exception):  # noqa: N818 - not an error: the connection shall end here
    """Close this connection, both sides."""


@dataclass
class _Connection:
    """One client and its twin connection to the mock broker."""

    client: asyncio.StreamWriter
    broker: asyncio.StreamWriter
    api_versions: set[int] = field(default_factory=set[int])  # correlation ids whose answers are rewritten
    struck: dict[int, FaultRule] = field(default_factory=dict[int, FaultRule])  # answers a fault waits for


class KafkaFront:
    """A loopback listener on `port` that leads to `mock`; runs in a thread of its own."""

    def __init__(self, mock: MockCluster, faults: FaultBoard, port: int) -> None:
        self._mock = mock
        self._faults = faults
        self._port = port
        self._loop = asyncio.new_event_loop()
        faults.check_arguments("kafka.error", error_code)
        self._thread = threading.Thread(target=self._loop.run_forever, name="kafka-front", daemon=True)
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Listen. Raises OSError when the port is taken."""
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self._serve, HOST, self._port), self._loop
        ).result(5)

    def stop(self) -> None:
        """Close every connection and the listener."""
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        try:
            if self._faults.strike("kafka.broker_down") is None:
                await self._relay(reader, writer)
        except asyncio.CancelledError:
            pass  # the engine stops; asyncio would log it as an error of the connection
        finally:
            writer.close()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Both directions until either side ends or a fault hangs up."""
        broker_reader, broker_writer = await asyncio.open_connection(*self._mock.address)
        connection = _Connection(writer, broker_writer)
        pumps = [
            self._loop.create_task(_until_end(self._requests(reader, connection))),
            self._loop.create_task(_until_end(self._responses(broker_reader, connection))),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            for outcome in await asyncio.gather(*pumps, return_exceptions=True):
                if isinstance(outcome, Exception):
                    _log.error("connection closed by a bug of the front", exc_info=outcome)
            broker_writer.close()

    async def _requests(self, reader: asyncio.StreamReader, connection: _Connection) -> None:
        while True:
            frame = await _read_frame(reader)
            header = protocol.parse_header(frame)
            for kind in ("kafka.broker_down", "kafka.disconnect"):
                if self._faults.strike(kind, **header.facts):
                    raise _Hangup
            if header.api_key == Api.CREATE_TOPICS:
                await _write_frame(connection.client, self._create_topics(frame, header))
                continue
            if header.api_key == Api.JOIN_GROUP:
                frame = protocol.limit_session_timeout(frame, header, SESSION_LIMIT_MS)
            if header.api_key == Api.API_VERSIONS:
                connection.api_versions.add(header.correlation_id)
            for kind in ("kafka.drop_response", "kafka.delay"):
                if rule := self._faults.strike(kind, **header.facts):
                    connection.struck[header.correlation_id] = rule
            if header.named and (rule := self._faults.strike("kafka.error", **header.facts)):
                self._mock.fail_next(header.api_key, error_code(rule.args))
            await _write_frame(connection.broker, frame)

    async def _responses(self, reader: asyncio.StreamReader, connection: _Connection) -> None:
        while True:
            frame = await _read_frame(reader)
            correlation_id = protocol.correlation_id_of(frame)
            rule = connection.struck.pop(correlation_id, None)
            if rule is not None and rule.kind == "kafka.drop_response":
                raise _Hangup  # the broker has done it; its client will never know
            if rule is not None:
                await asyncio.sleep(float(rule.args.get("seconds", 1.0)))
            if correlation_id in connection.api_versions:
                connection.api_versions.discard(correlation_id)
                frame = protocol.add_create_topics(frame)
            await _write_frame(connection.client, frame)

    def _create_topics(self, frame: bytes, header: RequestHeader) -> bytes:
        """Answer CreateTopics, which the mock broker itself does not know."""
        rule = self._faults.strike("kafka.error", **header.facts)
        topics, only_check = protocol.parse_create_topics(frame, header)
        results: list[TopicResult] = []
        for topic in topics:
            if rule is not None:
                results.append(TopicResult(topic.name, error_code(rule.args), "injected"))
                continue
            partitions = DEFAULT_PARTITIONS if topic.partitions == -1 else topic.partitions
            if partitions < 1:
                message = "Number of partitions must be larger than 0."
                results.append(TopicResult(topic.name, protocol.INVALID_PARTITIONS, message))
            else:
                code = 0 if only_check else self._mock.create_topic(topic.name, partitions)
                message = f"Topic '{topic.name}' was not created." if code else None
                results.append(TopicResult(topic.name, code, message))
        return protocol.create_topics_response(header, results)


async def _until_end(pump: Coroutine[None, None, None]) -> None:
    """Run one direction; a closed connection, a hang-up and a frame that is none end it quietly."""
    with contextlib.suppress(_Hangup, asyncio.IncompleteReadError, ConnectionError):
        try:
            await pump
        except (StructError, ValueError) as error:
            _log.warning("not a Kafka frame, connection closed: %s", error)


async def _read_frame(reader: asyncio.StreamReader) -> bytes:
    size = int.from_bytes(await reader.readexactly(4), "big", signed=True)
    if not 0 <= size <= MAX_FRAME_BYTES:
        message = f"frame of {size} bytes"
        raise ValueError(message)
    return await reader.readexactly(size)


async def _write_frame(writer: asyncio.StreamWriter, frame: bytes) -> None:
    writer.write(len(frame).to_bytes(4, "big") + frame)
    await writer.drain()
