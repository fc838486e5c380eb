"""Random histories of one table partition in this process: objects put, overwritten, delivered, rebuilt.

What belongs here: what producers and the queue do. Does not: what strikes meanwhile (loader_history_faults.py).
"""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta

import pyarrow as pa

from data_platform.loading.errors import diagnose
from data_platform.loading.loader import Failure, LoadResult, load_objects
from data_platform.loading.message import ObjectEvent
from data_platform.loading.rebuild import rebuild_partition
from data_platform.loading.warehouse import Warehouse
from data_platform.local.cloud import Cloud
from tests.loading.conftest import Bench, rows

FIRST_DAY = date(2020, 1, 1)
LEASE_S = 1.0
WINDOW = 2  # blocks whose tokens the table remembers
ROUNDS = 30  # receives after which an event that is not final never will be


@dataclass
class History:
    """A day of its own: objects put, overwritten and put back, events out of order and more than once, rebuilds."""

    bench: Bench
    cloud: Cloud
    seed: int
    events: list[ObjectEvent] = field(default_factory=list[ObjectEvent])
    struck: Counter[str] = field(default_factory=Counter[str])

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.bench.ds = FIRST_DAY + timedelta(days=self.seed % 15_000)
        self.bench.content = {}
        self._start = 0
        self._files = 0

    # What producers do

    def live(self) -> None:
        """An object, or more versions of it, delivered or not, and now and then a rebuild."""
        dice = self.random
        file = self.new_file()
        for _ in range(dice.choice([1, 1, 1, 2, 3])):
            self.put(file, dice.choice([0, 1, 30, 30, 2000]))
        if dice.random() < 0.3:
            self.deliver(self.some())
        if dice.random() < 0.1:
            self.rebuild()

    def new_file(self) -> str:
        self._files += 1
        return f"o{self._files:03}.parquet"

    def put(self, file: str, count: int = 300) -> ObjectEvent:
        """New content under the key; its event waits."""
        table = rows(self._start, count, tag=str(self.seed))
        self._start += count
        return self.put_table(file, table)

    def put_table(self, file: str, table: pa.Table) -> ObjectEvent:
        event = self.bench.put(file, table)
        self.events.append(event)
        return event

    def loaded(self) -> ObjectEvent:
        """A new object whose rows are in the table."""
        event = self.put(self.new_file())
        self.deliver([event])
        return event

    def some(self) -> list[ObjectEvent]:
        """Some of the events so far, once or five times."""
        chosen = self.random.sample(self.events, self.random.randint(1, min(6, len(self.events))))
        return chosen * self.random.choice([1, 1, 5])

    def found(self) -> tuple[int, ...]:
        row = self.bench.warehouse.client.query(
            "SELECT count(), uniqExact(id), sum(cityHash64(toString((id, name)))) "
            f"FROM {self.bench.table} WHERE _ds = {{ds:Date}}",
            parameters={"ds": self.bench.ds},
        ).result_rows[0]
        return tuple(int(value or 0) for value in row)

    # The queue

    def attempt(self, batch: Sequence[ObjectEvent], warehouse: Warehouse) -> list[ObjectEvent]:
        """One receive; returns the events that are not final and come back."""
        try:
            told = load_objects(warehouse, self.bench.dataset, batch, wait_s=20)
        except Exception as error:
            if diagnose(error) is None:
                raise
            return list(batch)
        left: list[ObjectEvent] = []
        for event, each in zip(batch, told, strict=True):
            if isinstance(each, Failure):
                assert not each.for_good or each.counted, each
                left.append(event)
            else:
                assert isinstance(each, LoadResult)
        return left

    def deliver(self, batch: list[ObjectEvent]) -> None:
        """Receive until everything is final."""
        for _ in range(ROUNDS):
            self.random.shuffle(batch)
            size = self.random.randint(1, len(batch))
            batch = self.attempt(batch[:size], self.bench.warehouse) + batch[size:]
            if not batch:
                return
        raise AssertionError(f"{len(batch)} events never became final, seed {self.seed}")

    def rebuild(self) -> None:
        for _ in range(ROUNDS):
            try:
                rebuild_partition(self.bench.warehouse, self.bench.dataset, self.bench.ds)
            except Exception as error:
                if diagnose(error) is None:
                    raise
                continue
            return
        raise AssertionError(f"no rebuild succeeded, seed {self.seed}")

    def batch(self) -> list[ObjectEvent]:
        """A receive with something in it that is yet to be loaded."""
        event = self.put(self.new_file(), 700)
        return [*self.some(), event]
