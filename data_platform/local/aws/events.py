"""EventBridge as the platform needs it: S3's events, delivery to SQS. Here are all patches of `moto.events`.

Rules, patterns and their matching are moto's; what a target receives is decided in transform.py, whether it may in
queue_policy.py.
"""

import copy
import logging
import queue
import threading
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.events.models import Rule, events_backends
from moto.s3 import notifications
from moto.s3.models import FakeDeleteMarker, S3Backend
from moto.sqs.exceptions import QueueDoesNotExist
from moto.sqs.models import sqs_backends

from data_platform.local.aws import queue_policy
from data_platform.local.aws.journal import current
from data_platform.local.aws.transform import target_input
from data_platform.local.faults import FaultBoard

logger = logging.getLogger(__name__)

REASONS = {
    "s3:ObjectCreated:Put": "PutObject",
    "s3:ObjectCreated:Post": "POST Object",
    "s3:ObjectCreated:Copy": "CopyObject",
    "s3:ObjectCreated:CompleteMultipartUpload": "CompleteMultipartUpload",
    "s3:ObjectRemoved:Delete": "DeleteObject",
    "s3:ObjectRemoved:DeleteMarkerCreated": "DeleteObject",
}
DELETIONS = {
    "s3:ObjectRemoved:Delete": "Permanently Deleted",
    "s3:ObjectRemoved:DeleteMarkerCreated": "Delete Marker Created",
}


def object_event(event_name: str, detail_type: str, bucket: Any, key: Any) -> dict[str, Any]:
    """The EventBridge event of one change of an object, with AWS's field names and spellings."""
    described: dict[str, Any] = {"key": key.name, "sequencer": key.sequencer}
    if not isinstance(key, FakeDeleteMarker):
        described |= {"size": key.size, "etag": key.etag.strip('"')}
    if key.version_id != "null":  # objects of a bucket without versions have no such field
        described["version-id"] = key.version_id
    detail: dict[str, Any] = {
        "version": "0",
        "bucket": {"name": bucket.name},
        "object": described,
        "request-id": uuid.uuid4().hex[:16].upper(),
        "requester": DEFAULT_ACCOUNT_ID,
        "source-ip-address": "127.0.0.1",
    }
    if event_name in REASONS:
        detail["reason"] = REASONS[event_name]
    if event_name in DELETIONS:
        detail["deletion-type"] = DELETIONS[event_name]
    return {
        "version": "0",
        "id": str(uuid.uuid4()),
        "detail-type": detail_type,
        "source": "aws.s3",
        "account": DEFAULT_ACCOUNT_ID,
        "time": _iso_now(),
        "region": bucket.region_name,
        "resources": [bucket.arn],
        "detail": detail,
    }


class EventThread:
    """Matches and delivers S3's events one after the other, so that a put does not wait for it and the order holds."""

    def __init__(self) -> None:
        self._events: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        threading.Thread(target=self._run, name="aws-events", daemon=True).start()

    def publish(self, event: dict[str, Any]) -> None:
        """Queue one event for every rule of the default bus of its region."""
        self._events.put(event)

    def _run(self) -> None:
        while True:
            event = self._events.get()
            # The services' own events reach the default bus only.
            bus = events_backends[event["account"]][event["region"]].event_buses["default"]
            for rule in list(bus.rules.values()):
                try:
                    rule.send_to_targets(event)  # pyright: ignore[reportArgumentType]
                except Exception:  # one rule's odd pattern must not end the events of all
                    logger.exception("rule %s failed on %s", rule.name, event["id"])


def _iso_now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _send_to_sqs(rule: Rule, target: dict[str, Any], event: dict[str, Any]) -> None:
    _, _, _, region, account, name = str(target["Arn"]).split(":", 5)
    backend = sqs_backends[account][region]
    try:
        receiver = backend.get_queue(name)
        if not queue_policy.permits(
            receiver.policy, queue_arn=receiver.queue_arn, rule_arn=rule.arn, account=rule.account_id
        ):
            logger.warning("queue %s has no policy that lets rule %s send to it: event dropped", name, rule.name)
            return
        text = target_input(target, event, rule_name=rule.name, rule_arn=rule.arn, ingested=_iso_now())
        group = (target.get("SqsParameters") or {}).get("MessageGroupId")
        backend.send_message(queue_name=name, message_body=text, group_id=group)
    except QueueDoesNotExist:
        logger.warning("rule %s: its target queue %s does not exist: event dropped", rule.name, name)
    except ValueError as error:
        logger.warning("rule %s: its input template gives no JSON (%s): event dropped", rule.name, error)


