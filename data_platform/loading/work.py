"""What becomes of a group's messages: loaded and deleted, tried again, given back, or sent to the dead letters."""

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from data_platform.catalog import Catalog
from data_platform.catalog.models import Dataset
from data_platform.clients import aws
from data_platform.errors import Fault
from data_platform.loading.admission import Memory
from data_platform.loading.backlog import Group, Item, Message
from data_platform.loading.breaker import Breaker
from data_platform.loading.deadletters import DeadLetter
from data_platform.loading.decide import Outcome
from data_platform.loading.errors import CODES, Code, Diagnosis, LoadError, System, diagnose
from data_platform.loading.examine import examine
from data_platform.loading.loader import Failure, LoadResult, Told, load_objects
from data_platform.loading.lock import LockHeldError
from data_platform.loading.message import ObjectEvent
from data_platform.loading.metrics import Metrics
from data_platform.loading.parking import Parking
from data_platform.loading.queues import DomainQueue
from data_platform.loading.tally import Loaded, StageClock, Tally
from data_platform.loading.warehouse import Warehouse
from data_platform.settings import Settings

log = logging.getLogger(__name__)

DEFER_S = 3  # a file whose manifest is about to be put
AWAY_S = 5  # an engine is away: the breaker holds the next receive back
LOCK_WAIT_S = 20.0  # below the visibility, so that a group waiting for a lease gives others a turn
THROTTLED_S = 15
MIB = 2**20
VISIBLE = {Outcome.LOADED, Outcome.REPLACED}


