"""Long polls of the domains' queues: what is received is understood and put in line, or is a dead letter at once."""

import logging
import time
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import UTC, datetime

from data_platform.clients import aws
from data_platform.errors import Fault
from data_platform.loading.backlog import Backlog, Item, Message
from data_platform.loading.errors import Code, LoadError
from data_platform.loading.message import parse_message
from data_platform.loading.work import Work

LONGEST_POLL_S = 5  # SQS allows 20, but a receive that is under way is waited for when the agent stops
IDLE_S = 0.5  # between looks at a pause or an open breaker, which last for seconds at least
FULL_S = 0.02  # between looks at a full line: a worker with nothing to do would cost more than 50 looks a second
HELD_RECEIVES = 6  # messages in hand, in receives: what lets small objects meet in a list
DEEP_QUEUE = 20  # messages waiting beyond which workers are added, and a domain's larger batch is asked for
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Receiver:
    """Fills `backlog` while the agent runs. `paused`: domains a person has paused, kept up to date by the agent."""

    work: Work
    backlog: Backlog
    paused: AbstractSet[str]

    def run(self, domain: str) -> None:
        """Receive for a domain until the agent stops."""
        queue, stop = self.work.queues[domain], self.work.stop
        batch = self.work.catalog.domains[domain].batch
        wait_s = 1
        while not stop.is_set():
            if domain in self.paused or not self._allowed(domain):
                stop.wait(IDLE_S)
                continue
            limit = batch.max if batch.peak is None or self.work.depths.get(domain, 0) <= DEEP_QUEUE else batch.peak
            if self.backlog.in_hand(domain) >= HELD_RECEIVES * limit:
                stop.wait(FULL_S)
                continue
            try:
                messages = queue.receive(limit, wait_s)
            except Exception as error:
                if not self.passes(error, f"receiving for {domain}", park=domain):
                    raise
                continue
            self.work.parking.received(domain)
            wait_s = 1 if messages else min(wait_s * 2, LONGEST_POLL_S)
            received_at = time.monotonic()
            for raw in messages:
                self._accept(domain, raw, received_at)

    def passes(self, error: Exception, what: str, park: str | None = None) -> bool:
        """Wait after an error of SQS that may pass; what a person must mend parks the domain. False for a bug."""
        fault = aws.classify(error)
        if fault is Fault.UNKNOWN:
            return False
        log.warning("%s failed, trying again: %s", what, error)
        if park is not None and fault is Fault.CONFIGURATION:
            self.work.parking.trip(park, str(error), of_queue=True)
        self.work.stop.wait(1.0)
        return True

    def _allowed(self, domain: str) -> bool:
        engines = all(breaker.allows() for breaker in self.work.breakers.values())
        state = "running" if engines else "waiting for an engine"
        self.work.metrics.state(domain, "parked" if self.work.parking.reason(domain) else state)
        return engines and self.work.parking.allows(domain)

    def _accept(self, domain: str, raw: dict[str, object], received_at: float) -> None:
        """Put the message's events in line; one that cannot be understood is a dead letter at once."""
        attributes = raw["Attributes"]
        if not isinstance(attributes, dict):
            raise TypeError
        sent_at = datetime.fromtimestamp(int(attributes["SentTimestamp"]) / 1000, UTC)
        message = Message(domain, str(raw["ReceiptHandle"]), str(raw["Body"]), sent_at, received_at)
        try:
            message.events = parse_message(message.body, sent_at=sent_at)
            for event in message.events:
                if event.key.domain != domain:
                    whose = f"{event.key} of domain {event.key.domain}"
                    raise LoadError(Code.EVENT_SCHEMA, f"{whose} came in the queue of {domain}")
                self.work.dataset(event)
        except LoadError as error:
            self.work.dead_letter(message, error.code, error.message, attempts=1)
            return
        message.open = len(message.events)
        if not message.events:
            self.work.delete([message])
            return
        self.backlog.add([Item(message, event) for event in message.events])
        if self.work.stop.is_set():  # received while stopping
            for given_up in self.backlog.empty():
                self.work.hide(given_up.domain, [given_up.receipt], 0)
