"""The kill matrix: faults at random instants of random histories; rows, distinct rows and hash must be the files' own.

Every trial is a day of its own: objects put, overwritten and put back, events out of order and more than once, rebuilds
in between, and one fault, which must have struck. The table remembers two tokens only, so most are overrun. Seeded:
a failing seed fails again.
"""

import itertools
import json
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from data_platform.loading.errors import diagnose
from data_platform.loading.loader import Failure, LoadResult, load_objects
from data_platform.loading.lock import PartitionLocks
from data_platform.loading.message import ObjectEvent
from data_platform.loading.rebuild import rebuild_partition, verify_partition
from data_platform.loading.register import Register
from data_platform.loading.warehouse import Warehouse
from data_platform.local.cloud import Cloud
from tests.loading.conftest import Bench, make_bench, rows

FIRST_DAY = date(2020, 1, 1)
LEASE_S = 1.0
FULL = 1000
KINDS = (
    *("kill loader before a call", "kill loader after a call", "kill loader in a rebuild"),
    *("clickhouse drops before", "clickhouse drops after", "clickhouse fails", "clickhouse fails late"),
    *("s3 reset", "s3 500", "s3 503", "s3 truncates", "s3 stalls", "paused holder", "kill clickhouse"),
)
FRONT = {
    "clickhouse drops before": ("clickhouse.drop_before", {}),
    "clickhouse drops after": ("clickhouse.drop_after", {}),
    "clickhouse fails": ("clickhouse.error", {"code": 210, "message": "Connection reset"}),
    "clickhouse fails late": ("clickhouse.late_exception", {"code": 210, "message": "Connection reset"}),
}
S3 = {
    "s3 reset": ("s3.reset", {}),
    "s3 500": ("s3.error", {"status": 500}),
    "s3 503": ("s3.error", {"status": 503}),
    "s3 truncates": ("s3.truncate", {"bytes": 300}),
    "s3 stalls": ("s3.stall", {"bytes": 1, "seconds": 0.3}),
}


class Killed(BaseException):
    """The process is gone: nothing of it runs any more, not even its `finally` blocks reach the server."""


class Mortal:
    """A client whose process is killed at its `at`-th statement, before it is sent or after it was executed."""

    def __init__(self, client: Any, at: int, *, after: bool, pause: float = 0.0) -> None:
        self._client, self._at, self._after, self._pause = client, at, after, pause
        self._count = 0
        self.dead = False
        self.paused = threading.Event()

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._client, name)
        if name not in {"command", "query", "raw_insert", "insert"}:
            return attribute

        def call(*arguments: Any, **options: Any) -> Any:
            if threading.current_thread().name == "lease":  # it dies, or stands still, with its process
                if self.dead or self.paused.is_set():
                    raise ConnectionRefusedError("the process is gone")
                return attribute(*arguments, **options)
            if self.dead:
                raise Killed
            self._count += 1
            if self._count != self._at:
                return attribute(*arguments, **options)
            if self._pause:
                self.paused.set()
                time.sleep(self._pause)
                return attribute(*arguments, **options)
            if self._after:
                attribute(*arguments, **options)
            self.dead = True
            raise Killed

        return call


