"""What the OpenTelemetry SDK emits comes out as it was emitted, from every form the Collector can store it in."""

import gzip
import io
import json
import struct
from datetime import UTC, datetime
from typing import Any

import orjson
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry._logs import LogRecord
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.resources import Resource
from opentelemetry.trace import NonRecordingSpan, SpanContext, set_span_in_context

from data_platform.catalog import load_catalog
from data_platform.catalog.types import curated_schema
from data_platform.curation.otlp import events_schema, json_lines, protobuf, read_events
from data_platform.local.sample.otel import otlp_json
from data_platform.settings import Settings

pytestmark = pytest.mark.unit

TIME = 1_357_000_000_123_456_789
KEY = "otel-logs/year=2013/month=01/day=01/hour=00/logs_a.json"
Emitted = dict[str, Any]


def request(emitted: list[Emitted], service: str = "theshop-brand") -> ExportLogsServiceRequest:
    """Emit through the SDK, encode with its own encoder."""
    exporter = InMemoryLogRecordExporter()
    provider = LoggerProvider(Resource({"service.name": service}), shutdown_on_exit=False)
    provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
    for record in emitted:
        trace = SpanContext(record.get("trace", 0), 1, is_remote=False)
        provider.get_logger("test").emit(
            LogRecord(
                timestamp=record.get("time", TIME),
                observed_timestamp=record.get("observed", TIME + 5),
                event_name=record.get("name", "page_view"),
                attributes=record.get("attributes", {}),
                context=set_span_in_context(NonRecordingSpan(trace)),
            )
        )
    return encode_logs(exporter.get_finished_logs())


def as_json(*requests: ExportLogsServiceRequest) -> bytes:
    return b"".join(orjson.dumps(otlp_json(each)) + b"\n" for each in requests)


def rows(body: bytes, key: str = KEY) -> list[dict[str, Any]]:
    """The events of an object without rejects; attributes as a dict, time in nanoseconds."""
    found: list[dict[str, Any]] = []
    for part in read_events(io.BytesIO(body), key):
        assert part.rejects == []
        part.batch.validate(full=True)
        times = part.batch.column("event_time").cast(pa.int64()).to_pylist()
        for row, time in zip(part.batch.drop_columns(["event_time"]).to_pylist(), times, strict=True):
            assert len(row["attributes"]) == len(dict(row["attributes"]))
            found.append({**row, "event_time": time, "attributes": dict(row["attributes"])})
    return found


def test_schema_is_the_catalogue_s_events() -> None:
    dataset = load_catalog(Settings().catalog).dataset("analytics/events")
    assert events_schema().equals(curated_schema(dataset))


