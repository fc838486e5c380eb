"""What cannot be an event is kept with its reason, place and text; what stands around it is not lost with it."""

import gzip
import io
import zlib
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.logs.v1.logs_pb2 import LogsData

from data_platform.curation.otlp import Reason, Reject, json_lines, read_events
from data_platform.curation.otlp.model import RAW_LIMIT

pytestmark = pytest.mark.unit

KEY = "otel-logs/x"
TIME = "1357000000000000000"
GOOD: dict[str, Any] = {"timeUnixNano": TIME, "eventName": "ok", "attributes": []}
RESOURCE = {"attributes": [{"key": "service.name", "value": {"stringValue": "shop"}}]}


def document(*records: object, resource: object = RESOURCE) -> dict[str, Any]:
    return {"resourceLogs": [{"resource": resource, "scopeLogs": [{"logRecords": list(records)}]}]}


def line(*records: object, resource: object = RESOURCE) -> bytes:
    return orjson.dumps(document(*records, resource=resource)) + b"\n"


def read(body: bytes) -> tuple[list[int], list[Reject]]:
    """Positions of the events, and the rejects."""
    positions: list[int] = []
    rejects: list[Reject] = []
    for part in read_events(io.BytesIO(body), KEY):
        part.batch.validate(full=True)
        positions += part.batch.column("source_position").to_pylist()
        rejects += part.rejects
    return positions, rejects


def attribute(key: object = "a", **value: object) -> dict[str, Any]:
    return {**GOOD, "attributes": [{"key": key, "value": value}]}


BAD_RECORDS: list[tuple[object, Reason]] = [
    ({**GOOD, "eventName": ""}, Reason.MISSING_NAME),
    ({"timeUnixNano": TIME}, Reason.MISSING_NAME),
    ({**GOOD, "timeUnixNano": "0"}, Reason.MISSING_TIME),
    ({"eventName": "x"}, Reason.MISSING_TIME),
    ({**GOOD, "timeUnixNano": str(2**63)}, Reason.TIME_OUT_OF_RANGE),
    ({**GOOD, "timeUnixNano": "9" * 5000}, Reason.TIME_OUT_OF_RANGE),
    ({**GOOD, "timeUnixNano": "0x1F"}, Reason.WRONG_TYPE),
    ({**GOOD, "timeUnixNano": "-1"}, Reason.WRONG_TYPE),
    ({**GOOD, "timeUnixNano": -1}, Reason.WRONG_TYPE),
    ({**GOOD, "timeUnixNano": 1.5}, Reason.WRONG_TYPE),
    ({**GOOD, "timeUnixNano": True}, Reason.WRONG_TYPE),
    ({**GOOD, "timeUnixNano": "2013-01-01T00:00:00Z"}, Reason.WRONG_TYPE),
    ({**GOOD, "timeUnixNano": "١٢٣"}, Reason.WRONG_TYPE),
    ({**GOOD, "eventName": 5}, Reason.WRONG_TYPE),
    ({**GOOD, "eventName": ["x"]}, Reason.WRONG_TYPE),
    ({**GOOD, "traceId": "abc"}, Reason.WRONG_TYPE),
    ({**GOOD, "traceId": "g" * 32}, Reason.WRONG_TYPE),
    ({**GOOD, "traceId": "0 " * 16}, Reason.WRONG_TYPE),
    ({**GOOD, "traceId": 7}, Reason.WRONG_TYPE),
    ({**GOOD, "attributes": {}}, Reason.WRONG_TYPE),
    ({**GOOD, "attributes": "x"}, Reason.WRONG_TYPE),
    ({**GOOD, "attributes": [1]}, Reason.WRONG_TYPE),
    ({**GOOD, "attributes": [{"key": 1, "value": {}}]}, Reason.WRONG_TYPE),
    ({**GOOD, "attributes": [{"key": "a", "value": "x"}]}, Reason.WRONG_TYPE),
    (attribute(stringValue=1), Reason.WRONG_TYPE),
    (attribute(intValue="1.5"), Reason.WRONG_TYPE),
    (attribute(intValue=str(2**63)), Reason.WRONG_TYPE),
    (attribute(intValue="0x10"), Reason.WRONG_TYPE),
    (attribute(intValue="1_000"), Reason.WRONG_TYPE),
    (attribute(intValue=" 1"), Reason.WRONG_TYPE),
    (attribute(boolValue="true"), Reason.WRONG_TYPE),
    (attribute(doubleValue="much"), Reason.WRONG_TYPE),
    (attribute(bytesValue="***"), Reason.WRONG_TYPE),
    (attribute(arrayValue=[1]), Reason.WRONG_TYPE),
    (attribute(kvlistValue={"values": [{"key": 1}]}), Reason.WRONG_TYPE),
    (7, Reason.WRONG_TYPE),
    (None, Reason.WRONG_TYPE),
    ("text", Reason.WRONG_TYPE),
    ([GOOD], Reason.WRONG_TYPE),
]


