"""Every form of a message that tells of an object, and everything that makes one E001 or E002."""

import json
from datetime import UTC, date, datetime
from typing import Any

import pytest

from data_platform.loading.errors import Code, LoadError
from data_platform.loading.message import parse_message

pytestmark = pytest.mark.unit

KEY = "market/flights/ds=2013-02-02/part 1+2.parquet"
SENT = datetime(2024, 5, 1, tzinfo=UTC)
TRANSFORMED: dict[str, Any] = {
    "bucket": "curated", "key": KEY, "file_size": 5000, "etag": "e1", "sequencer": "0A", "version_id": "v1",
    "correlation_id": "c1",
}  # fmt: skip
EVENT: dict[str, Any] = {
    "id": "c1", "source": "aws.s3", "detail-type": "Object Created", "time": "2024-05-01T00:00:00Z",
    "detail": {
        "bucket": {"name": "curated"},
        "object": {"key": KEY, "size": 5000, "etag": "e1", "sequencer": "0A", "version-id": "v1"},
    },
}  # fmt: skip
RECORD: dict[str, Any] = {
    "eventName": "ObjectCreated:Put", "eventTime": "2024-05-01T00:00:00Z",
    "responseElements": {"x-amz-request-id": "c1"},
    "s3": {
        "bucket": {"name": "curated"},
        "object": {
            "key": "market/flights/ds%3D2013-02-02/part+1%2B2.parquet", "size": 5000, "eTag": "e1",
            "sequencer": "0A", "versionId": "v1",
        },
    },
}  # fmt: skip


def changed(message: dict[str, Any], path: str, value: object = None) -> dict[str, Any]:
    """The message with the field at `path` (dots between names) set, or without it."""
    copy = json.loads(json.dumps(message))
    *parents, last = path.split(".")
    place = copy
    for name in parents:
        place = place[name]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return copy


@pytest.mark.parametrize("message", [TRANSFORMED, EVENT, {"Records": [RECORD]}], ids=["transformed", "event", "s3"])
def test_three_envelopes_tell_the_same(message: dict[str, Any]) -> None:
    (event,) = parse_message(json.dumps(message), sent_at=SENT)
    assert event.key.key == event.version.key == KEY
    assert (event.key.domain, event.key.table, event.key.ds) == ("market", "flights", date(2013, 2, 2))
    version = event.version
    assert (version.bucket, version.etag, version.version_id, version.sequencer, version.bytes) == (
        "curated", "e1", "v1", "0A", 5000,
    )  # fmt: skip
    assert version.event_at == SENT
    assert event.correlation_id == "c1"
    assert version.identity == f"s3://curated/{KEY}@v1"


def test_a_notification_tells_of_all_its_records() -> None:
    second = changed(RECORD, "s3.object.key", "market/flights/ds%3D2013-02-03/b.parquet")
    events = parse_message(json.dumps({"Records": [RECORD, second]}))
    assert [event.key.ds.day for event in events] == [2, 3]


def test_the_test_event_of_s3_tells_of_nothing() -> None:
    assert parse_message(json.dumps({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "curated"})) == []


def test_bucket_and_key_are_enough_and_an_id_is_made() -> None:
    body = json.dumps({"bucket": "curated", "key": KEY})
    one, two = parse_message(body, sent_at=SENT)[0], parse_message(body, sent_at=SENT)[0]
    assert (one.version.etag, one.version.sequencer, one.version.bytes, one.version.event_at) == ("", "", 0, SENT)
    assert one.correlation_id != two.correlation_id


def test_an_input_transformer_writes_what_is_absent_as_an_empty_string() -> None:
    empty = {name: "" for name in TRANSFORMED if name not in {"bucket", "key"}}
    (event,) = parse_message(json.dumps({**TRANSFORMED, **empty}))
    assert (event.version.version_id, event.version.sequencer, event.version.bytes) == (None, "", 0)


