"""Dead letters: what one holds, and listing, replaying and dropping those of a domain.

SQS shows a queue's messages only by receiving them: a listing holds them for as long as it reads and lets go at its
end, and a letter two listings see at once may be missing from one of them.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from data_platform.catalog.keys import dlq_name, queue_name
from data_platform.errors import PlatformError
from data_platform.loading.errors import CODES, Code
from data_platform.settings import Settings

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

HOLD_S = 60  # a listing of thousands is done by then
EMPTY_RECEIVES = 2  # short polls ask a part of SQS's servers


@dataclass(frozen=True)
class DeadLetter:
    """A message that was given up: why, after how many attempts, between when and when, and the message itself."""

    code: str
    reason: str
    attempts: int
    first_at: str
    last_at: str
    key: str
    correlation_id: str
    message: str

    @property
    def body(self) -> str:
        """As it stands in the queue."""
        return json.dumps(asdict(self), ensure_ascii=False)

    @property
    def next_step(self) -> str:
        """What a person does about it."""
        return CODES[Code(self.code) if self.code in set(Code) else Code.EVENT_SCHEMA].next_step


@dataclass(frozen=True)
class Held:
    """A dead letter in its queue: SQS's id, and the receipt that deletes it while the listing holds it."""

    domain: str
    id: str
    receipt: str
    letter: DeadLetter


def parse_letter(body: str, sent_at: datetime) -> DeadLetter:
    """The letter of a message; one that SQS itself moved there (the net below our own counting) has no code."""
    try:
        data: Any = json.loads(body)
        return DeadLetter(**data)
    except (ValueError, TypeError):
        when = sent_at.isoformat()
        return DeadLetter("", "received too often: SQS gave it up", 0, when, when, "", "", body)


def send_letter(sqs: "SQSClient", url: str, letter: DeadLetter) -> None:
    """Put a letter into a dead-letter queue; its code is a message attribute, too."""
    sqs.send_message(
        QueueUrl=url,
        MessageBody=letter.body,
        MessageAttributes={"code": {"DataType": "String", "StringValue": letter.code or "none"}},
    )


def receive_letters(sqs: "SQSClient", settings: Settings, domains: Sequence[str]) -> Iterator[Held]:
    """Every letter of the domains, once, held for HOLD_S seconds. The caller lets go of them (`let_go`) or deletes."""
    for domain in domains:
        url = sqs.get_queue_url(QueueName=dlq_name(settings.env, domain))["QueueUrl"]
        seen: set[str] = set()
        empty = 0
        while empty < EMPTY_RECEIVES:
            answer = sqs.receive_message(
                QueueUrl=url,
                MaxNumberOfMessages=10,
                WaitTimeSeconds=0,
                VisibilityTimeout=HOLD_S,
                AttributeNames=["SentTimestamp"],
            )
            messages = answer.get("Messages", [])
            empty = 0 if messages else empty + 1
            for message in messages:
                identifier = message.get("MessageId", "")
                if identifier in seen:
                    continue
                seen.add(identifier)
                sent = int(message.get("Attributes", {}).get("SentTimestamp", "0"))
                letter = parse_letter(message.get("Body", ""), datetime.fromtimestamp(sent / 1000, UTC))
                yield Held(domain, identifier, message.get("ReceiptHandle", ""), letter)


def let_go(sqs: "SQSClient", settings: Settings, held: Sequence[Held]) -> None:
    """Make the letters visible to others again."""
    for each in held:
        url = sqs.get_queue_url(QueueName=dlq_name(settings.env, each.domain))["QueueUrl"]
        sqs.change_message_visibility(QueueUrl=url, ReceiptHandle=each.receipt, VisibilityTimeout=0)


def select(sqs: "SQSClient", settings: Settings, domains: Sequence[str], chosen: Callable[[Held], bool]) -> list[Held]:
    """The letters for which `chosen` is true, held; all others are let go of."""
    letters = list(receive_letters(sqs, settings, domains))
    let_go(sqs, settings, [each for each in letters if not chosen(each)])
    return [each for each in letters if chosen(each)]


def replay(sqs: "SQSClient", settings: Settings, held: Sequence[Held]) -> int:
    """Send the original messages to their load queues again, then delete the letters; returns how many.

    A crash in between leaves both: the object is loaded once all the same, and the letter can be dropped.
    """
    for each in held:
        queue = sqs.get_queue_url(QueueName=queue_name(settings.env, each.domain))["QueueUrl"]
        sqs.send_message(QueueUrl=queue, MessageBody=each.letter.message)
        _delete(sqs, settings, each)
    return len(held)


def drop(sqs: "SQSClient", settings: Settings, held: Sequence[Held]) -> int:
    """Delete the letters; returns how many."""
    for each in held:
        _delete(sqs, settings, each)
    return len(held)


def only_one(held: Sequence[Held], identifier: str) -> Held:
    """The letter whose id begins so. Raises PlatformError when none or several do."""
    found = [each for each in held if each.id.startswith(identifier)]
    if len(found) != 1:
        several = f"{len(found)} dead letters have ids that begin with {identifier}"
        raise PlatformError(
            several if found else f"no dead letter has an id that begins with {identifier}",
            hint="give more of the id" if found else "data-platform dlq list shows them",
        )
    return found[0]


def _delete(sqs: "SQSClient", settings: Settings, held: Held) -> None:
    url = sqs.get_queue_url(QueueName=dlq_name(settings.env, held.domain))["QueueUrl"]
    sqs.delete_message(QueueUrl=url, ReceiptHandle=held.receipt)
