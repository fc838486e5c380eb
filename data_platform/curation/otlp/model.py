"""What comes out of an OTLP object: the events' schema, the rejects and their reasons. Pure data."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

# Enough to see what it was; the object itself stays where it is.
RAW_LIMIT = 4096


class Reason(StrEnum):
    """Why something in an object is not an event."""

    INVALID_JSON = "invalid_json"  # a line that is not one JSON document
    INVALID_PROTOBUF = "invalid_protobuf"  # bytes that are no message of OTLP
    UNKNOWN_FORMAT = "unknown_format"  # an object that is neither JSON nor protobuf
    TRUNCATED = "truncated"  # the object ends inside a gzip member or a message
    DAMAGED_GZIP = "damaged_gzip"  # the compressed data contradict themselves or their checksum
    TRAILING_GARBAGE = "trailing_garbage"  # bytes after the last gzip member
    NOT_LOGS = "not_logs"  # a JSON document without resourceLogs
    WRONG_TYPE = "wrong_type"  # a field of another type than OTLP gives it
    TOO_LARGE = "too_large"  # one record beyond what is held in memory
    MISSING_SERVICE = "missing_service_name"
    MISSING_TIME = "missing_time"
    TIME_OUT_OF_RANGE = "time_out_of_range"  # beyond 2262-04-11, the end of signed nanoseconds
    MISSING_NAME = "missing_event_name"


@dataclass(frozen=True, slots=True)
class Reject:
    """Something that is not an event: why, where, and its text, cut at RAW_LIMIT characters (base64 where binary).

    `position` is the record's number in the object from 0, `line` the line's from 1, `offset` the byte's from 0 in
    the uncompressed object; each only where it is known.
    """

    object_key: str
    reason: Reason
    detail: str
    raw: str
    position: int | None = None
    line: int | None = None
    offset: int | None = None


@dataclass(frozen=True, slots=True)
class EventBatch:
    """Events with `events_schema()` in the order of the object, and what was rejected between them."""

    batch: "pa.RecordBatch"
    rejects: list[Reject]


@dataclass(frozen=True, slots=True)
class Fault:
    """A reject that does not know its object yet."""

    reason: Reason
    detail: str
    raw: str
    position: int | None = None
    line: int | None = None
    offset: int | None = None

    def within(self, object_key: str) -> Reject:
        """The reject of that object."""
        return Reject(object_key, self.reason, self.detail, self.raw, self.position, self.line, self.offset)


class RecordError(Exception):
    """A log record that is no event."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


Report = Callable[[Fault], None]


def events_schema() -> "pa.Schema":
    """Arrow schema of the curated events, `analytics/events` of the catalogue."""
    import pyarrow as pa

    text = pa.string()
    return pa.schema(
        [
            pa.field("service_name", text, nullable=False),
            pa.field("event_time", pa.timestamp("ns", tz="UTC"), nullable=False),
            pa.field("event_date", pa.date32(), nullable=False),
            pa.field("event_name", text, nullable=False),
            pa.field("user_id", text),
            pa.field("session_id", text),
            pa.field("attributes", pa.map_(text, pa.field("value", text, nullable=False)), nullable=False),
            pa.field("trace_id", text),
            pa.field("record_uid", text),
            pa.field("source_object", text, nullable=False),
            pa.field("source_position", pa.uint64(), nullable=False),
        ]
    )
