"""The loader's calls to SQS for one domain: receive, delete, hide, depth, dead letter."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from data_platform.catalog.keys import dlq_name, queue_name
from data_platform.clients import aws
from data_platform.clients.retry import retrying
from data_platform.loading.deadletters import DeadLetter, send_letter
from data_platform.loading.metrics import Depth
from data_platform.settings import Settings

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

T = TypeVar("T")
BATCH = 10  # entries of one call
_DEPTHS = (
    "ApproximateNumberOfMessages",
    "ApproximateNumberOfMessagesDelayed",
    "ApproximateNumberOfMessagesNotVisible",
)
_VOID = frozenset({"InvalidParameterValue", "ReceiptHandleIsInvalid"})
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DomainQueue:
    """A domain's queue and its dead-letter queue."""

    sqs: "SQSClient"
    url: str
    dead_url: str
    visibility_s: int

    @classmethod
    def open(cls, sqs: "SQSClient", settings: Settings, domain: str) -> "DomainQueue":
        """Look the queues up. Raises the client's error when one does not exist."""
        url = _url(sqs, settings, queue_name(settings.env, domain))
        dead_url = _url(sqs, settings, dlq_name(settings.env, domain))
        attributes = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["VisibilityTimeout"])["Attributes"]
        return cls(sqs, url, dead_url, int(attributes.get("VisibilityTimeout", "30")))

    def receive(self, limit: int, wait_s: int) -> Sequence[Any]:
        """Up to `limit` messages; waits `wait_s` seconds for the first."""
        answer = self.sqs.receive_message(
            QueueUrl=self.url,
            MaxNumberOfMessages=limit,
            WaitTimeSeconds=wait_s,
            AttributeNames=["SentTimestamp", "ApproximateReceiveCount"],
        )
        return answer.get("Messages", [])

    def delete(self, receipts: Sequence[str]) -> int:
        """Delete messages; returns how many could not be. Those come back, are recognised, and deleted then."""
        failed = 0
        for start in range(0, len(receipts), BATCH):
            entries: Any = [
                {"Id": str(number), "ReceiptHandle": receipt}
                for number, receipt in enumerate(receipts[start : start + BATCH])
            ]
            answer = retrying(
                lambda entries=entries: self.sqs.delete_message_batch(QueueUrl=self.url, Entries=entries),
                aws.classify,
                base_s=0.1,
                cap_s=1.0,
            )
            failed += len(answer.get("Failed", []))
        return failed

    def hide(self, receipts: Sequence[str], seconds: int) -> None:
        """Let messages come back `seconds` from now. A receipt that is void by now is no matter."""
        for start in range(0, len(receipts), BATCH):
            self._hide(receipts[start : start + BATCH], seconds)

    def _hide(self, receipts: Sequence[str], seconds: int) -> None:
        from botocore.exceptions import ClientError

        entries: Any = [
            {"Id": str(number), "ReceiptHandle": receipt, "VisibilityTimeout": seconds}
            for number, receipt in enumerate(receipts)
        ]
        try:
            answer = self.sqs.change_message_visibility_batch(QueueUrl=self.url, Entries=entries)
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") not in _VOID:
                raise
            # Some queues refuse the whole call for one message deleted meanwhile: the others must not suffer for it.
            for receipt in receipts if len(receipts) > 1 else ():
                self._hide([receipt], seconds)
            return
        for refused in answer.get("Failed", []):
            log.debug("visibility was not changed: %s", refused.get("Message"))

    def bury(self, letter: DeadLetter) -> None:
        """Send a dead letter."""
        retrying(lambda: send_letter(self.sqs, self.dead_url, letter), aws.classify, base_s=0.1, cap_s=1.0)

    def depth(self) -> Depth:
        """Messages waiting (delayed ones too), in flight, dead; 0 dead where the rights allow only to send there."""
        own = self.sqs.get_queue_attributes(QueueUrl=self.url, AttributeNames=list(_DEPTHS))["Attributes"]
        dead = _unless_denied(
            lambda: self.sqs.get_queue_attributes(QueueUrl=self.dead_url, AttributeNames=list(_DEPTHS))["Attributes"],
            {},
        )
        waiting = int(own.get(_DEPTHS[0], 0)) + int(own.get(_DEPTHS[1], 0))
        return Depth(waiting, int(own.get(_DEPTHS[2], 0)), sum(int(dead.get(name, 0)) for name in _DEPTHS))


def _url(sqs: "SQSClient", settings: Settings, name: str) -> str:
    """The queue's URL; put together where the rights do not include looking it up."""
    url = _unless_denied(lambda: sqs.get_queue_url(QueueName=name)["QueueUrl"], "")
    if url:
        return url
    account = aws.client(settings, "sts").get_caller_identity()["Account"]  # needs no right
    return f"{sqs.meta.endpoint_url.rstrip('/')}/{account}/{name}"


def _unless_denied(ask: Callable[[], T], otherwise: T) -> T:
    from botocore.exceptions import ClientError

    try:
        return ask()
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") in {"AccessDenied", "AccessDeniedException"}:
            return otherwise
        raise
