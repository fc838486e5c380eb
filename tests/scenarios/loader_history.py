"""Random histories of one table partition in this process, and the faults that strike at a statement of their loads.

What belongs here: faults below the queue (statements, S3, ClickHouse, overwrites, rebuilds, deduplication tokens).
Does not: loader processes and queues (loader_line.py), how many faults and what is reported (test_loader_matrix.py).
"""

import random
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

from data_platform.loading.errors import diagnose
from data_platform.loading.loader import Failure, LoadResult, load_objects
from data_platform.loading.lock import PartitionLocks
from data_platform.loading.message import ObjectEvent
from data_platform.loading.rebuild import rebuild_partition, verify_partition
from data_platform.loading.register import Register
from data_platform.loading.warehouse import Warehouse
from data_platform.local.cloud import Cloud
from tests.loading.conftest import Bench, rows

FIRST_DAY = date(2020, 1, 1)
LEASE_S = 1.0
WINDOW = 2  # blocks whose tokens the table remembers
ROUNDS = 30  # receives after which an event that is not final never will be
FRONT: dict[str, tuple[str, dict[str, Any]]] = {
    "ClickHouse drops the connection before executing": ("clickhouse.drop_before", {}),
    "ClickHouse drops the connection after executing": ("clickhouse.drop_after", {}),
    "ClickHouse fails": ("clickhouse.error", {"code": 210, "message": "Connection reset"}),
    "ClickHouse fails after HTTP 200": ("clickhouse.late_exception", {"code": 210, "message": "Connection reset"}),
}
S3: dict[str, tuple[str, dict[str, Any]]] = {
    "S3 resets the connection": ("s3.reset", {}),
    "S3 answers 500": ("s3.error", {"status": 500}),
    "S3 answers 503": ("s3.error", {"status": 503}),
    "S3 truncates an answer": ("s3.truncate", {"bytes": 300}),
    "S3 stalls in an answer": ("s3.stall", {"bytes": 1, "seconds": 0.3}),
}


class Killed(BaseException):
    """The process is gone: nothing of it runs any more, not even its `finally` blocks reach the server."""


