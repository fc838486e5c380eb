"""OTLP/protobuf as a stream: whole or delimited requests of any size, in bounded memory.

A request is walked along its fields until a part is small enough to be parsed; a part that cannot be parsed is walked
further, down to its records, so that one bad record costs no other. What does not belong here: columns, values.
"""

from collections.abc import Iterator, Sequence
from io import BytesIO
from itertools import chain
from typing import TYPE_CHECKING, Any

from data_platform.curation.otlp.block import Block
from data_platform.curation.otlp.columns import Columns, NotStrictError
from data_platform.curation.otlp.model import Fault, Reason, RecordError
from data_platform.curation.otlp.source import Source, printable
from data_platform.curation.otlp.values import INT64_MAX, text_of_message

if TYPE_CHECKING:
    from google.protobuf.message import Message
    from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
    from opentelemetry.proto.resource.v1.resource_pb2 import Resource

# What is parsed at once. upb takes about five times the memory of the bytes, and is fastest inside the caches.
PARSE_LIMIT = 256 << 10
RECORD_LIMIT = 16 << 20
TRACE_ID_BYTES = 16
# Field numbers of opentelemetry/proto/logs/v1/logs.proto.
RESOURCE_LOGS, RESOURCE, SCOPE_LOGS, LOG_RECORDS = 1, 1, 2, 2
VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5  # wire types


class WireError(Exception):
    """The bytes contradict the wire format, or end within a field."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class ProtobufForm:
    """The records of OTLP/protobuf, for a Block."""

    @staticmethod
    def extract(records: "list[LogRecord]", columns: Columns) -> None:
        """Append the records' fields, all or none. Raises NotStrictError where a record needs a closer look."""
        attributes: list[Any] = [record.attributes for record in records]
        flat: list[Any] = list(chain.from_iterable(attributes))
        values: list[Any] = [attribute.value for attribute in flat]
        texts: list[str] = [value.string_value for value in values]
        traces: list[bytes] = [record.trace_id for record in records]
        if not set(map(len, traces)) <= {0, TRACE_ID_BYTES}:
            raise NotStrictError
        try:
            if "" in texts:
                texts = [text or text_of_message(value) for text, value in zip(texts, values, strict=True)]
        except RecordError:
            raise NotStrictError from None
        columns.times += [record.time_unix_nano or record.observed_time_unix_nano for record in records]
        columns.names += [record.event_name for record in records]
        columns.traces += [trace.hex() for trace in traces]
        columns.counts += map(len, attributes)
        columns.keys += [attribute.key for attribute in flat]
        columns.texts += texts

    @staticmethod
    def strict(record: "LogRecord") -> "LogRecord":
        """The record itself. Raises RecordError saying what is not allowed."""
        if len(record.trace_id) not in {0, TRACE_ID_BYTES}:
            raise RecordError(Reason.WRONG_TYPE, f"traceId has {len(record.trace_id)} bytes, not {TRACE_ID_BYTES}")
        time = record.time_unix_nano or record.observed_time_unix_nano
        if time > INT64_MAX:
            raise RecordError(Reason.TIME_OUT_OF_RANGE, f"time {time} is beyond the year 2262")
        for attribute in record.attributes:
            text_of_message(attribute.value)
        return record

    @staticmethod
    def empty() -> "LogRecord":
        """A record without anything."""
        from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

        return LogRecord()

    @staticmethod
    def find(origin: "Sequence[LogRecord]", index: int) -> "LogRecord":
        """A record of a parsed scope."""
        return origin[index]

    @staticmethod
    def lines_before(origin: "Sequence[LogRecord]", index: int) -> int:  # noqa: ARG004 - the interface's
        """Messages have no lines."""
        return 0

    @staticmethod
    def raw(record: "LogRecord") -> str:
        """The record's bytes."""
        return printable(record.SerializeToString())