@pytest.mark.parametrize(("record", "reason"), BAD_RECORDS)
def test_a_bad_record_is_rejected_alone_with_its_place(record: object, reason: Reason) -> None:
    body = line(GOOD) + b"\n" + line(GOOD, record, GOOD) + line(GOOD)
    positions, rejects = read(body)
    assert positions == [0, 1, 3, 4]
    (reject,) = rejects
    assert (reject.reason, reject.position, reject.line, reject.object_key) == (reason, 2, 3, KEY)
    assert reject.raw == orjson.dumps(record).decode()[:RAW_LIMIT]
    assert reject.detail


def test_many_bad_records_among_many_good_ones_each_keep_their_place() -> None:
    records: list[object] = [GOOD for _ in range(2000)]
    bad = {7 + 41 * n: BAD_RECORDS[n] for n in range(len(BAD_RECORDS))}
    for position, (record, _) in bad.items():
        records[position] = record
    body = b"".join(line(*records[start : start + 3]) for start in range(0, len(records), 3))
    positions, rejects = read(body)
    assert positions == [position for position in range(2000) if position not in bad]
    assert {reject.position: reject.reason for reject in rejects} == {at: reason for at, (_, reason) in bad.items()}
    assert all(reject.line == (reject.position or 0) // 3 + 1 for reject in rejects)


@pytest.mark.parametrize("number", ["5", 5])
def test_what_protobuf_s_json_allows_is_no_mistake(number: object) -> None:
    lenient = {
        "timeUnixNano": int(TIME),
        "eventName": "ok",
        "traceId": "AB" * 16,
        "attributes": [
            {"key": "n", "value": {"intValue": number}},
            {"key": "leading", "value": {"intValue": "-007"}},
            {"key": "d", "value": {"doubleValue": 1}},
            {"key": "e", "value": {"doubleValue": "1e2"}},
            {"key": "b", "value": {"bytesValue": "-_8"}},
            {"key": "none", "value": None},
            {"key": "nothing"},
        ],
        "fieldOfTheFuture": [1],
    }
    part = next(iter(read_events(io.BytesIO(line(lenient, {**GOOD, "attributes": None})), KEY)))
    assert part.rejects == []
    row = part.batch.to_pylist()[0]
    assert row["trace_id"] == "ab" * 16
    assert dict(row["attributes"]) == {
        "n": "5",
        "leading": "-7",
        "d": "1.0",
        "e": "100.0",
        "b": "+/8=",
        "none": "",
        "nothing": "",
    }


@pytest.mark.parametrize(
    "resource", [None, {}, {"attributes": []}, {"attributes": [{"key": "service.name", "value": {}}]}]
)
def test_records_of_a_resource_without_a_service_are_each_rejected(resource: object) -> None:
    positions, rejects = read(line(GOOD, GOOD, resource=resource) + line(GOOD))
    assert positions == [2]
    assert [(reject.reason, reject.position) for reject in rejects] == [
        (Reason.MISSING_SERVICE, 0),
        (Reason.MISSING_SERVICE, 1),
    ]


BAD_LINES: list[tuple[bytes, Reason]] = [
    (b"panic: runtime error", Reason.INVALID_JSON),
    (line(GOOD)[:-10], Reason.INVALID_JSON),
    (line(GOOD).strip() + line(GOOD).strip(), Reason.INVALID_JSON),
    (b'{"resourceLogs":[]} trailing', Reason.INVALID_JSON),
    (b'{"resourceLogs":[{"x":"\xff"}]}', Reason.INVALID_JSON),
    (b'{"resourceLogs":[{"x":"\\ud800"}]}', Reason.INVALID_JSON),
    (b'{"resourceLogs":' + b"[" * 5000, Reason.INVALID_JSON),
    (b"null", Reason.NOT_LOGS),
    (b"[1]", Reason.NOT_LOGS),
    (b'{"resourceSpans":[]}', Reason.NOT_LOGS),
    (b'{"resource_logs":[]}', Reason.NOT_LOGS),
    (b'{"resourceLogs":{}}', Reason.WRONG_TYPE),
    (b'{"resourceLogs":null,"x":1}', Reason.WRONG_TYPE),
    (b'{"resourceLogs":[7]}', Reason.WRONG_TYPE),
    (b'{"resourceLogs":[{"scope_logs":[]}]}', Reason.WRONG_TYPE),
    (b'{"resourceLogs":[{"scopeLogs":[{"logRecords":"x"}]}]}', Reason.WRONG_TYPE),
]


@pytest.mark.parametrize(("bad", "reason"), BAD_LINES)
def test_a_bad_line_is_rejected_alone_with_its_number(bad: bytes, reason: Reason) -> None:
    positions, rejects = read(line(GOOD) + bad + b"\n" + line(GOOD))
    assert positions == [0, 1]
    assert [(reject.reason, reject.line) for reject in rejects] == [(reason, 2)]
    assert rejects[0].raw
    assert len(rejects[0].raw) <= RAW_LIMIT


def message(count: int = 3) -> bytes:
    logs = LogsData()
    for _ in range(2):
        resource = logs.resource_logs.add()
        service = resource.resource.attributes.add()
        service.key, service.value.string_value = "service.name", "shop"
        scope = resource.scope_logs.add()
        for _ in range(count):
            scope.log_records.add(time_unix_nano=int(TIME), event_name="good-event")
    return logs.SerializeToString()


def test_a_protobuf_message_cut_anywhere_keeps_the_records_before_the_cut() -> None:
    whole = message()
    for cut in range(4, len(whole)):  # before that it is a line of text
        positions, rejects = read(whole[:cut])
        complete = whole[:cut].count(b"good-event")
        assert len(positions) >= complete - 1
        assert positions == list(range(len(positions)))
        assert rejects or len(positions) == 3  # a cut between the two resources is a shorter object
        assert all(reject.offset is not None or reject.position is not None for reject in rejects)


def test_one_record_with_invalid_text_costs_no_other_of_its_message() -> None:
    body = message().replace(b"good-event", b"\xff\xfe\xfd\xfc\xfb\xff\xff\xff\xff\xff", 1)
    positions, rejects = read(body)
    assert len(positions) == 5
    assert [reject.reason for reject in rejects] == [Reason.INVALID_PROTOBUF]


def test_bad_fields_of_protobuf_records_are_rejected_with_their_place() -> None:
    logs = LogsData.FromString(message(4))
    records = logs.resource_logs[0].scope_logs[0].log_records
    records[0].trace_id = b"short"
    records[1].time_unix_nano = 2**63
    records[2].event_name = ""
    positions, rejects = read(logs.SerializeToString())
    assert positions == [3, 4, 5, 6, 7]
    assert {reject.position: reject.reason for reject in rejects} == {
        0: Reason.WRONG_TYPE,
        1: Reason.TIME_OUT_OF_RANGE,
        2: Reason.MISSING_NAME,
    }


def test_damage_to_gzip_keeps_what_was_read_and_says_what_it_was() -> None:
    body = b"".join(line(GOOD, {**GOOD, "eventName": f"event-{n}"}) for n in range(5000))
    packed = gzip.compress(body, 1)
    positions, rejects = read(packed[: len(packed) // 2])
    assert 2000 < len(positions) < 8000
    assert {Reason.TRUNCATED} <= {reject.reason for reject in rejects} <= {Reason.TRUNCATED, Reason.INVALID_JSON}
    positions, rejects = read(packed[:-8] + b"\0" * 8)
    assert len(positions) == 10_000
    assert [reject.reason for reject in rejects] == [Reason.DAMAGED_GZIP]
    positions, rejects = read(packed + b"garbage")
    assert len(positions) == 10_000
    assert [(reject.reason, reject.raw, reject.offset) for reject in rejects] == [
        (Reason.TRAILING_GARBAGE, "garbage", len(body))
    ]


def test_an_object_that_is_neither_json_nor_protobuf_is_one_reject() -> None:
    for body in (b"PAR1\x15\x04\x15\x10", b"\x00\x01\x02\x03", b"\x28\xb5\x2f\xfd\x00", zlib.compress(line(GOOD))):
        positions, rejects = read(body)
        assert positions == []
        assert len(rejects) == 1
        assert rejects[0].reason in {Reason.UNKNOWN_FORMAT, Reason.INVALID_PROTOBUF}


def test_a_large_document_with_a_broken_middle_keeps_its_other_records(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_lines, "LINE_LIMIT", 64)
    monkeypatch.setattr(json_lines, "READ_BYTES", 50)
    broken = line(GOOD, GOOD, GOOD).replace(b'"eventName":"ok"', b'"eventName":"ok"}', 2).replace(b"ok", b"ko", 1)
    positions, rejects = read(broken + line(GOOD))
    assert len(positions) >= 1
    assert Reason.INVALID_JSON in {reject.reason for reject in rejects}
    assert {reject.line for reject in rejects} == {1}


corpus = st.one_of(
    st.binary(max_size=200),
    st.sampled_from([bad for bad, _ in BAD_LINES]),
    st.just(line(GOOD)),
    st.just(message()),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(corpus, max_size=4), st.booleans(), st.data())
def test_no_bytes_make_it_raise(parts: list[bytes], zipped: bool, data: st.DataObject) -> None:
    body = bytearray(b"\n".join(parts))
    if zipped:
        body = bytearray(gzip.compress(bytes(body)))
    for _ in range(data.draw(st.integers(0, 3))):
        if body:
            body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    read(bytes(body))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False) | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["key", "value", "stringValue", "intValue", "arrayValue", "values", "x"]), inner, max_size=3
        )
    ),
    max_leaves=8,
)
fields = st.sampled_from(["timeUnixNano", "observedTimeUnixNano", "eventName", "traceId", "attributes"])
records = st.lists(st.dictionaries(fields, json_values, max_size=4).map(lambda found: {**GOOD, **found}), max_size=4)


@settings(max_examples=150, deadline=None)
@given(records)
def test_every_record_is_either_an_event_or_a_reject(found: list[dict[str, Any]]) -> None:
    positions, rejects = read(line(*found, GOOD))
    places = sorted([*positions, *(reject.position for reject in rejects if reject.position is not None)])
    assert places == list(range(len(found) + 1))
    assert len(rejects) == len(found) + 1 - len(positions)


def test_a_line_that_is_wrong_where_no_event_looks_keeps_its_records_and_the_places_of_those_behind_it() -> None:
    odd = line(GOOD).replace(b'"eventName"', b'"body":{"doubleValue":1e400},"eventName"')
    with pytest.raises(orjson.JSONDecodeError):
        orjson.loads(odd)
    positions, (reject,) = read(odd + line({**GOOD, "eventName": ""}))
    assert positions == [0]
    assert (reject.reason, reject.position, reject.line) == (Reason.MISSING_NAME, 1, 2)
    assert orjson.loads(reject.raw) == {**GOOD, "eventName": ""}
