"""A queue that S3's events come in for a sensor: messages in, which objects each names, and out again.

What belongs here: SQS and the three envelopes an S3 event comes in. What does not: which objects count (statistics),
the loader's stricter messages (loading/message.py), deciding what to start (the sensors).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote_plus

from data_platform.errors import PlatformError

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

BATCH = 10  # SQS gives and takes no more at once


class MessageError(PlatformError):
    """A message that names no object, or none that counts."""


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object that was put; `version_id` None where the bucket is not versioned."""

    bucket: str
    key: str
    version_id: str | None


@dataclass(frozen=True, slots=True)
class Message:
    """A message as received; `receives` counts how often anybody has received it."""

    id: str
    receipt_handle: str
    body: str
    receives: int


class Inbox:
    """The queue and its dead-letter queue."""

    def __init__(self, sqs: "SQSClient", queue: str, dlq: str) -> None:
        self._sqs = sqs
        self._url = sqs.get_queue_url(QueueName=queue)["QueueUrl"]
        self._dlq = dlq

    def receive(self, *, wait_s: int) -> list[Message]:
        """Up to ten messages; they come again after the queue's visibility time-out unless they are deleted."""
        answer = self._sqs.receive_message(
            QueueUrl=self._url,
            MaxNumberOfMessages=BATCH,
            WaitTimeSeconds=wait_s,
            MessageSystemAttributeNames=["ApproximateReceiveCount"],
        )
        return [
            Message(
                message.get("MessageId", ""),
                message.get("ReceiptHandle", ""),
                message.get("Body", ""),
                int(message.get("Attributes", {}).get("ApproximateReceiveCount", 1)),
            )
            for message in answer.get("Messages", [])
        ]

    def delete(self, messages: Sequence[Message]) -> None:
        """Acknowledge. A message that is not deleted comes again, which does no harm."""
        for start in range(0, len(messages), BATCH):
            entries: Any = [
                {"Id": str(number), "ReceiptHandle": message.receipt_handle}
                for number, message in enumerate(messages[start : start + BATCH])
            ]
            self._sqs.delete_message_batch(QueueUrl=self._url, Entries=entries)

    def dead_letter(self, message: Message, reason: str) -> None:
        """Put a message that will never lead to a run where a person finds it, with the reason; then delete it."""
        url = self._sqs.get_queue_url(QueueName=self._dlq)["QueueUrl"]
        self._sqs.send_message(
            QueueUrl=url,
            MessageBody=message.body,
            MessageAttributes={"reason": {"DataType": "String", "StringValue": reason[:1024]}},
        )
        self.delete([message])


def parse_message(body: str) -> list[StoredObject]:
    """The objects of one message; none for S3's test event. Raises MessageError saying what is wrong."""
    try:
        data = json.loads(body)
    except ValueError as error:
        raise MessageError(f"the message is no JSON: {error}") from None
    if not isinstance(data, dict):
        raise MessageError("the message is no JSON object")
    message = cast("dict[str, Any]", data)
    if message.get("Event") == "s3:TestEvent":
        return []
    if isinstance(message.get("Records"), list):
        return [_record(record) for record in message["Records"]]
    if isinstance(message.get("detail"), dict):
        detail = message["detail"]
        stored = _mapping(detail.get("object"))
        return [_object(_mapping(detail.get("bucket")).get("name"), stored.get("key"), stored.get("version-id"))]
    return [_object(message.get("bucket"), message.get("key"), message.get("version_id"))]


def _record(record: object) -> StoredObject:
    """One record of an S3 notification; its key is URL-encoded."""
    s3 = _mapping(_mapping(record).get("s3"))
    stored = _mapping(s3.get("object"))
    key = stored.get("key")
    return _object(
        _mapping(s3.get("bucket")).get("name"),
        unquote_plus(key) if isinstance(key, str) else key,
        stored.get("versionId"),
    )


def _object(bucket: object, key: object, version_id: object) -> StoredObject:
    if not isinstance(bucket, str) or not isinstance(key, str) or not bucket or not key:
        raise MessageError("the message names no bucket and key")
    return StoredObject(
        bucket, key, version_id if isinstance(version_id, str) and version_id not in {"", "null"} else None
    )


def _mapping(value: object) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}