@dataclass
class Trial:
    """One history and its fault."""

    bench: Bench
    cloud: Cloud
    seed: int
    kind: str
    events: list[ObjectEvent] = field(default_factory=list[ObjectEvent])

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.bench.ds = FIRST_DAY + timedelta(days=self.seed % 15_000)
        self.bench.content = {}

    def run(self) -> bool:
        """Make the history, let the fault strike, redeliver until all is final, compare. Whether the fault struck."""
        dice = self.random
        start = 0
        for number in range(dice.randint(1, 4)):
            for _ in range(dice.choice([1, 1, 1, 2, 3])):
                count = dice.choice([0, 1, 30, 30, 2000])
                self.put(f"o{number}.parquet", rows(start, count, tag=str(self.seed)))
                start += count
            if dice.random() < 0.2:  # back to its first content: A, B, A
                self.put(f"o{number}.parquet", self.bench.content[f"o{number}.parquet"])
            if dice.random() < 0.3:
                self.deliver(self.some())
        if dice.random() < 0.2:
            self.rebuild()
        struck = self.strike()
        if dice.random() < 0.3:
            self.deliver(self.some())
        if dice.random() < 0.2:
            self.rebuild()
        self.deliver(self.events * dice.choice([1, 2]))
        assert self.found() == self.bench.expected(), f"seed {self.seed}, {self.kind}"
        verify_partition(self.bench.warehouse, self.bench.dataset, self.bench.ds)
        return struck

    def put(self, file: str, table: pa.Table) -> None:
        self.events.append(self.bench.put(file, table))

    def some(self) -> list[ObjectEvent]:
        chosen = self.random.sample(self.events, self.random.randint(1, len(self.events)))
        return chosen * self.random.choice([1, 1, 5])

    def found(self) -> tuple[int, ...]:
        client = self.bench.warehouse.client
        row = client.query(
            "SELECT count(), uniqExact(id), sum(cityHash64(toString((id, name)))) "
            f"FROM {self.bench.table} WHERE _ds = {{ds:Date}}",
            parameters={"ds": self.bench.ds},
        ).result_rows[0]
        return tuple(int(value or 0) for value in row)

    # Faults

    def strike(self) -> bool:
        self.put("struck.parquet", rows(50_000, 700, tag=str(self.seed)))  # so that there is something to strike
        batch = self.events if self.random.random() < 0.5 else [*self.some(), self.events[-1]]
        if self.kind.startswith("kill loader"):
            return self.kill_loader(batch)
        if self.kind == "paused holder":
            return self.pause_holder(batch)
        if self.kind == "kill clickhouse":
            return self.kill_clickhouse(batch)
        engine, (name, arguments) = ("clickhouse", FRONT[self.kind]) if self.kind in FRONT else ("aws", S3[self.kind])
        faults = self.cloud.faults(engine)
        match = {"sql": "*"} if engine == "clickhouse" else {"method": "GET", "key": f"*ds={self.bench.ds}*"}
        late = self.random.randint(0, 6 if engine == "clickhouse" else 2)
        fault = faults.arm(name, match=match, times=self.random.choice([1, 1, 2]), skip=late,
                           **arguments)  # fmt: skip
        self.attempt(batch, self.bench.warehouse)
        struck = faults.struck(fault) >= 1
        faults.disarm(fault)
        return struck

    def mortal(self, *, after: bool, pause: float = 0.0) -> tuple[Mortal, Warehouse]:
        settings = self.bench.settings
        healthy = self.bench.warehouse
        client: Any = Mortal(healthy.client, self.random.randint(1, 10), after=after, pause=pause)
        owner = f"mortal-{self.seed}"
        locks = PartitionLocks(client, owner, settings.loader_lease_s)
        return client, replace(healthy, client=client, register=Register(client, owner), locks=locks)

    def kill_loader(self, batch: list[ObjectEvent]) -> bool:
        mortal, warehouse = self.mortal(after="after" in self.kind or self.random.random() < 0.3)
        try:
            if self.kind == "kill loader in a rebuild":
                rebuild_partition(warehouse, self.bench.dataset, self.bench.ds)
            else:
                self.attempt(batch, warehouse)
        except Killed:
            pass
        return mortal.dead

    def pause_holder(self, batch: list[ObjectEvent]) -> bool:
        """A process stands still for longer than its lease; meanwhile another one works on the partition."""
        mortal, warehouse = self.mortal(after=False, pause=LEASE_S * 3)
        rebuilding = self.random.random() < 0.5

        def work() -> None:
            if rebuilding:
                try:
                    rebuild_partition(warehouse, self.bench.dataset, self.bench.ds)
                except Exception as error:
                    if diagnose(error) is None:
                        raise
            else:
                self.attempt(batch, warehouse)

        holder = threading.Thread(target=work, name="holder")
        holder.start()
        mortal.paused.wait(5)
        if self.random.random() < 0.5:
            self.rebuild()
        self.deliver(self.some())
        holder.join()
        return mortal.paused.is_set()

    def kill_clickhouse(self, batch: list[ObjectEvent]) -> bool:
        warehouse = self.bench.warehouse
        worker = threading.Thread(target=self.attempt, args=(batch, warehouse), name="worker")
        worker.start()
        time.sleep(self.random.random() * 0.15)
        self.cloud.kill("clickhouse")
        self.cloud.restart("clickhouse")
        worker.join()
        return True

    # The queue

    def attempt(self, batch: list[ObjectEvent], warehouse: Warehouse) -> list[ObjectEvent]:
        """One receive; returns the events that are not final and come back."""
        try:
            told = load_objects(warehouse, self.bench.dataset, batch, wait_s=20)
        except Exception as error:
            if diagnose(error) is None:
                raise
            return batch
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
        for _ in range(20):
            self.random.shuffle(batch)
            size = self.random.randint(1, len(batch))
            batch = self.attempt(batch[:size], self.bench.warehouse) + batch[size:]
            if not batch:
                return
        raise AssertionError(f"{len(batch)} events never became final, seed {self.seed}")

    def rebuild(self) -> None:
        for _ in range(20):
            try:
                rebuild_partition(self.bench.warehouse, self.bench.dataset, self.bench.ds)
            except Exception as error:
                if diagnose(error) is None:
                    raise
                continue
            return
        raise AssertionError("no rebuild succeeded")


