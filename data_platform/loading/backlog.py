"""Messages in hand, by domain and partition: which group a free worker takes next.

Pure bookkeeping under one lock. A partition is worked on by one worker at a time, so what waits for it becomes a list.
"""

import threading
from collections import OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from data_platform.catalog.models import Priority
from data_platform.loading.message import ObjectEvent
from data_platform.loading.plans import LIST_OBJECTS
from data_platform.loading.register import TablePartition

WEIGHTS: Mapping[Priority, int] = {Priority.HIGH: 4, Priority.MEDIUM: 2, Priority.LOW: 1}
# Share of the workers a domain may take at most: a flood of a low priority leaves half of them to the others.
SHARES: Mapping[Priority, float] = {Priority.HIGH: 1.0, Priority.MEDIUM: 0.75, Priority.LOW: 0.5}


@dataclass(eq=False)
class Message:
    """One received message; `open` of its events are not final yet."""

    domain: str
    receipt: str
    body: str
    sent_at: datetime
    received_at: float  # monotonic seconds
    events: list[ObjectEvent] = field(default_factory=list[ObjectEvent])
    open: int = 0
    kept: bool = False  # one of its events needs the message to come back


@dataclass(eq=False)
class Item:
    """One event of a message."""

    message: Message
    event: ObjectEvent


@dataclass(eq=False)
class Group:
    """Events of one partition in a worker's hands; `stage` is what it is doing, for the heartbeat and the metrics."""

    domain: str
    partition: TablePartition
    items: list[Item]
    stage: str = ""
    unseen_beats: int = 0


class Backlog:
    """What was received and is not being worked on yet."""

    def __init__(self, priorities: Mapping[str, Priority]) -> None:
        self._priorities = priorities
        self._waiting: dict[str, OrderedDict[TablePartition, deque[Item]]] = {
            domain: OrderedDict() for domain in priorities
        }
        self._running: dict[str, int] = dict.fromkeys(priorities, 0)
        self._groups: set[Group] = set()
        self._changed = threading.Condition()

    def add(self, items: list[Item]) -> None:
        """Put events in line."""
        with self._changed:
            for item in items:
                key = item.event.key
                partition = TablePartition(key.domain, key.table, key.ds)
                self._waiting[item.message.domain].setdefault(partition, deque()).append(item)
            self._changed.notify_all()

    def take(self, workers: int, timeout_s: float) -> Group | None:
        """The next group for one of `workers`; None after `timeout_s` without work."""
        with self._changed:
            group = self._next(workers)
            if group is None:
                self._changed.wait(timeout_s)
                group = self._next(workers)
            return group

    def done(self, group: Group) -> None:
        """The worker is done with the group."""
        with self._changed:
            self._groups.discard(group)
            self._running[group.domain] -= 1
            self._changed.notify_all()

    def in_hand(self, domain: str) -> int:
        """Events of a domain that wait or are worked on."""
        with self._changed:
            waiting = sum(len(items) for items in self._waiting[domain].values())
            return waiting + sum(len(group.items) for group in self._groups if group.domain == domain)

    def groups(self) -> list[Group]:
        """The groups being worked on."""
        with self._changed:
            return list(self._groups)

    def waiting_messages(self) -> set[Message]:
        """Messages none of whose events is being worked on by now, or only some."""
        with self._changed:
            return {
                item.message for partitions in self._waiting.values() for items in partitions.values() for item in items
            }

    def empty(self) -> set[Message]:
        """Give up everything that waits; returns the messages it came from."""
        messages = self.waiting_messages()
        with self._changed:
            for partitions in self._waiting.values():
                partitions.clear()
        return messages

    def _next(self, workers: int) -> Group | None:
        busy = {group.partition for group in self._groups}
        for domain in sorted(self._waiting, key=lambda name: self._running[name] / WEIGHTS[self._priorities[name]]):
            if self._running[domain] >= max(1, int(workers * SHARES[self._priorities[domain]])):
                continue
            partition = next((each for each in self._waiting[domain] if each not in busy), None)
            if partition is None:
                continue
            items = self._waiting[domain][partition]
            taken = [items.popleft() for _ in range(min(len(items), LIST_OBJECTS))]
            if not items:
                del self._waiting[domain][partition]
            group = Group(domain, partition, taken)
            self._groups.add(group)
            self._running[domain] += 1
            return group
        return None