def test_every_column_comes_from_where_the_conventions_put_it() -> None:
    attributes = {"user.id": "u1", "session.id": "s1", "log.record.uid": "r1", "product.id": "p9", "quantity": 2}
    body = request([{"name": "add_to_cart", "trace": 0xABC, "attributes": attributes}])
    expected = {
        "service_name": "theshop-brand",
        "event_time": TIME,
        "event_date": datetime.fromtimestamp(TIME // 10**9, UTC).date(),
        "event_name": "add_to_cart",
        "user_id": "u1",
        "session_id": "s1",
        "attributes": {**attributes, "quantity": "2"},
        "trace_id": f"{0xABC:032x}",
        "record_uid": "r1",
        "source_object": KEY,
        "source_position": 0,
    }
    assert rows(as_json(body)) == [expected]
    assert rows(body.SerializeToString()) == [expected]


def test_older_attributes_serve_where_the_newer_ones_are_missing_or_empty() -> None:
    emitted = [
        {"name": None, "attributes": {"event.name": "old", "enduser.id": "e1"}},
        {"name": "new", "attributes": {"event.name": "old", "enduser.id": "e1", "user.id": "u1"}},
        {"name": "new", "attributes": {"enduser.id": "e1", "user.id": "", "session.id": ""}},
        {"attributes": {}, "time": 0, "observed": TIME + 9},
    ]
    for body in (as_json(request(emitted)), request(emitted).SerializeToString()):
        found = rows(body)
        assert [row["event_name"] for row in found] == ["old", "new", "new", "page_view"]
        assert [row["user_id"] for row in found] == ["e1", "u1", "e1", None]
        assert [row["session_id"] for row in found] == [None] * 4
        assert found[3]["event_time"] == TIME + 9


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("", ""),
        ("ünï\x00 \U0001f600", "ünï\x00 \U0001f600"),
        (0, "0"),
        (-(2**63), str(-(2**63))),
        (2**63 - 1, str(2**63 - 1)),
        (True, "true"),
        (False, "false"),
        (0.1, "0.1"),
        (3.0, "3.0"),
        (1e300, "1e+300"),
        (float("nan"), "NaN"),
        (float("-inf"), "-Infinity"),
        (b"\x00\xff", "AP8="),
        (["a", 1, 2.5, None, b"x", float("inf")], '["a",1,2.5,null,"eA==","Infinity"]'),
        ({"a": {"b": [True, -1]}}, '{"a":{"b":[true,-1]}}'),
        ([], "[]"),
    ],
)
def test_values_have_one_text_whatever_the_form(value: object, text: str) -> None:
    body = request([{"attributes": {"v": value}}])
    assert rows(as_json(body))[0]["attributes"] == {"v": text}
    assert rows(body.SerializeToString())[0]["attributes"] == {"v": text}


scalars = st.one_of(
    st.text(max_size=12), st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(), st.binary(max_size=6)
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(min_size=1, max_size=4), inner, max_size=3),
    max_leaves=6,
)
names = st.sampled_from(["user.id", "session.id", "event.name", "log.record.uid", "enduser.id", "a", "b", "ключ"])
events = st.fixed_dictionaries(
    {
        "name": st.text(min_size=1, max_size=8),
        "time": st.integers(0, 2**63 - 1),
        "observed": st.integers(1, 2**63 - 1),
        "trace": st.integers(0, 2**128 - 1),
        "attributes": st.dictionaries(names | st.text(min_size=1, max_size=5), values, max_size=6),
    }
)


@settings(max_examples=80, deadline=None)
@given(st.lists(events, min_size=1, max_size=5), st.integers(1, 4))
def test_what_is_emitted_comes_out_the_same_from_json_and_protobuf(emitted: list[Emitted], batches: int) -> None:
    requests = [request(emitted[start::batches]) for start in range(min(batches, len(emitted)))]
    from_json = rows(as_json(*requests))
    # Requests one after the other are one request: that is how protobuf merges messages.
    assert from_json == rows(b"".join(each.SerializeToString() for each in requests))
    flat = [record for start in range(min(batches, len(emitted))) for record in emitted[start::batches]]
    for position, (row, record) in enumerate(zip(from_json, flat, strict=True)):
        assert row["source_position"] == position
        assert row["event_name"] == record["name"]
        assert row["event_time"] == (record["time"] or record["observed"])
        assert row["trace_id"] == (f"{record['trace']:032x}" if record["trace"] else None)
        assert row["attributes"].keys() == {key for key in record["attributes"] if key}
        for key, value in record["attributes"].items():
            if key and isinstance(value, str):
                assert row["attributes"][key] == value