@pytest.fixture
def matrix_bench(cloud: Cloud) -> Iterator[Bench]:
    made = make_bench(cloud.settings.model_copy(update={"loader_lease_s": LEASE_S}))
    made.warehouse.client.command(f"ALTER TABLE {made.table} MODIFY SETTING non_replicated_deduplication_window = 2")
    yield made
    made.warehouse.client.command(f"DROP TABLE IF EXISTS {made.table} SYNC")


def run_kind(bench: Bench, cloud: Cloud, kind: str, seeds: Iterator[int]) -> int:
    """Trials of a kind until its fault has struck once; returns how many it took. Each is compared, struck or not."""
    for trials in range(1, 8):
        if Trial(bench, cloud, next(seeds), kind).run():
            return trials
    raise AssertionError(f"{kind} never struck")


@pytest.mark.scenario
@pytest.mark.timeout(240)
def test_faults_of_every_kind_leave_exactly_the_files_rows(matrix_bench: Bench, cloud: Cloud) -> None:
    seeds = itertools.count(1)
    for kind in KINDS:
        if kind != "kill clickhouse":
            run_kind(matrix_bench, cloud, kind, seeds)


@pytest.mark.load
@pytest.mark.timeout(7200)
def test_a_thousand_faults_leave_exactly_the_files_rows(matrix_bench: Bench, cloud: Cloud, tmp_path: Path) -> None:
    """Writes its report to CHAOS_REPORT, also while it runs."""
    folder = Path(os.environ.get("CHAOS_REPORT", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    struck: Counter[str] = Counter()
    trials = 0
    seeds = itertools.count(100)
    since = time.monotonic()
    for kind in itertools.islice(itertools.cycle(KINDS), FULL):
        trials += run_kind(matrix_bench, cloud, kind, seeds)
        struck[kind] += 1
        report = {
            "faults that struck": sum(struck.values()),
            "trials": trials,
            "inexact": 0,  # one inexact trial ends the run
            "minutes": round((time.monotonic() - since) / 60, 1),
            "by kind": dict(struck),
        }
        (folder / "loader-kill-matrix.json").write_text(json.dumps(report, indent=1) + "\n")