def test_an_event_needs_no_more_than_source_type_bucket_key_and_size() -> None:
    bare = {name: EVENT[name] for name in ("source", "detail-type")}
    bare["detail"] = {"bucket": {"name": "curated"}, "object": {"key": KEY, "size": 5000}}
    (event,) = parse_message(json.dumps(bare))
    assert event.version.bytes == 5000


def test_a_record_needs_no_response_elements() -> None:
    for record in (changed(RECORD, "responseElements"), changed(RECORD, "responseElements", "c1")):
        (event,) = parse_message(json.dumps({"Records": [record]}))
        assert event.correlation_id


def test_a_version_id_null_is_none() -> None:
    (event,) = parse_message(json.dumps({**TRANSFORMED, "version_id": "null"}))
    assert event.version.identity == f"s3://curated/{KEY}@e1"


def test_an_etag_in_quotes_is_the_etag() -> None:
    (event,) = parse_message(json.dumps({**TRANSFORMED, "etag": '"e1"'}))
    assert event.version.etag == "e1"


def test_derived_fields_that_agree_are_welcome() -> None:
    derived = {"domain": "market", "table_name": "flights", "partition": "ds=2013-02-02"}
    assert len(parse_message(json.dumps({**TRANSFORMED, **derived}))) == 1


BROKEN = {
    "no JSON": "{",
    "a list": "[]",
    "a number": "17",
    "null": "null",
    "nothing": "",
    "no bucket": changed(TRANSFORMED, "bucket"),
    "no key": changed(TRANSFORMED, "key"),
    "a key that is a number": changed(TRANSFORMED, "key", 17),
    "a size that is no number": changed(TRANSFORMED, "file_size", "many"),
    "a negative size": changed(TRANSFORMED, "file_size", -1),
    "another domain": {**TRANSFORMED, "domain": "customer"},
    "another table": {**TRANSFORMED, "table_name": "weather"},
    "another partition": {**TRANSFORMED, "partition": "ds=2013-02-03"},
    "no partition in the key": changed(TRANSFORMED, "key", "market/flights/a.parquet"),
    "an impossible day": changed(TRANSFORMED, "key", "market/flights/ds=2013-02-30/a.parquet"),
    "a deeper key": changed(TRANSFORMED, "key", "market/flights/ds=2013-02-02/x/a.parquet"),
    "an event of another source": changed(EVENT, "source", "aws.ec2"),
    "an event of a deletion": changed(EVENT, "detail-type", "Object Deleted"),
    "an event without detail": changed(EVENT, "detail"),
    "an event without object": changed(EVENT, "detail.object"),
    "an event without key": changed(EVENT, "detail.object.key"),
    "a detail that is text": changed(EVENT, "detail", "object"),
    "a record of a deletion": {"Records": [changed(RECORD, "eventName", "ObjectRemoved:Delete")]},
    "a record without s3": {"Records": [changed(RECORD, "s3")]},
    "a record that is text": {"Records": ["object"]},
    "a record with an object that is text": {"Records": [changed(RECORD, "s3.object", "object")]},
    "a record with a bucket that is text": {"Records": [changed(RECORD, "s3.bucket", "curated")]},
    "fields that are lists": changed(TRANSFORMED, "etag", ["e1"]),
    "fields that are objects": changed(TRANSFORMED, "bucket", {"name": "curated"}),
}


@pytest.mark.parametrize("message", BROKEN.values(), ids=BROKEN.keys())
def test_what_is_wrong_is_e001_and_says_so(message: object) -> None:
    with pytest.raises(LoadError) as caught:
        parse_message(message if isinstance(message, str) else json.dumps(message))
    assert caught.value.code is Code.EVENT_SCHEMA
    assert caught.value.message


@pytest.mark.parametrize("file", ["a.csv", "a.parquet.gz", "a", "_SUCCESS"])
def test_what_is_no_parquet_object_is_e002(file: str) -> None:
    with pytest.raises(LoadError) as caught:
        parse_message(json.dumps({**TRANSFORMED, "key": f"market/flights/ds=2013-02-02/{file}"}))
    assert caught.value.code is Code.FORMAT
