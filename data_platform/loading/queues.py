"""The loader's calls to SQS for one domain: receive, delete, hide, depth, dead letter."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from data_platform.catalog.keys import dlq_name, queue_name
from data_platform.clients import aws
from data_platform.clients.retry import retrying
from data_platform.loading.deadletters import DeadLetter, send_letter
from data_platform.loading.metrics import Depth
from data_platform.settings import Settings

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

BATCH = 10  # entries of one call
_DEPTHS = (
    "ApproximateNumberOfMessages",
    "ApproximateNumberOfMessagesDelayed",
    "ApproximateNumberOfMessagesNotVisible",
)
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
        url = sqs.get_queue_url(QueueName=queue_name(settings.env, domain))["QueueUrl"]
        dead_url = sqs.get_queue_url(QueueName=dlq_name(settings.env, domain))["QueueUrl"]
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
            entries: Any = [
                {"Id": str(number), "ReceiptHandle": receipt, "VisibilityTimeout": seconds}
                for number, receipt in enumerate(receipts[start : start + BATCH])
            ]
            answer = self.sqs.change_message_visibility_batch(QueueUrl=self.url, Entries=entries)
            for refused in answer.get("Failed", []):
                log.debug("visibility was not changed: %s", refused.get("Message"))

    def bury(self, letter: DeadLetter) -> None:
        """Send a dead letter."""
        retrying(lambda: send_letter(self.sqs, self.dead_url, letter), aws.classify, base_s=0.1, cap_s=1.0)

    def depth(self) -> Depth:
        """Messages waiting (delayed ones too), in flight, dead."""
        own = self.sqs.get_queue_attributes(QueueUrl=self.url, AttributeNames=list(_DEPTHS))["Attributes"]
        dead = self.sqs.get_queue_attributes(QueueUrl=self.dead_url, AttributeNames=list(_DEPTHS))["Attributes"]
        waiting = int(own.get(_DEPTHS[0], 0)) + int(own.get(_DEPTHS[1], 0))
        return Depth(waiting, int(own.get(_DEPTHS[2], 0)), sum(int(dead.get(name, 0)) for name in _DEPTHS))