def read_protobuf(source: Source, block: Block, *, delimiter: str) -> Iterator[None]:
    """Put every record into `block`; yields whenever the block may be emptied.

    `delimiter`: `none` (one request, to the end), `varint` (its length before each) or `fixed32` (as the Collector's
    file exporter writes it, big-endian).
    """
    walker = _Walker(source, block)
    if delimiter == "none":
        yield from walker.request(None)
        return
    while source.peek(1):
        length = walker.length(delimiter)
        if length is None:
            return
        yield from walker.request(length)
        if walker.lost:
            return


class _Walker:
    """Walks one stream of requests, field by field."""

    def __init__(self, source: Source, block: Block) -> None:
        self._source = source
        self._block = block
        self.lost = False  # after damage the rest of the stream has no meaning

    def length(self, delimiter: str) -> int | None:
        """The length of the next request, None (and a reject) where there is none."""
        at = self._source.offset
        try:
            return _varint(self._source) if delimiter == "varint" else int.from_bytes(_exactly(self._source, 4), "big")
        except WireError as error:
            self._block.report(Fault(error.reason, str(error), "", offset=at))
            return None

    def request(self, length: int | None) -> Iterator[None]:
        """The resource logs of one request of `length` bytes, or of all that is left."""
        source = self._source
        end = None if length is None else source.offset + length
        while (end is None or source.offset < end) and source.peek(1):
            at = source.offset
            head = source.peek(64)
            try:
                number, size = _field(source, end)
                if number != RESOURCE_LOGS:
                    _skip(source, size)
                elif size <= PARSE_LIMIT:
                    yield from self._resource_logs(source.read(size), size, at)
                else:
                    yield from self._walk_resource_logs(source, size)
            except WireError as error:
                self._block.report(Fault(error.reason, str(error), printable(head), offset=at))
                self.lost = True
                return
            if self._block.full:
                yield
        if end is not None and source.offset < end:
            self._block.report(Fault(Reason.TRUNCATED, "the object ends inside a message", "", offset=source.offset))
        yield

    def _resource_logs(self, body: bytes, size: int, at: int) -> Iterator[None]:
        """Resource logs that fit in memory; walked where they do not parse, or are cut."""
        from google.protobuf.message import DecodeError
        from opentelemetry.proto.logs.v1.logs_pb2 import ResourceLogs

        if len(body) == size:
            try:
                message = ResourceLogs.FromString(body)
            except DecodeError:
                pass
            else:
                service = _service_name(message.resource)
                for scope in message.scope_logs:
                    self._block.add(scope.log_records, service, None, scope.log_records)
                self._block.size += size
                return
        try:
            yield from self._walk_resource_logs(Source(BytesIO(body)), size)
        except WireError as error:
            self._block.report(Fault(error.reason, str(error), printable(body), offset=at))

    def _walk_resource_logs(self, source: Source, size: int) -> Iterator[None]:
        """Resource logs field by field. The resource comes first in every writer's order of fields."""
        from opentelemetry.proto.resource.v1.resource_pb2 import Resource

        service: str | None = None
        end = source.offset + size
        while source.offset < end:
            number, length = _field(source, end)
            if number == RESOURCE:
                resource = self._parse(Resource, _exactly(source, _within(length, RECORD_LIMIT)))
                service = None if resource is None else _service_name(resource)
            elif number == SCOPE_LOGS:
                yield from self._walk_scope_logs(source, length, service)
            else:
                _skip(source, length)

    def _walk_scope_logs(self, source: Source, size: int, service: str | None) -> Iterator[None]:
        """Scope logs in slices of whole records, which are scope logs themselves."""
        from google.protobuf.message import DecodeError
        from opentelemetry.proto.logs.v1.logs_pb2 import ScopeLogs

        end = source.offset + size
        while source.offset < end:
            window = source.peek(min(PARSE_LIMIT, end - source.offset))
            whole = _whole_fields(window)
            if not whole:  # a record larger than a slice, or damage
                self._walk_record(source, end, service)
                continue
            body = source.read(whole)
            try:
                records = ScopeLogs.FromString(body).log_records
            except DecodeError:
                part = Source(BytesIO(body))
                while part.offset < whole:
                    self._walk_record(part, whole, service)
            else:
                self._block.add(records, service, None, records)
                self._block.size += whole
            if self._block.full:
                yield

    def _walk_record(self, source: Source, end: int, service: str | None) -> None:
        """The next field of scope logs, by itself."""
        from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

        number, length = _field(source, end)
        if number != LOG_RECORDS:
            _skip(source, length)
        elif length > RECORD_LIMIT:
            at = source.offset
            raw = printable(source.peek(64))
            _skip(source, length)
            detail = f"a log record of {length:,} bytes; {RECORD_LIMIT:,} are held in memory"
            self._block.report(Fault(Reason.TOO_LARGE, detail, raw, self._block.position, offset=at))
        else:
            record = self._parse(LogRecord, _exactly(source, length))
            if record is not None:
                self._block.add([record], service, None, [record])
                self._block.size += length

    def _parse(self, kind: "type[Message]", body: bytes) -> Any:
        from google.protobuf.message import DecodeError

        try:
            return kind.FromString(body)
        except DecodeError:
            name = kind.DESCRIPTOR.name
            detail = f"{len(body)} bytes that are no {name}"
            self._block.report(Fault(Reason.INVALID_PROTOBUF, detail, printable(body), self._block.position))
            return None