class Mortal:
    """A client whose process is killed at a statement, before it is sent or after it was executed.

    The statement: the `at`-th, or the first that contains `text`. With `pause` the process only stands still so long.
    """

    def __init__(self, client: Any, at: int = 0, *, text: str = "", after: bool = False, pause: float = 0.0) -> None:
        self._client, self._at, self._text, self._after, self._pause = client, at, text, after, pause
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
            if not self._struck(arguments):
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

    def _struck(self, arguments: tuple[Any, ...]) -> bool:
        if self._text:
            return self._text in str(arguments[0])
        return self._count == self._at


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

    def run(self, kinds: Iterable[str]) -> Counter[str]:
        """Let one fault of each kind strike, with a life in between; compare at the end. Returns what struck."""
        kinds = list(kinds)
        for _ in range(self.random.randint(1, 3)):
            self.live()
        for kind in kinds:
            self.strike(kind)
            if self.random.random() < 0.4:
                self.live()
        self.deliver(self.events * self.random.choice([1, 2]))
        assert self.found() == self.bench.expected(), f"seed {self.seed}: {kinds}"
        verify_partition(self.bench.warehouse, self.bench.dataset, self.bench.ds)
        return self.struck

    def strike(self, kind: str) -> None:
        """Let a fault of the kind strike. Some instants are missed: then it is tried at another one."""
        for _ in range(10):
            if FAULTS[kind](self, kind):
                self.struck[kind] += 1
                return
        raise AssertionError(f"{kind} never struck, seed {self.seed}")

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

    # Faults of the process

    def mortal(self, **how: Any) -> tuple[Mortal, Warehouse]:
        """A worker that will be killed; `how` as for Mortal."""
        settings = self.bench.settings
        healthy = self.bench.warehouse
        client: Any = Mortal(healthy.client, **how)
        owner = f"mortal-{self.seed}-{self._files}"
        locks = PartitionLocks(client, owner, settings.loader_lease_s)
        return client, replace(healthy, client=client, register=Register(client, owner), locks=locks)

    def kill_worker(self, kind: str) -> bool:
        mortal, warehouse = self.mortal(at=self.random.randint(1, 9), after="after" in kind)
        try:
            if "rebuild" in kind:
                rebuild_partition(warehouse, self.bench.dataset, self.bench.ds)
            else:
                self.attempt(self.batch(), warehouse)
        except Killed:
            pass
        return mortal.dead

    def pause_worker(self, _kind: str) -> bool:
        """A worker stands still for longer than its lease; meanwhile another one works on the partition."""
        mortal, warehouse = self.mortal(at=self.random.randint(1, 9), pause=LEASE_S * 2)
        batch = self.batch()
        rebuilding = self.random.random() < 0.5

        def work() -> None:
            if not rebuilding:
                self.attempt(batch, warehouse)
                return
            try:
                rebuild_partition(warehouse, self.bench.dataset, self.bench.ds)
            except Exception as error:
                if diagnose(error) is None:
                    raise

        holder = threading.Thread(target=work, name="holder")
        holder.start()
        while holder.is_alive() and not mortal.paused.wait(0.01):
            pass
        if self.random.random() < 0.5:
            self.rebuild()
        self.deliver(self.some())
        holder.join()
        return mortal.paused.is_set()

    # Faults of the engines

    def break_clickhouse(self, kind: str) -> bool:
        name, arguments = FRONT[kind]
        return self.armed("clickhouse", name, {"sql": "*"}, self.random.randint(0, 6), arguments)

    def break_s3(self, kind: str) -> bool:
        name, arguments = S3[kind]
        match = {"method": "GET", "key": f"*ds={self.bench.ds}*"}
        return self.armed("aws", name, match, self.random.randint(0, 2), arguments)

    def armed(self, engine: str, name: str, match: dict[str, str], skip: int, arguments: dict[str, Any]) -> bool:
        faults = self.cloud.faults(engine)
        batch = self.batch()
        fault = faults.arm(name, match=match, times=self.random.choice([1, 1, 2]), skip=skip, **arguments)
        self.attempt(batch, self.bench.warehouse)
        struck = faults.struck(fault) >= 1
        faults.disarm(fault)
        return struck

    def kill_clickhouse(self, _kind: str) -> bool:
        batch = self.batch()
        worker = threading.Thread(target=self.attempt, args=(batch, self.bench.warehouse), name="worker")
        worker.start()
        time.sleep(self.random.random() * 0.1)
        at_work = worker.is_alive()
        self.cloud.kill("clickhouse")
        self.cloud.restart("clickhouse")
        worker.join()
        return at_work

    # Overwrites and rebuilds

    def overwrite_before(self, _kind: str) -> bool:
        """The older event comes when S3 holds the newer version already."""
        file = self.new_file()
        old, new = self.put(file), self.put(file)
        first, second = self.random.choice([([old], [new]), ([new], [old]), ([old, new], [new, old, old])])
        self.deliver(first)
        self.deliver(second)
        return True

    def overwrite_during(self, _kind: str) -> bool:
        """The object is overwritten while the INSERT of its older version waits in the server."""
        file = self.new_file()
        old = self.put(file)
        late = self.random.random() < 0.5  # past the ETag guard's read, or ahead of it
        faults = self.cloud.faults("aws" if late else "clickhouse")
        match = {"method": "GET", "key": old.version.key} if late else {"sql": f"*INSERT INTO {self.bench.table}*"}
        fault = faults.arm("s3.delay" if late else "clickhouse.delay", match=match, times=1, skip=int(late),
                           seconds=0.3)  # fmt: skip
        loading = threading.Thread(target=self.attempt, args=([old], self.bench.warehouse), name="loading")
        loading.start()
        while loading.is_alive() and not faults.struck(fault):
            time.sleep(0.01)
        in_time = loading.is_alive()
        new = self.put(file)
        loading.join()
        faults.disarm(fault)
        self.deliver(self.random.choice([[new], [old, new], [new, old]]))
        return in_time and faults.struck(fault) == 1

    def overwrite_after(self, _kind: str) -> bool:
        event = self.loaded()
        new = self.put(event.key.file)
        self.deliver(self.random.choice([[new], [new, event], [event, new] * 3]))
        return True

    def put_back(self, _kind: str) -> bool:
        """A, B, A: three versions, two contents."""
        file = self.new_file()
        events = [self.put(file)]
        first = self.bench.content[file]
        if self.random.random() < 0.5:
            self.deliver(events)
        events.append(self.put(file))
        if self.random.random() < 0.5:
            self.deliver(events[:])
        events.append(self.put_table(file, first))
        self.deliver(events * self.random.choice([1, 5]))
        return True

    def rebuild_during(self, _kind: str) -> bool:
        """A rebuild meets a delivery that has begun, or the other way round."""
        batch = self.batch()
        faults = self.cloud.faults("clickhouse")
        first = self.random.random() < 0.5
        sql = f"*INSERT INTO {self.bench.table}*" if first else "*ALTER TABLE*PARTITION*"
        fault = faults.arm("clickhouse.delay", match={"sql": sql}, times=1, seconds=0.3)
        deliver: Callable[[], object] = lambda: self.attempt(batch, self.bench.warehouse)  # noqa: E731
        begun, other = (deliver, self.rebuild) if first else (self.rebuild, deliver)
        thread = threading.Thread(target=begun, name="begun")
        thread.start()
        while thread.is_alive() and not faults.struck(fault):
            time.sleep(0.01)
        met = thread.is_alive()
        other()
        thread.join()
        faults.disarm(fault)
        return met and faults.struck(fault) == 1

    def rebuild_then_events(self, _kind: str) -> bool:
        batch = self.batch()
        self.rebuild()
        self.deliver(batch * self.random.choice([1, 5]))
        return True

    # Deduplication tokens

    def begun(self) -> ObjectEvent | None:
        """An object whose INSERT was executed by a worker that died before it heard of it."""
        event = self.put(self.new_file())
        mortal, warehouse = self.mortal(text=f"INSERT INTO {self.bench.table}", after=True)
        try:
            self.attempt([event], warehouse)
        except Killed:
            return event
        assert not mortal.dead
        return None

    def overrun_tokens(self, _kind: str) -> bool:
        """More blocks than the table remembers come in between an INSERT and its redelivery."""
        event = self.begun()
        if event is None:
            return False
        day, content = self.bench.ds, self.bench.content
        for number in range(WINDOW + 1):  # on another day: this one's lease is held for a moment yet
            self.bench.ds = FIRST_DAY - timedelta(days=1)
            other = self.bench.put(f"{self.seed}-{self._files}-{number}.parquet", rows(0, 2))
            told = load_objects(self.bench.warehouse, self.bench.dataset, [other], wait_s=20)
            assert isinstance(told[0], LoadResult)
        self.bench.ds, self.bench.content = day, content
        for file in [file for file in content if file.startswith(f"{self.seed}-")]:
            del content[file]
        self.deliver([event])
        return True

    def wipe_tokens(self, _kind: str) -> bool:
        """The deduplication log is gone between an INSERT and its redelivery."""
        event = self.begun()
        if event is None:
            return False
        (path,) = self.bench.warehouse.client.query(
            "SELECT data_paths FROM system.tables WHERE database = {database:String} AND name = {name:String}",
            parameters={"database": self.bench.dataset.domain, "name": self.bench.dataset.storage_name},
        ).result_rows[0]
        logs = Path(path[0]) / "deduplication_logs"
        assert any(logs.iterdir()), logs
        self.cloud.kill("clickhouse")
        shutil.rmtree(logs)
        self.cloud.restart("clickhouse")
        self.deliver([event])
        return True


FAULTS: dict[str, Callable[[History, str], bool]] = {
    "worker gone before a statement": History.kill_worker,
    "worker gone after a statement": History.kill_worker,
    "worker gone in a rebuild": History.kill_worker,
    "worker paused past its lease": History.pause_worker,
    **dict.fromkeys(FRONT, History.break_clickhouse),
    "kill -9 of ClickHouse": History.kill_clickhouse,
    **dict.fromkeys(S3, History.break_s3),
    "overwritten before its load": History.overwrite_before,
    "overwritten during its load": History.overwrite_during,
    "overwritten after its load": History.overwrite_after,
    "overwritten and put back (A, B, A)": History.put_back,
    "rebuild during a delivery": History.rebuild_during,
    "rebuild, then its queued events": History.rebuild_then_events,
    "token window overrun": History.overrun_tokens,
    "deduplication log wiped": History.wipe_tokens,
}
