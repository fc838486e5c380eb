"""The little of Kafka's wire protocol that the front must understand; bytes in, bytes out, no sockets.

Frames are <length int32><api key int16><api version int16><correlation id int32><client id string>..., all big-endian.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum


class Api(IntEnum):
    """API keys of the requests that the mock cluster answers, and CreateTopics, which the front answers."""

    PRODUCE = 0
    FETCH = 1
    LIST_OFFSETS = 2
    METADATA = 3
    OFFSET_COMMIT = 8
    OFFSET_FETCH = 9
    FIND_COORDINATOR = 10
    JOIN_GROUP = 11
    HEARTBEAT = 12
    LEAVE_GROUP = 13
    SYNC_GROUP = 14
    API_VERSIONS = 18
    CREATE_TOPICS = 19
    INIT_PRODUCER_ID = 22

    @property
    def title(self) -> str:
        """The name as Kafka's documentation spells it, e.g. OffsetCommit."""
        return self.name.title().replace("_", "")


_TITLES = {int(api): api.title for api in Api}
# Up to the last version without tagged fields, which would have to be parsed otherwise.
CREATE_TOPICS_VERSIONS = (0, 4)
JOIN_GROUP_VERSIONS = (0, 5)
INVALID_PARTITIONS = 37
_HEADER = struct.Struct(">hhi")


@dataclass(frozen=True)
class RequestHeader:
    """What every request begins with; `body` is the offset of what follows the client id."""

    api_key: int
    version: int
    correlation_id: int
    client_id: str
    body: int

    @property
    def named(self) -> bool:
        """Whether the API is one of `Api`; of these it is known that the mock broker answers with injected errors."""
        return self.api_key in _TITLES

    @property
    def api(self) -> str:
        """Name of the API, e.g. Produce; the number as text for one that has no name here."""
        return _TITLES.get(self.api_key, str(self.api_key))

    @property
    def facts(self) -> dict[str, object]:
        """What a fault may be matched on."""
        return {"api": self.api, "api_key": self.api_key, "client_id": self.client_id}


@dataclass(frozen=True)
class WantedTopic:
    """One topic of a CreateTopics request; `partitions` -1 asks for the broker's default."""

    name: str
    partitions: int


@dataclass(frozen=True)
class TopicResult:
    """What became of it: Kafka's error code (0 made) and the message beside it."""

    name: str
    error_code: int
    message: str | None = None


class _Reader:
    """Reads the primitive types of the protocol, one after the other."""

    def __init__(self, data: bytes, offset: int = 0) -> None:
        self._data = data
        self.offset = offset

    def number(self, form: str) -> int:
        value: int = struct.unpack_from(f">{form}", self._data, self.offset)[0]
        self.offset += struct.calcsize(f">{form}")
        return value

    def text(self) -> str | None:
        size = self.number("h")
        if size < 0:
            return None
        self.offset += size
        return self._data[self.offset - size : self.offset].decode()


def _string(text: str | None) -> bytes:
    if text is None:
        return struct.pack(">h", -1)
    data = text.encode()
    return struct.pack(">h", len(data)) + data


def parse_header(frame: bytes) -> RequestHeader:
    """The header of a request frame (without its length). Raises struct.error for a frame that is too short."""
    api_key, version, correlation_id = _HEADER.unpack_from(frame)
    reader = _Reader(frame, _HEADER.size)
    return RequestHeader(api_key, version, correlation_id, reader.text() or "", reader.offset)


def correlation_id_of(response: bytes) -> int:
    """The correlation id a response frame (without its length) begins with."""
    return int.from_bytes(response[:4], "big", signed=True)


def add_create_topics(response: bytes) -> bytes:
    """An ApiVersions response (versions 0 to 2) that also offers CreateTopics; an error response as it is."""
    error_code, count = struct.unpack_from(">hi", response, 4)
    if error_code:
        return response
    end = 10 + 6 * count
    offer = struct.pack(">hhh", Api.CREATE_TOPICS, *CREATE_TOPICS_VERSIONS)
    return response[:6] + struct.pack(">i", count + 1) + response[10:end] + offer + response[end:]


def limit_session_timeout(frame: bytes, header: RequestHeader, limit_ms: int) -> bytes:
    """A JoinGroup request (versions 0 to 5) whose session time-out is at most `limit_ms`."""
    reader = _Reader(frame, header.body)
    reader.text()  # group id
    start = reader.offset
    if reader.number("i") <= limit_ms:
        return frame
    return frame[:start] + struct.pack(">i", limit_ms) + frame[reader.offset :]


def parse_create_topics(frame: bytes, header: RequestHeader) -> tuple[list[WantedTopic], bool]:
    """The topics of a CreateTopics request and whether they shall only be checked."""
    reader = _Reader(frame, header.body)
    topics: list[WantedTopic] = []
    for _ in range(reader.number("i")):
        name = reader.text() or ""
        partitions = reader.number("i")
        reader.number("h")  # replication factor: there is one broker
        assigned = max(reader.number("i"), 0)
        for _assignment in range(assigned):
            reader.number("i")
            for _broker in range(reader.number("i")):
                reader.number("i")
        for _entry in range(max(reader.number("i"), 0)):  # topic settings: the mock has none
            reader.text()
            reader.text()
        topics.append(WantedTopic(name, assigned or partitions))
    reader.number("i")  # time-out
    return topics, bool(header.version >= 1 and reader.number("b"))


def create_topics_response(header: RequestHeader, results: list[TopicResult]) -> bytes:
    """The answer to a CreateTopics request, as a frame without its length."""
    parts = [struct.pack(">i", header.correlation_id)]
    if header.version >= 2:
        parts.append(struct.pack(">i", 0))  # throttle time, ms
    parts.append(struct.pack(">i", len(results)))
    for result in results:
        parts += [_string(result.name), struct.pack(">h", result.error_code)]
        if header.version >= 1:
            parts.append(_string(result.message))
    return b"".join(parts)