@dataclass
class Work:
    """The deciding part of an agent; its methods are called from worker threads."""

    settings: Settings
    catalog: Catalog
    warehouse: Warehouse
    queues: Mapping[str, DomainQueue]
    breakers: Mapping[System, Breaker]
    parking: Parking
    metrics: Metrics
    tally: Tally
    stop: threading.Event
    on_loaded: Callable[[Loaded], None] | None = None
    depths: dict[str, int] = field(default_factory=dict[str, int])

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._memory = {name: Memory(self.catalog.domains[name].memory_mb * MIB) for name in self.queues}

    def dataset(self, event: ObjectEvent) -> Dataset:
        """The dataset an event is about. Raises LoadError E001 when there is none, or the bucket is another."""
        dataset = self.catalog.datasets.get(event.key.dataset)
        if dataset is None:
            raise LoadError(Code.EVENT_SCHEMA, f"the catalogue has no dataset {event.key.dataset} for {event.key}")
        if event.version.bucket != (bucket := self.settings.curated_bucket):
            raise LoadError(Code.EVENT_SCHEMA, f"{event.key} is in bucket {event.version.bucket}, not in {bucket}")
        return dataset

    def load(self, group: Group) -> None:
        """Load a group, with the retries that one receive allows; every message of it is dealt with at the end."""
        pending = group.items
        smaller = False
        buried: set[str] = set()
        while pending:
            told = self._attempt(group, pending, smaller=smaller)
            if told is None:
                return
            again: list[Item] = []
            wait_s = 0.0
            finished: list[Item] = []
            sent: list[Message] = []  # as dead letters
            for item, each in zip(pending, told, strict=True):
                if isinstance(each, LoadResult):
                    self._count(item, each)
                    if each.final:
                        finished.append(item)
                    else:
                        self.give_back([item], DEFER_S)
                    continue
                self._note(item, each)
                if self._ends(item, each, buried, sent):
                    continue
                again.append(item)
                smaller = smaller or each.diagnosis.code is Code.MEMORY
                waits = CODES[each.diagnosis.code].waits_s
                wait_s = max(wait_s, waits[min(each.attempts, len(waits)) - 1])
            self._finish(finished, sent)
            pending = again
            if pending and self.stop.wait(wait_s):
                self.give_back(pending, 0)
                return

    def _attempt(self, group: Group, items: list[Item], *, smaller: bool) -> list[Told] | None:
        """One try; None when it failed as a whole and the messages have been given back."""
        dataset = self.dataset(items[0].event)
        timed = StageClock(group, self.metrics)
        memory = self._memory[group.domain]
        try:
            return load_objects(
                self.warehouse,
                dataset,
                [item.event for item in items],
                memory=memory.limit,
                admit=memory.admitted,
                smaller=smaller,
                stage=timed.enter,
                wait_s=LOCK_WAIT_S,
            )
        except LockHeldError as error:
            log.info("%s", error.message)
            self.give_back(items, 1)
        except Exception as error:
            diagnosis = diagnose(error)
            if diagnosis is None:
                # A bug: nothing is known of the messages being wrong, so they come back after their visibility.
                log.exception("a load of %s failed", group.partition.name)
                self._failed(group.domain, "bug")
                return None
            diagnosis = examine(self.warehouse, group.domain, items[0].event.version, diagnosis)
            self._failed(group.domain, diagnosis.code)
            self._held_back(group.domain, items, diagnosis)
        finally:
            timed.enter("")
        return None

    def _ends(self, item: Item, failure: Failure, buried: set[str], sent: list[Message]) -> bool:
        """Whether this failure ends the receive for the item; then it is dealt with, or its message is in `sent`."""
        diagnosis = failure.diagnosis
        if diagnosis.code is Code.GONE and diagnosis.fault is Fault.PERMANENT:
            if self.settings.loader_gone_to_dlq:
                self._bury(item.message, failure, sent)
            else:
                self._finish([item])
            return True
        if failure.for_good:
            if failure.version.identity in buried:  # the same event twice in one group is one dead letter
                self._finish([item])
                return True
            buried.add(failure.version.identity)
            self._bury(item.message, failure, sent)
            return True
        if not failure.counted:
            self._held_back(item.message.domain, [item], diagnosis)
            return True
        return False

    def _held_back(self, domain: str, items: list[Item], diagnosis: Diagnosis) -> None:
        """Not the objects' fault: they come back, and nothing is received until the cause is gone."""
        if diagnosis.fault is Fault.CONFIGURATION:
            log.error("%s is parked, a person is needed: %s", domain, diagnosis.reason)
            self.parking.trip(domain, diagnosis.reason)
            self.give_back(items, AWAY_S)
        elif diagnosis.system is not None:
            if not self.breakers[diagnosis.system].open:
                log.warning("%s is away, receiving stops: %s", diagnosis.system, diagnosis.reason)
            self.breakers[diagnosis.system].trip(diagnosis.reason)
            self.give_back(items, AWAY_S)
        else:
            log.warning("%s: %s; the messages come back", domain, diagnosis.reason)
            self.give_back(items, THROTTLED_S if diagnosis.fault is Fault.THROTTLED else DEFER_S)

    # Messages

    def _finish(self, items: list[Item], sent: Sequence[Message] = ()) -> None:
        """These events are final; messages without open events, and those sent as dead letters, are deleted."""
        ended: list[Message] = [*sent]
        with self._lock:
            for item in items:
                item.message.open -= 1
                if item.message.open == 0 and not item.message.kept:
                    ended.append(item.message)
        self.delete(ended)

    def delete(self, messages: list[Message]) -> None:
        """Acknowledge. What cannot be deleted comes back, is recognised as loaded and deleted then."""
        for domain in {message.domain for message in messages}:
            receipts = [message.receipt for message in messages if message.domain == domain]
            try:
                failed = self.queues[domain].delete(receipts)
            except Exception as error:
                if aws.classify(error) is Fault.UNKNOWN:
                    raise
                log.warning("%d messages were not deleted and come back: %s", len(receipts), error)
            else:
                if failed:
                    log.warning("%d messages were not deleted and come back", failed)

    def give_back(self, items: list[Item], seconds: int) -> None:
        """Let the messages come back `seconds` from now."""
        for message in {item.message for item in items}:
            message.kept = True
            self.hide(message.domain, [message.receipt], seconds)

    def hide(self, domain: str, receipts: Sequence[str], seconds: int) -> None:
        """Let messages come back `seconds` from now; what cannot be told to SQS comes back after its visibility."""
        try:
            self.queues[domain].hide(receipts, seconds)
        except Exception as error:
            if aws.classify(error) is Fault.UNKNOWN:
                raise
            log.warning("visibility was not changed, the messages come back by themselves: %s", error)

    def dead_letter(self, message: Message, code: Code, reason: str, *, attempts: int) -> None:
        """Send the original message with what is known of it to the dead letters, then delete it."""
        if self._send_letter(message, code, reason, attempts):
            self.delete([message])

    def _bury(self, message: Message, failure: Failure, sent: list[Message]) -> None:
        """The same of a message with an object that failed, but for the deletion, which is left to the caller."""
        if self._send_letter(message, failure.diagnosis.code, failure.diagnosis.reason, failure.attempts):
            sent.append(message)

    def _send_letter(self, message: Message, code: Code, reason: str, attempts: int) -> bool:
        """Whether the letter was sent; if not, it is when the message comes back.

        Of a message with several events the whole goes; those that are loaded already are recognised at its replay.
        """
        event = message.events[0] if message.events else None
        letter = DeadLetter(
            code.value,
            reason,
            attempts,
            message.sent_at.isoformat(),
            datetime.now(UTC).isoformat(),
            "" if event is None else event.version.key,
            "" if event is None else event.correlation_id,
            message.body,
        )
        message.kept = True
        try:
            self.queues[message.domain].bury(letter)
        except Exception as error:
            fault = aws.classify(error)
            if fault is Fault.UNKNOWN:
                raise
            if fault is Fault.CONFIGURATION:
                self.parking.trip(message.domain, str(error))
            log.warning("a dead letter was not sent, its message comes back: %s", error)
            return False
        message.open = 0
        if event is None:
            self.metrics.failed(message.domain, code.value)
        with self._lock:
            self.tally.dead_lettered += 1
        log.error("dead letter %s: %s", code.value, reason)
        return True

    # Counting

    def _count(self, item: Item, result: LoadResult) -> None:
        loaded = Loaded(item.event, result, datetime.now(UTC))
        visible = result.outcome in VISIBLE
        if visible:
            self.parking.works(item.message.domain)
        with self._lock:
            self.tally.objects += result.final
            self.tally.rows += result.rows if visible else 0
            self.tally.outcomes[result.outcome.value] = self.tally.outcomes.get(result.outcome.value, 0) + 1
        if result.final:
            self.metrics.finished(
                item.message.domain,
                result.outcome.value,
                rows=result.rows,
                size=result.version.bytes,
                latency_s=loaded.latency_s if visible else None,
            )
        log.info("%s: %s, %d rows in %.0f ms", item.event.key, result.outcome, result.rows, result.seconds * 1000)
        if self.on_loaded is not None and result.final:
            try:
                self.on_loaded(loaded)
            except Exception:
                log.exception("reporting a load failed; loading goes on")

    def _note(self, item: Item, failure: Failure) -> None:
        diagnosis = failure.diagnosis
        self._failed(item.message.domain, diagnosis.code)
        log.warning("%s: %s %s (attempt %d)", item.event.key, diagnosis.code, diagnosis.reason, failure.attempts)

    def _failed(self, domain: str, code: str) -> None:
        self.metrics.failed(domain, str(code))
        with self._lock:
            self.tally.failed += 1
