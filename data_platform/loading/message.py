"""SQS message body -> object events. Three envelopes: our transformed message, EventBridge's event, S3's notification.

Pure and strict: what is missing or contradicts the key is E001, a key that is no Parquet object is E002.
"""

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any
from urllib.parse import unquote_plus

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from data_platform.catalog.keys import SUFFIX, CuratedKey, KeyFormatError
from data_platform.loading.errors import Code, LoadError
from data_platform.loading.register import ObjectVersion


@dataclass(frozen=True)
class ObjectEvent:
    """One created object: where it goes, which version it is, and the id that follows it through the logs."""

    key: CuratedKey
    version: ObjectVersion
    correlation_id: str


class _Transformed(BaseModel):
    """What the rule's input transformer sends, and what a message with derived fields may add."""

    model_config = ConfigDict(extra="ignore", coerce_numbers_to_str=False)

    bucket: Annotated[str, Field(min_length=3)]
    key: Annotated[str, Field(min_length=1)]
    file_size: Annotated[int, Field(ge=0)] | None = None
    etag: str | None = None
    sequencer: str | None = None
    version_id: str | None = None
    correlation_id: str | None = None
    domain: str | None = None
    table_name: str | None = None
    partition: str | None = None
    event_time: datetime | None = None


def parse_message(body: str, *, sent_at: datetime | None = None) -> list[ObjectEvent]:
    """The object events of one message; none for S3's test event. Raises LoadError E001 or E002 saying what is wrong.

    `sent_at` stands in for the event's time where the envelope has none.
    """
    try:
        data = json.loads(body)
    except ValueError as error:
        raise LoadError(Code.EVENT_SCHEMA, f"the message is no JSON: {error}") from None
    if not isinstance(data, dict):
        raise LoadError(Code.EVENT_SCHEMA, f"the message is a JSON {type(data).__name__}, not an object")
    when = sent_at or datetime.now(UTC)
    if data.get("Event") == "s3:TestEvent":
        return []
    if isinstance(data.get("Records"), list):
        return [_event(_from_record(record), when) for record in data["Records"]]
    if "detail" in data or "detail-type" in data:
        return [_event(_from_eventbridge(data), when)]
    return [_event(data, when)]


def _from_eventbridge(data: Mapping[str, Any]) -> dict[str, Any]:
    if data.get("source") != "aws.s3" or data.get("detail-type") != "Object Created":
        raise LoadError(
            Code.EVENT_SCHEMA,
            f"an event of {data.get('source')!r} / {data.get('detail-type')!r}, not of aws.s3 / Object Created",
        )
    detail = data.get("detail")
    stored = detail.get("object") if isinstance(detail, dict) else None
    bucket = detail.get("bucket") if isinstance(detail, dict) else None
    if not isinstance(stored, dict) or not isinstance(bucket, dict):
        raise LoadError(Code.EVENT_SCHEMA, "the event's detail lacks bucket or object")
    return {
        "bucket": bucket.get("name"),
        "key": stored.get("key"),
        "file_size": stored.get("size"),
        # moto spells it eTag
        "etag": stored.get("etag", stored.get("eTag")),
        "sequencer": stored.get("sequencer"),
        "version_id": stored.get("version-id"),
        "correlation_id": data.get("id"),
        "event_time": data.get("time"),
    }


def _from_record(record: object) -> dict[str, Any]:
    """One record of an S3 notification; its key is URL-encoded, spaces as plus signs."""
    s3 = record.get("s3") if isinstance(record, dict) else None
    if not isinstance(record, dict) or not isinstance(s3, dict):
        raise LoadError(Code.EVENT_SCHEMA, "a record of the notification has no s3 part")
    if not str(record.get("eventName", "")).startswith("ObjectCreated:"):
        raise LoadError(Code.EVENT_SCHEMA, f"a notification of {record.get('eventName')!r}, not of ObjectCreated:*")
    stored, bucket = s3.get("object"), s3.get("bucket")
    if not isinstance(stored, dict) or not isinstance(bucket, dict):
        raise LoadError(Code.EVENT_SCHEMA, "a record of the notification lacks bucket or object")
    key = stored.get("key")
    answered = record.get("responseElements")
    return {
        "bucket": bucket.get("name"),
        "key": unquote_plus(key) if isinstance(key, str) else key,
        "file_size": stored.get("size"),
        "etag": stored.get("eTag"),
        "sequencer": stored.get("sequencer"),
        "version_id": stored.get("versionId"),
        "correlation_id": answered.get("x-amz-request-id") if isinstance(answered, dict) else None,
        "event_time": record.get("eventTime"),
    }


def _event(fields: Mapping[str, Any], when: datetime) -> ObjectEvent:
    # An input transformer writes an absent path as an empty string.
    present = {name: value for name, value in fields.items() if value is not None and value != ""}
    try:
        message = _Transformed.model_validate(present)
    except ValidationError as error:
        reasons = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise LoadError(Code.EVENT_SCHEMA, f"the message does not fit: {reasons}") from None
    if not message.key.endswith(SUFFIX):
        raise LoadError(Code.FORMAT, f"{message.key!r} is no {SUFFIX} object")
    try:
        key = CuratedKey.parse(message.key)
    except KeyFormatError as error:
        raise LoadError(Code.EVENT_SCHEMA, error.message) from None
    _check_derived(message, key)
    version = ObjectVersion(
        message.bucket,
        message.key,
        (message.etag or "").strip('"'),
        message.version_id,
        message.sequencer or "",
        message.file_size or 0,
        message.event_time or when,
    )
    return ObjectEvent(key, version, message.correlation_id or str(uuid.uuid4()))


def _check_derived(message: _Transformed, key: CuratedKey) -> None:
    for name, given, derived in (
        ("domain", message.domain, key.domain),
        ("table_name", message.table_name, key.table),
        ("partition", message.partition, key.partition),
    ):
        if given is not None and given != derived:
            raise LoadError(Code.EVENT_SCHEMA, f"{name} is {given!r}, the key {message.key!r} says {derived!r}")
