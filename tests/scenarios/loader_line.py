"""Real loader processes on a queue of their own: `data-platform loader`, real events, real dead letters.

What belongs here: starting, ending and watching them. Does not: what strikes them (loader_line_faults.py).
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Self

import psutil

from data_platform.catalog.keys import queue_name
from data_platform.clients import aws
from data_platform.loading.deadletters import Held, drop, let_go, receive_letters
from data_platform.loading.message import ObjectEvent
from data_platform.loading.rebuild import verify_partition
from data_platform.loading.warehouse import open_warehouse
from data_platform.local.cloud import Cloud
from tests.flow import Flow, open_flow
from tests.loading.conftest import Bench, rows

FIRST_DAY = date(2001, 1, 1)
VISIBILITY_S = 2
LEASE_S = 1.0
PATIENCE_S = 120.0  # for what takes a second on a machine that does nothing else
NURSERY = Path(__file__).with_name("loader_nursery.py")
DAYS = 3  # partitions of a chapter


class Nursery:
    """The process that forks loaders (loader_nursery.py)."""

    def __init__(self, env: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(NURSERY)],
            env=env | {"PYTHONPATH": os.pathsep.join(sys.path)},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._ready = False

    def start(self, log: Path, *arguments: str) -> int:
        """Start `data-platform ARGUMENTS`; returns its process id."""
        return int(self._ask("start", str(log), *arguments))

    def end(self, pid: int, how: signal.Signals) -> int:
        """Send a signal and wait for the end; returns the exit code, minus the signal's number for a kill."""
        os.kill(pid, how)
        return int(self._ask("end", str(pid)))

    def close(self) -> None:
        """End it and whatever it started."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()

    def _ask(self, *words: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        if not self._ready:
            assert self._process.stdout.readline() == "ready\n"
            self._ready = True
        self._process.stdin.write("\t".join(words) + "\n")
        self._process.stdin.flush()
        return self._process.stdout.readline()


@dataclass
class Line:
    """A domain with one table, its queue, its loaders, and what the table must hold in the end."""

    flow: Flow
    nursery: Nursery
    bench: Bench
    folder: Path
    seed: int
    struck: Counter[str] = field(default_factory=Counter[str])
    loaders: dict[int, Path] = field(default_factory=dict[int, Path])
    poison: set[str] = field(default_factory=set[str])

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.sqs = aws.sqs(self.flow.settings)
        self.queue = queue_name(self.flow.settings.env, self.flow.domain)
        self.url = self.sqs.get_queue_url(QueueName=self.queue)["QueueUrl"]
        self.sqs.set_queue_attributes(QueueUrl=self.url, Attributes={"VisibilityTimeout": str(VISIBILITY_S)})
        self._chapters = self._start = self._files = self._logs = 0
        self.days: list[date] = []
        self.base: dict[date, str] = {}

    @classmethod
    @contextmanager
    def open(cls, cloud: Cloud, folder: Path, seed: int) -> Generator[Self]:
        """A line; its loaders are ended."""
        columns = [{"name": "id", "type": "Int64"}, {"name": "name", "type": "String", "nullable": True}]
        entry = {"name": "ticks", "columns": columns, "start": FIRST_DAY, "end": date(2140, 12, 31)}
        with open_flow(cloud, folder / "catalog", entry) as flow:
            settings = flow.settings.model_copy(update={"loader_lease_s": LEASE_S})
            own = {"DATA_PLATFORM_LOADER_LEASE_S": str(LEASE_S), "DATA_PLATFORM_LOADER_METRICS_PORT": "0"}
            nursery = Nursery({**cloud.process_env, **flow.env, **own})
            warehouse = open_warehouse(settings)
            line = cls(flow, nursery, Bench(settings, flow["ticks"], warehouse), folder, seed)
            try:
                yield line
            finally:
                for pid in list(line.loaders):
                    line.kill(pid)
                nursery.close()
                warehouse.client.close()

    # Producers

    def put(self, file: str | None = None, *, day: date | None = None, count: int | None = None) -> ObjectEvent:
        """New content under a key; S3 tells the queue."""
        count = count or self.random.choice([80, 120, 700])  # an object of 1,024 bytes or less raises no event
        self.bench.ds = day or self.random.choice(self.days)
        self._files += 1
        table = rows(self._start, count, tag=str(self.seed))
        self._start += count
        return self.bench.put(file or f"o{self._files:05}.parquet", table)

    def overwrite(self) -> ObjectEvent:
        """New content in the place of an object that was loaded."""
        day = self.random.choice(self.days)
        return self.put(self.base[day], day=day)

    def put_poison(self) -> ObjectEvent:
        self.bench.ds = self.random.choice(self.days)
        self._files += 1
        file = f"p{self._files:05}.parquet"
        event = self.bench.put(file, body=b"PAR1" + self.random.randbytes(2000) + b"PAR1")
        self.poison.add(event.version.key)
        return event

    # Loaders

    def start(self) -> int:
        self._logs += 1
        log = self.folder / f"loader-{self._logs}.log"
        log.touch()
        pid = self.nursery.start(log, "loader", "--no-report", "--domain", self.flow.domain, "--workers", "4")
        self.loaders[pid] = log
        return pid

    def kill(self, pid: int) -> None:
        """kill -9, which must have met a living process."""
        code = self.nursery.end(pid, signal.SIGKILL)
        log = self.loaders.pop(pid)
        assert code == -signal.SIGKILL, f"a loader had ended by itself: {code}\n{log.read_text()[-3000:]}"

    def only(self, count: int) -> list[int]:
        """So many loaders, others killed."""
        while len(self.loaders) > count:
            self.kill(next(iter(self.loaders)))
        while len(self.loaders) < count:
            self.start()
        for pid, log in self.loaders.items():
            assert psutil.Process(pid).status() != psutil.STATUS_ZOMBIE, log.read_text()[-3000:]
        return list(self.loaders)

    def logs(self) -> str:
        return "\n".join(f"{log.name}: {log.read_text()[-2500:]}" for log in self.loaders.values())

    # Seeing

    def depth(self) -> int:
        """Messages waiting and in flight."""
        names = ("ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible",
                 "ApproximateNumberOfMessagesDelayed")  # fmt: skip
        told = self.sqs.get_queue_attributes(QueueUrl=self.url, AttributeNames=list(names))["Attributes"]
        return sum(int(told[name]) for name in names)

    def found(self) -> tuple[int, ...]:
        row = self.bench.warehouse.client.query(
            "SELECT count(), uniqExact(id), sum(cityHash64(toString((id, name)))) "
            f"FROM {self.bench.table} WHERE _ds IN {{days:Array(Date)}}",
            parameters={"days": self.days},
        ).result_rows[0]
        return tuple(int(value or 0) for value in row)

    def settle(self, kinds: list[str]) -> None:
        """Everything is delivered: the queue is empty, the table is the files' own content, only poison is dead."""
        wanted = self.bench.expected()
        self.only(max(1, len(self.loaders)))
        self.wait(lambda: self.depth() == 0 and self.found() == wanted, f"{kinds}, seed {self.seed}")
        for day in self.days:
            verify_partition(self.bench.warehouse, self.bench.dataset, day)
        assert {held.letter.key for held in self.letters()} == self.poison, f"{kinds}, seed {self.seed}"

    def letters(self) -> list[Held]:
        held = list(receive_letters(self.sqs, self.flow.settings, [self.flow.domain]))
        let_go(self.sqs, self.flow.settings, held)
        return held

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            if time.monotonic() > deadline:
                state = f"found {self.found()}, expected {self.bench.expected()}, {self.depth()} messages"
                raise AssertionError(f"{what}: {state}\n{self.logs()}")
            self.only(max(1, len(self.loaders)))
            time.sleep(0.03)

    def wait_alone(self, condition: Callable[[], bool]) -> None:
        """Wait while no loader runs."""
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.03)

    def drop_letters(self) -> None:
        drop(self.sqs, self.flow.settings, list(receive_letters(self.sqs, self.flow.settings, [self.flow.domain])))
        self.poison.clear()