def _service_name(resource: "Resource") -> str | None:
    for attribute in resource.attributes:
        if attribute.key == "service.name":
            return attribute.value.string_value or None
    return None


def _field(source: Source, end: int | None = None) -> tuple[int, int]:
    """Number and length of the next field, whose contents come next; negative unless of a length. Raises WireError."""
    number, size = _tag(source)
    if end is not None and source.offset + size > end:
        raise WireError(Reason.INVALID_PROTOBUF, "a field is longer than its message")
    return number, size


def _tag(source: Source) -> tuple[int, int]:
    tag = _varint(source)
    number, kind = tag >> 3, tag & 7
    if number == 0:
        raise WireError(Reason.INVALID_PROTOBUF, "field number 0")
    if kind == LENGTH:
        return number, _varint(source)
    if kind == VARINT:
        _varint(source)
        return -number, 0
    if kind not in {FIXED64, FIXED32}:
        raise WireError(Reason.INVALID_PROTOBUF, f"wire type {kind}")
    return -number, 8 if kind == FIXED64 else 4


def _whole_fields(window: bytes) -> int:
    """How many bytes of the window are whole fields with a length; other kinds, and damage, end the count."""
    at, size = 0, len(window)
    while at < size:
        if window[at] & 7 != LENGTH or window[at] >= 0x80:
            return at
        length = shift = 0
        next_ = at + 1
        while True:
            if next_ >= size or shift > 28:
                return at
            byte = window[next_]
            next_ += 1
            length |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
            shift += 7
        if next_ + length > size:
            return at
        at = next_ + length
    return at


def _varint(source: Source) -> int:
    value = 0
    for index, byte in enumerate(source.peek(10)):
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            source.read(index + 1)
            return value
    cut = len(source.peek(10)) < 10
    raise WireError(
        Reason.TRUNCATED if cut else Reason.INVALID_PROTOBUF,
        "the object ends inside a number" if cut else "a number of more than ten bytes",
    )


def _exactly(source: Source, size: int) -> bytes:
    body = source.read(size)
    if len(body) < size:
        raise WireError(Reason.TRUNCATED, f"the object ends inside a message: {len(body):,} of {size:,} bytes")
    return body


def _within(size: int, limit: int) -> int:
    if size > limit:
        raise WireError(Reason.TOO_LARGE, f"a resource of {size:,} bytes")
    return size


def _skip(source: Source, size: int) -> None:
    while size > 0:
        taken = len(source.read_some(min(size, 1 << 20)))
        if not taken:
            raise WireError(Reason.TRUNCATED, "the object ends inside a message")
        size -= taken
