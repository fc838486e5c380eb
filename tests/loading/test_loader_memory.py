"""The agent's memory over 100,000 messages out of a queue in memory: what it keeps must not grow with what it did."""

import itertools
import json
import os
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import psutil
import pytest

from data_platform.catalog import load_catalog
from data_platform.loading import agent as agent_module
from data_platform.loading.agent import Agent
from data_platform.loading.deadletters import DeadLetter
from data_platform.loading.message import ObjectEvent
from data_platform.loading.metrics import Depth
from tests.loading.conftest import DS, Bench, parquet, rows

pytestmark = pytest.mark.load
MESSAGES = 100_000  # each with an id of its own, made when it is received: the queue must not shrink beside the agent
DAYS, OBJECTS = 500, 20  # partitions, objects in each
TOGETHER = 100  # messages of one partition in a row: each of its objects five times; then comes the next partition
WARM_AT = 20_000  # of them; connections, pools and caches have their size by then
GROWTH_MB = 24


@dataclass
class QueueInMemory:
    """The messages of a domain, each handed out once; what SQS would be asked is answered from here."""

    bodies: Iterator[str]
    visibility_s: int = 60
    buried: list[DeadLetter] = field(default_factory=list[DeadLetter])
    hidden: dict[str, str] = field(default_factory=dict[str, str])
    back: deque[str] = field(default_factory=deque[str])
    deleted: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _number: int = 0

    def receive(self, limit: int, wait_s: int) -> Sequence[Any]:
        with self._lock:
            taken = [self.back.popleft() for _ in range(min(limit, len(self.back)))]
            taken += itertools.islice(self.bodies, limit - len(taken))
            messages: list[dict[str, Any]] = []
            for body in taken:
                self._number += 1
                receipt = str(self._number)
                self.hidden[receipt] = body
                sent = str(int(datetime.now(UTC).timestamp() * 1000))
                messages.append({"ReceiptHandle": receipt, "Body": body, "Attributes": {"SentTimestamp": sent}})
        if not messages:
            time.sleep(min(wait_s, 0.2))
        return messages

    def delete(self, receipts: Sequence[str]) -> int:
        with self._lock:
            for receipt in receipts:
                if self.hidden.pop(receipt, None) is not None:
                    self.deleted += 1
        return 0

    def hide(self, receipts: Sequence[str], seconds: int) -> None:
        with self._lock:
            for receipt in receipts if seconds < self.visibility_s else ():
                if (body := self.hidden.pop(receipt, None)) is not None:
                    self.back.append(body)

    def bury(self, letter: DeadLetter) -> None:
        self.buried.append(letter)

    def depth(self) -> Depth:
        with self._lock:
            return Depth(MESSAGES - self.deleted - len(self.hidden), len(self.hidden), len(self.buried))


def message(event: ObjectEvent, number: int) -> str:
    version = event.version
    return json.dumps(
        {
            "bucket": version.bucket,
            "key": version.key,
            "file_size": version.bytes,
            "etag": version.etag,
            "sequencer": version.sequencer,
            "version_id": version.version_id,
            "correlation_id": f"message-{number}",
        }
    )


def put(bench: Bench, number: int) -> ObjectEvent:
    """Three rows in an object; consecutive numbers share a day."""
    bench.ds = DS + timedelta(days=number // OBJECTS)
    return bench.put(f"part-{number}.parquet", body=parquet(rows(number * 3, 3)))


def announced(number: int) -> int:
    """Which object a message is about."""
    return number // TOGETHER % DAYS * OBJECTS + number % OBJECTS


def test_memory_is_flat_over_a_hundred_thousand_messages(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    events = [put(bench, number) for number in range(DAYS * OBJECTS)]
    queue = QueueInMemory(message(events[announced(number)], number) for number in range(MESSAGES))
    monkeypatch.setattr(agent_module.DomainQueue, "open", lambda *_arguments: queue)
    shipped = load_catalog(bench.settings.catalog)
    batch = shipped.domains["market"].batch.model_copy(update={"max": 100})
    domains = {**shipped.domains, "market": shipped.domains["market"].model_copy(update={"batch": batch})}
    catalog = replace(shipped, datasets={bench.dataset.key: bench.dataset}, domains=domains)
    process = psutil.Process(os.getpid())
    agent = Agent(bench.settings, catalog, ["market"])
    used_s = process.cpu_times().user + process.cpu_times().system
    started = time.monotonic()
    samples: dict[int, float] = {}
    agent.start()
    try:
        while queue.deleted < MESSAGES:
            assert time.monotonic() - started < 2400, f"{queue.deleted} of {MESSAGES} messages"
            samples[queue.deleted] = process.memory_info().rss / 2**20
            time.sleep(0.5)
    finally:
        agent.stop()
    used_s = process.cpu_times().user + process.cpu_times().system - used_s
    after_warming = [mb for count, mb in samples.items() if count >= WARM_AT]
    last = process.memory_info().rss / 2**20
    print(
        f"{MESSAGES} messages in {time.monotonic() - started:.0f} s: {1000 * used_s / MESSAGES:.2f} ms CPU a message; "
        f"{min(samples.values()):.0f} MB at first, {after_warming[0]:.0f} after {WARM_AT}, {last:.0f} at the end"
    )
    assert queue.buried == []
    count, distinct, _ = bench.found()
    assert count == distinct == 3 * len(events)
    assert agent.tally.outcomes == {"loaded": len(events), "already loaded": MESSAGES - len(events)}
    assert last - after_warming[0] < GROWTH_MB
