"""Shop events as the OpenTelemetry SDK emits them and as the Collector's S3 exporter stores them: one object at a time.

What belongs here: records, OTLP bytes, object names. What does not: what happened in the shops (shop.py), S3 (load.py).
"""

import gzip
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby, islice
from random import Random
from typing import Any

import orjson
from google.protobuf.json_format import MessageToDict
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.sdk._logs import LoggerProvider, LogRecordLimits, ReadableLogRecord
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.resources import Resource
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

from data_platform.local.sample.shop import NANOSECONDS, SHOPS, Shop, ShopEvent, shop_events

SECONDS_A_DAY = 86_400
RECORDS_A_LINE = 100  # of a JSON object: one request of the Collector's batch processor a line
# The four forms the exporter can be set to (marshaler x compression); a shop's days take turns.
FORMS = (("json", True), ("binpb", True), ("json", False), ("binpb", False))
BROKEN_EVERY = 11  # every n-th object holds something that cannot be read, as real buckets do
NAME_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True, slots=True)
class LogObject:
    """One object of the raw bucket. `records` counts the log records in it that can be read."""

    key: str
    body: bytes
    records: int


def log_objects(prefix: str = "otel-logs", *, days: int | None = None) -> Iterator[LogObject]:
    """Every object of both shops, a shop after the other, by the day of export; the same bytes every time.

    `days`: only those of each shop's first so many days of export.

    Keys are `<prefix>/year=YYYY/month=MM/day=DD/hour=HH/<service>_logs_<unique>.<json or binpb>[.gz]`: the exporter's
    own names with `file_prefix: <service>_`. The hour is that of the day's last export; events may be days older.
    """
    for shop in SHOPS:
        by_day = groupby(shop_events(shop), key=lambda event: event.delivered_ns // NANOSECONDS // SECONDS_A_DAY)
        for number, (_, exported) in enumerate(islice(by_day, days)):
            yield _log_object(prefix, shop, number, list(exported))


def _log_object(prefix: str, shop: Shop, number: int, events: list[ShopEvent]) -> LogObject:
    form, zipped = FORMS[number % len(FORMS)]
    records = emit(shop, events)
    body = to_json_lines(records) if form == "json" else to_protobuf(records)
    if number % BROKEN_EVERY == BROKEN_EVERY // 2:
        body += _broken_json(shop) if form == "json" else b"\x0a\x7f\x0a\x03cut"
    if zipped:
        body = gzip.compress(body, compresslevel=6, mtime=0)
    exported = datetime.fromtimestamp(events[-1].delivered_ns // NANOSECONDS, UTC)
    # The exporter draws nine letters and digits; drawn from the key they never change.
    unique = Random(f"{shop.service}:{number}").choices(NAME_LETTERS + "0123456789", k=8)  # noqa: S311 - a name
    name = f"{shop.service}_logs_{NAME_LETTERS[number % 52]}{''.join(unique)}.{form}{'.gz' if zipped else ''}"
    return LogObject(f"{prefix}/{exported:year=%Y/month=%m/day=%d/hour=%H}/{name}", body, len(events))


def emit(shop: Shop, events: Iterable[ShopEvent]) -> Sequence[ReadableLogRecord]:
    """Log the events through the SDK, as the shop's own code would; what its exporter got."""
    exporter = InMemoryLogRecordExporter()
    provider = LoggerProvider(
        # Not Resource.create(): it would add this process and its environment.
        Resource({"service.name": shop.service, "service.version": "4.2.0", "deployment.environment.name": "sample"}),
        shutdown_on_exit=False,
        # Given, so that OTEL_* variables of whoever runs this change nothing.
        log_record_limits=LogRecordLimits(
            max_log_record_attributes=128, max_log_record_attribute_length=LogRecordLimits.UNSET
        ),
    )
    provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
    logger = provider.get_logger("theshop.web", "4.2.0")
    for event in events:
        logger.emit(_log_record(event))
    return exporter.get_finished_logs()


def _log_record(event: ShopEvent) -> LogRecord:
    legacy = "app.legacy" in event.attributes  # before the conventions had event names and user.id
    attributes: dict[str, Any] = {"log.record.uid": event.uid, **event.attributes}
    if event.user_id is not None:
        attributes["enduser.id" if legacy else "user.id"] = event.user_id
    if event.session_id is not None:
        attributes["session.id"] = event.session_id
    if legacy:
        attributes["event.name"] = event.name
    return LogRecord(
        timestamp=event.time_ns,
        observed_timestamp=event.time_ns + 1_000_000,
        context=_context(event),
        severity_number=SeverityNumber.INFO,
        severity_text="INFO",
        attributes=attributes,
        event_name=None if legacy else event.name,
    )


def _context(event: ShopEvent) -> Any:
    span = SpanContext(event.trace_id, event.time_ns & 0xFFFFFFFFFFFFFFFF, is_remote=False, trace_flags=TraceFlags(1))
    return set_span_in_context(NonRecordingSpan(span))


def to_protobuf(records: Sequence[ReadableLogRecord]) -> bytes:
    """One ExportLogsServiceRequest, as marshaler `otlp_proto` writes it."""
    return encode_logs(records).SerializeToString(deterministic=True)


def to_json_lines(records: Sequence[ReadableLogRecord], a_line: int = RECORDS_A_LINE) -> bytes:
    """OTLP/JSON, `a_line` records a line."""
    batches = (records[at : at + a_line] for at in range(0, len(records), a_line))
    return b"".join(orjson.dumps(otlp_json(encode_logs(batch))) + b"\n" for batch in batches)


def otlp_json(request: ExportLogsServiceRequest) -> dict[str, Any]:
    """The request in OTLP's JSON: protobuf's mapping, but for enums as numbers and trace ids as hex."""
    document = MessageToDict(request, use_integers_for_enums=True)
    for resource_logs, resource_message in zip(document["resourceLogs"], request.resource_logs, strict=True):
        for scope_logs, scope_message in zip(resource_logs["scopeLogs"], resource_message.scope_logs, strict=True):
            for record, message in zip(scope_logs["logRecords"], scope_message.log_records, strict=True):
                if message.trace_id:
                    record["traceId"] = message.trace_id.hex()
                if message.span_id:
                    record["spanId"] = message.span_id.hex()
    return document


def _broken_json(shop: Shop) -> bytes:
    """What finds its way into such files: a line cut off, one that is no JSON, records that lack what they need."""
    nameless = {"timeUnixNano": "1357000000000000000", "attributes": []}
    timeless = {"eventName": "page_view", "attributes": []}
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": shop.service}}]}
    lacking = {"resourceLogs": [{"resource": resource, "scopeLogs": [{"logRecords": [nameless, timeless]}]}]}
    anonymous = {"resourceLogs": [{"scopeLogs": [{"logRecords": [{**nameless, "eventName": "page_view"}]}]}]}
    lines = (orjson.dumps(lacking), orjson.dumps(anonymous), b"panic: runtime error", b'{"resourceLogs":[{"resource":{')
    return b"\n".join(lines) + b"\n"