def varint(number: int) -> bytes:
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def variants(requests: list[ExportLogsServiceRequest]) -> dict[str, bytes]:
    """The same records in every form that is read."""
    messages = [each.SerializeToString() for each in requests]
    lines = as_json(*requests)
    documents = [otlp_json(each) for each in requests]
    merged = {"resourceLogs": [item for document in documents for item in document["resourceLogs"]]}
    return {
        "lines": lines,
        "no last newline": lines.rstrip(b"\n"),
        "blank lines and CRLF": b"\n \r\n" + lines.replace(b"\n", b"\r\n\r\n"),
        "byte order mark": b"\xef\xbb\xbf" + lines,
        "one document": orjson.dumps(merged),
        "indented": json.dumps(merged, indent=2).encode(),
        "indented documents": b"\n".join(json.dumps(document, indent=4).encode() for document in documents),
        "request": b"".join(messages),
        "varint delimited": b"".join(varint(len(message)) + message for message in messages),
        "fixed32 delimited": b"".join(struct.pack(">I", len(message)) + message for message in messages),
    }


SOME = [request([{"attributes": {"user.id": f"u{n}", "n": n * m}} for n in range(40)]) for m in range(3)]


@pytest.mark.parametrize("form", variants(SOME))
def test_every_form_is_told_by_its_content(form: str) -> None:
    expected = rows(as_json(*SOME))
    assert len(expected) == 120
    body = variants(SOME)[form]
    assert rows(body) == expected
    assert rows(gzip.compress(body)) == expected
    members = gzip.compress(body[:1000]) + gzip.compress(b"") + gzip.compress(body[1000:]) + b"\x00" * 512
    assert rows(members) == expected


@pytest.mark.parametrize("form", ["one document", "indented", "request", "varint delimited"])
def test_parts_too_large_for_memory_are_taken_apart(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = rows(as_json(*SOME))
    body = variants(SOME)[form]
    monkeypatch.setattr(json_lines, "LINE_LIMIT", 100)
    monkeypatch.setattr(json_lines, "READ_BYTES", 37)
    monkeypatch.setattr(protobuf, "PARSE_LIMIT", 100)
    assert rows(body) == expected


def test_lines_after_a_line_too_large_for_memory_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_lines, "LINE_LIMIT", 100)
    expected = rows(as_json(*SOME))
    monkeypatch.setattr(json_lines, "READ_BYTES", 64)
    assert rows(as_json(*SOME)) == expected


def test_batches_have_about_the_rows_asked_for_and_positions_go_on() -> None:
    body = as_json(request([{} for _ in range(50)])) * 200
    parts = list(read_events(io.BytesIO(body), KEY, batch_rows=1000))
    assert len(parts) >= 2
    positions = [position for part in parts for position in part.batch.column("source_position").to_pylist()]
    assert positions == list(range(10_000))


def test_an_empty_object_has_no_events() -> None:
    for body in (b"", gzip.compress(b""), b"\n\n", b'{"resourceLogs":[]}', b'{"resourceLogs":[{"resource":{}}]}'):
        assert rows(body) == []


def test_of_a_key_that_a_record_has_twice_the_first_counts() -> None:
    message = request([{"attributes": {"user.id": "first"}}, {"attributes": {"other": "x"}}])
    doubled = message.resource_logs[0].scope_logs[0].log_records[0].attributes.add()
    doubled.key, doubled.value.string_value = "user.id", "second"
    for body in (as_json(message), message.SerializeToString()):
        found = rows(body)
        assert [row["user_id"] for row in found] == ["first", None]
        assert [row["attributes"] for row in found] == [{"user.id": "first"}, {"other": "x"}]


def test_more_different_keys_than_an_integer_has_bits() -> None:
    emitted = [{"attributes": {f"k{n}_{m}": str(n) for m in range(5)} | {"user.id": f"u{n}"}} for n in range(40)]
    for body in (as_json(request(emitted)), request(emitted).SerializeToString()):
        assert [row["attributes"] for row in rows(body)] == [record["attributes"] for record in emitted]


def test_times_before_the_epoch_cannot_be_said_and_the_last_nanosecond_can() -> None:
    found = rows(request([{"time": 2**63 - 1}]).SerializeToString())
    assert found[0]["event_time"] == 2**63 - 1
    assert found[0]["event_date"].isoformat() == "2262-04-11"