def _deliver(board: FaultBoard, to_others: Callable[..., None]) -> Callable[..., None]:
    """`Rule.send_to_targets` for SQS targets; `to_others` is moto's, for the rest."""

    def send_to_targets(self: Rule, original_event: dict[str, Any], transform_input: bool = True) -> None:
        # moto delivers from DISABLED rules, and gives every event to rules that only have a schedule.
        if self.state == "DISABLED" or not self.event_pattern.get_pattern():
            return
        event = {name: value for name, value in original_event.items() if name != "ingestion-time"}
        if not isinstance(event["time"], str):
            event["time"] = datetime.fromtimestamp(float(event["time"]), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        if not self.event_pattern.matches_event(event):  # pyright: ignore[reportArgumentType]
            return
        facts = _fault_facts(self, event)
        if board.strike("events.drop", **facts):
            return
        again = board.strike("events.duplicate", **facts)
        copies = 1 if again is None else 1 + int(again.args.get("copies", 1))
        for target in list(self.targets):
            if str(target["Arn"]).split(":")[2] == "sqs":
                for _ in range(copies):
                    _send_to_sqs(self, target, event)
                continue
            alone = copy.copy(self)
            alone.targets = [target]
            try:
                to_others(alone, original_event, transform_input)
            except Exception:  # a target's failure is never the sender's in AWS
                logger.exception("rule %s: target %s failed", self.name, target["Arn"])

    return send_to_targets


def _fault_facts(rule: Rule, event: dict[str, Any]) -> dict[str, str]:
    detail = event["detail"] if isinstance(event["detail"], dict) else {}
    return {
        "rule": rule.name,
        "source": str(event["source"]),
        "detail_type": str(event["detail-type"]),
        "bucket": str(detail.get("bucket", {}).get("name", "")) if event["source"] == "aws.s3" else "",
        "key": str(detail.get("object", {}).get("key", "")) if event["source"] == "aws.s3" else "",
    }


def _note_event(_account_id: str, bucket: Any, event_name: str, key: Any) -> None:
    """Instead of moto's sender: into the journal, to be sent once the change is durable."""
    journal = current()
    if journal is None:
        return
    name = getattr(event_name, "value", event_name)
    detail_type = notifications._detail_type(event_name)  # pyright: ignore[reportPrivateUsage]
    journal.events.append(object_event(name, detail_type, bucket, key))


def _one_event_per_request(original: Callable[..., None]) -> Callable[..., None]:
    """moto announces the steps of its own implementation; AWS announces what the caller asked for."""

    def send_event(account_id: str, event_name: Any, bucket: Any, key: Any) -> None:
        journal = current()
        if journal is not None:
            action, name = journal.facts.action, getattr(event_name, "value", event_name)
            if action == "CompleteMultipartUpload" and not name.endswith(":CompleteMultipartUpload"):
                return
            if name.startswith("s3:ObjectTagging") and not action.endswith("Tagging"):
                return
        original(account_id, event_name, bucket, key)

    return send_event


def _announce_marker(original: Callable[..., Any]) -> Callable[..., Any]:
    def _set_delete_marker(self: S3Backend, bucket_name: str, key_name: str) -> Any:
        marker = original(self, bucket_name, key_name)
        event = notifications.S3NotificationEvent.OBJECT_REMOVED_DELETE_MARKER_CREATED_EVENT
        bucket = self.get_bucket(bucket_name)
        if bucket.notification_configuration and bucket.notification_configuration.event_bridge is not None:
            _note_event(self.account_id, bucket, event, marker)
        return marker

    return _set_delete_marker


def install(board: FaultBoard) -> None:
    """Patch moto's events; once per process."""
    # moto delivers from disabled rules, gives schedule-only rules every event, fails the sender when a queue is gone,
    # and does not apply the InputTransformer to S3's events.
    Rule.send_to_targets = _deliver(board, Rule.send_to_targets)
    # moto's S3 events have a constant id and sequencer, `eTag` for `etag`, a version id "null".
    notifications._send_event_bridge_message = _note_event  # pyright: ignore[reportPrivateUsage]
    # Two Object Created events for one multipart completion, tag events for puts without tags.
    notifications.send_event = _one_event_per_request(notifications.send_event)
    # No event at all when a delete marker is made.
    S3Backend._set_delete_marker = _announce_marker(S3Backend._set_delete_marker)  # pyright: ignore[reportPrivateUsage]
