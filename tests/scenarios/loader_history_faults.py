"""Faults that strike at a statement of a load in a random history: of its process, of S3 and ClickHouse, of its tokens.

What belongs here: faults below the queue. Does not: loader processes and queues (loader_line_faults.py), how many
faults and what is reported (test_loader_matrix.py).
"""

import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from data_platform.loading.errors import diagnose
from data_platform.loading.loader import LoadResult, load_objects
from data_platform.loading.lock import PartitionLocks
from data_platform.loading.message import ObjectEvent
from data_platform.loading.rebuild import rebuild_partition, verify_partition
from data_platform.loading.register import Register
from data_platform.loading.warehouse import Warehouse
from tests.loading.conftest import rows
from tests.scenarios.loader_history import FIRST_DAY, LEASE_S, WINDOW, History
from tests.scenarios.loader_mortal import Killed, Mortal

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


class StruckHistory(History):
    """A history that is struck by faults, kind by kind."""

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


FAULTS: dict[str, Callable[[StruckHistory, str], bool]] = {
    "worker gone before a statement": StruckHistory.kill_worker,
    "worker gone after a statement": StruckHistory.kill_worker,
    "worker gone in a rebuild": StruckHistory.kill_worker,
    "worker paused past its lease": StruckHistory.pause_worker,
    **dict.fromkeys(FRONT, StruckHistory.break_clickhouse),
    "kill -9 of ClickHouse": StruckHistory.kill_clickhouse,
    **dict.fromkeys(S3, StruckHistory.break_s3),
    "overwritten before its load": StruckHistory.overwrite_before,
    "overwritten during its load": StruckHistory.overwrite_during,
    "overwritten after its load": StruckHistory.overwrite_after,
    "overwritten and put back (A, B, A)": StruckHistory.put_back,
    "rebuild during a delivery": StruckHistory.rebuild_during,
    "rebuild, then its queued events": StruckHistory.rebuild_then_events,
    "token window overrun": StruckHistory.overrun_tokens,
    "deduplication log wiped": StruckHistory.wipe_tokens,
}
