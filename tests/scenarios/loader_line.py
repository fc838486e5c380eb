"""Real loader processes on a queue of their own, and the faults that strike them: kill -9 at every step, what SQS does.

What belongs here: `data-platform loader` as an operating system process, real events, real dead letters. Does not:
faults at single statements of one load (loader_history.py).
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any, Self

import psutil

from data_platform.catalog.keys import dlq_name, queue_name
from data_platform.clients import aws
from data_platform.loading.deadletters import Held, drop, let_go, receive_letters, replay
from data_platform.loading.errors import diagnose
from data_platform.loading.message import ObjectEvent
from data_platform.loading.rebuild import rebuild_partition, verify_partition
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
TAKE, FREE = (f"*INSERT INTO platform.locks*'{kind}'*" for kind in ("take", "free"))
OBJECTS, PARTITIONS = (f"*INSERT INTO platform.{name}*" for name in ("objects", "partitions"))


@dataclass(frozen=True)
class Step:
    """Where a loader is killed: in front of a call (it hangs) or behind it (executed, never answered)."""

    engine: str
    fault: str
    match: dict[str, str]
    args: dict[str, Any] = field(default_factory=dict[str, Any])
    skip: int = 0
    overwrites: bool = False
    fresh: bool = False  # a loader that has met no partition yet


def _clickhouse(sql: str, *, after: bool = False, skip: int = 0, overwrites: bool = False, fresh: bool = False) -> Step:
    fault, args = ("clickhouse.drop_after", {}) if after else ("clickhouse.delay", {"seconds": 1.5})
    return Step("clickhouse", fault, {"sql": sql}, args, skip, overwrites, fresh)


def _sqs(action: str, *, after: bool = False) -> Step:
    return Step("aws", "sqs.delay", {"action": action}, {"seconds": 1.5, "when": "after" if after else "before"})


# {domain} is the line's own. A delayed statement is executed once its time is up, long after its sender died.
STEPS: dict[str, Step] = {
    "taking the lease": _clickhouse(TAKE),
    # The first take of a loader that is new to a partition guesses that nobody ever had it, and is wrong here.
    "the lease taken": _clickhouse(TAKE, after=True, skip=1, fresh=True),
    "looking up": _clickhouse("*FROM platform.objects*"),
    "reading the footer": Step("aws", "s3.delay", {"method": "GET", "key": "{domain}/*"}, {"seconds": 1.5}),
    "writing the intent": _clickhouse(OBJECTS),
    "the intent written": _clickhouse(OBJECTS, after=True),
    "inserting": _clickhouse("*INSERT INTO `{domain}`*"),
    "the object being read": Step("aws", "s3.stall", {"method": "GET", "key": "{domain}/*"}, {"seconds": 1.5}, 1),
    "inserted": _clickhouse("*INSERT INTO `{domain}`*", after=True),
    "proving": _clickhouse("*SELECT _object, count()*FROM `{domain}`*"),
    "writing down": _clickhouse(OBJECTS, skip=1),
    "written down": _clickhouse(OBJECTS, after=True, skip=1),
    "freeing the lease": _clickhouse(FREE),
    "deleting the message": _sqs("DeleteMessageBatch"),
    "the message deleted": _sqs("DeleteMessageBatch", after=True),
    "staging an overwrite": _clickhouse("*INSERT INTO `{domain}`.*staging*", overwrites=True),
    "announcing a swap": _clickhouse(PARTITIONS, overwrites=True),
    "swapping": _clickhouse("*REPLACE PARTITION*", overwrites=True),
    "swapped": _clickhouse("*REPLACE PARTITION*", after=True, overwrites=True),
    "writing down a swap": _clickhouse(PARTITIONS, skip=1, overwrites=True),
}


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

    def chapter(self, kinds: Iterable[str]) -> None:
        """New days; one fault of each kind; all is delivered and compared at the end."""
        kinds = list(kinds)
        self._chapters += 1
        self.drop_letters()
        first = FIRST_DAY + timedelta(days=(self.seed % 300) * 60 + self._chapters * DAYS)
        self.days = [first + timedelta(days=number) for number in range(DAYS)]
        self.bench.content = {}
        for day in self.days:
            self.base[day] = self.put(day=day).key.file
        self.settle(kinds)
        for kind in kinds:
            self.strike(kind)
        self.settle(kinds)

    def strike(self, kind: str) -> None:
        for _ in range(8):
            if FAULTS[kind](self, kind):
                self.struck[kind] += 1
                return
        raise AssertionError(f"{kind} never struck, seed {self.seed}\n{self.logs()}")

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

    # kill -9 of the loader

    def kill_at_step(self, kind: str) -> bool:
        step = STEPS[kind.removeprefix(KILLED)]
        if step.fresh:
            self.only(0)
        (loader,) = self.only(1)
        faults = self.flow.cloud.faults(step.engine)
        match = {name: pattern.format(domain=self.flow.domain) for name, pattern in step.match.items()}
        fault = faults.arm(step.fault, match=match, times=1, skip=step.skip, **step.args)
        for _ in range(2):
            (self.overwrite if step.overwrites else self.put)()
        self.wait(lambda: faults.struck(fault) == 1, kind)
        self.kill(loader)
        self.start()
        return True

    def kill_anywhere(self, _kind: str) -> bool:
        (loader,) = self.only(1)
        for _ in range(3):
            self.random.choice([self.put, self.overwrite])()
        time.sleep(self.random.random() * 0.5)
        self.kill(loader)
        at_work = self.depth() > 0
        self.start()
        return at_work

    def kill_clickhouse(self, _kind: str) -> bool:
        (loader,) = self.only(1)
        # One that starts while ClickHouse is away ends with an error, for its supervisor to start it again.
        self.wait(lambda: f"loading {self.flow.domain}" in self.loaders[loader].read_text(), "start")
        for _ in range(3):
            self.random.choice([self.put, self.overwrite])()
        time.sleep(self.random.random() * 0.3)
        at_work = self.depth() > 0
        self.flow.cloud.kill("clickhouse")
        self.flow.cloud.restart("clickhouse")
        return at_work

    # What SQS does

    def duplicate(self, _kind: str) -> bool:
        faults = self.flow.cloud.faults("aws")
        fault = faults.arm("sqs.duplicate", match={"queue": self.queue}, times=1, copies=4,
                           after=self.random.choice([0, 0.5, 2.5]))  # fmt: skip
        self.random.choice([self.put, self.overwrite])()
        self.wait(lambda: faults.struck(fault) == 1, "duplicate")
        return True

    def reorder(self, _kind: str) -> bool:
        """The event of an older version comes after that of a newer one."""
        faults = self.flow.cloud.faults("aws")
        fault = faults.arm("sqs.reorder", match={"queue": self.queue}, times=1, seconds=self.random.choice([0.3, 1]))
        old = self.random.choice([self.put, self.overwrite])()
        self.wait(lambda: faults.struck(fault) == 1, "reorder")
        self.put(old.key.file, day=old.key.ds)
        return True

    def expire(self, _kind: str) -> bool:
        """The message of an object comes back while its INSERT still hangs, and another loader takes it."""
        # A day of its own: whoever else reports its object has got the one message a second time.
        day = self.days[0] + timedelta(days=25_000 + self._files)
        content, known = self.bench.content, set(self.bench.content)
        self.only(2)
        clickhouse, sqs = self.flow.cloud.faults("clickhouse"), self.flow.cloud.faults("aws")
        insert = clickhouse.arm("clickhouse.delay", match={"sql": f"*INSERT INTO `{self.flow.domain}`*{day}*"}, times=1,
                                seconds=VISIBILITY_S * 2.0)  # fmt: skip
        held = sqs.arm("sqs.error", match={"action": "ChangeMessageVisibilityBatch"}, times=None, status=503)
        event = self.put(day=day)
        self.wait(lambda: clickhouse.struck(insert) == 1 and sqs.struck(held) >= 1, "visibility expiry")
        time.sleep(VISIBILITY_S)
        sqs.disarm(held)
        self.wait(lambda: self.told(event) >= 2, "redelivery after the visibility expired")
        verify_partition(self.bench.warehouse, self.bench.dataset, day)
        (count,) = self.bench.warehouse.client.query(
            f"SELECT count() FROM {self.bench.table} WHERE _ds = {{ds:Date}}", parameters={"ds": day}
        ).result_rows[0]
        assert count == content[event.key.file].num_rows
        for file in set(content) - known:
            del content[file]
        return True

    def told(self, event: ObjectEvent) -> int:
        """How often living loaders have reported the object's end."""
        return sum(log.read_text().count(f"{event.key.file}: ") for log in self.loaders.values())

    def fail_delete(self, _kind: str) -> bool:
        """All tries of one acknowledgement fail, some of them although they were executed."""
        faults = self.flow.cloud.faults("aws")
        fault = faults.arm("sqs.error", match={"action": "DeleteMessageBatch"}, times=9, status=503,
                           when=self.random.choice(["before", "after"]))  # fmt: skip
        self.put()
        self.wait(lambda: faults.struck(fault) >= 3, "failed delete")
        return True

    def lose_receive(self, _kind: str) -> bool:
        """SQS has handed messages out, the answer never arrives: they are in flight and nobody has them."""
        self.only(0)
        self.put()
        self.wait_alone(lambda: self.depth() > 0)
        faults = self.flow.cloud.faults("aws")
        fault = faults.arm("sqs.reset", match={"action": "ReceiveMessage", "queue": self.queue}, times=1, when="after")
        self.start()
        self.wait(lambda: faults.struck(fault) == 1, "lost receive")
        return True

    # Rebuilds and dead letters

    def rebuild(self, day: date) -> None:
        for _ in range(30):
            try:
                rebuild_partition(self.bench.warehouse, self.bench.dataset, day)
            except Exception as error:
                if diagnose(error) is None:
                    raise
                time.sleep(0.05)
                continue
            return
        raise AssertionError(f"no rebuild succeeded\n{self.logs()}")

    def rebuild_in_delivery(self, _kind: str) -> bool:
        self.only(1)
        events = [self.put(), self.put(), self.overwrite()]
        for event in events:
            self.rebuild(event.key.ds)
        return True

    def rebuild_then_events(self, _kind: str) -> bool:
        """The events wait until a rebuild has brought their objects."""
        self.only(0)
        event = self.random.choice([self.put, self.overwrite])()
        self.wait_alone(lambda: self.depth() > 0)
        self.rebuild(event.key.ds)
        assert self.depth() > 0
        self.start()
        return True

    def rebuild_then_replay(self, _kind: str) -> bool:
        """A poisoned object dies, is put right, comes in by a rebuild; then its letter is replayed."""
        self.only(1)
        poison = self.put_poison()
        self.wait(lambda: poison.version.key in {held.letter.key for held in self.letters()}, "dead letter")
        self.put(poison.key.file, day=poison.key.ds)
        self.rebuild(poison.key.ds)
        held = list(receive_letters(self.sqs, self.flow.settings, [self.flow.domain]))
        mine = [each for each in held if each.letter.key == poison.version.key]
        let_go(self.sqs, self.flow.settings, [each for each in held if each not in mine])
        assert mine
        replay(self.sqs, self.flow.settings, mine)
        self.poison.discard(poison.version.key)
        return True

    def fail_dead_letter(self, _kind: str) -> bool:
        """The dead-letter queue refuses the letter; it is sent when the message comes back."""
        faults = self.flow.cloud.faults("aws")
        dead = dlq_name(self.flow.settings.env, self.flow.domain)
        fault = faults.arm("sqs.error", match={"action": "SendMessage", "queue": dead}, times=9, status=503)
        if self.random.random() < 0.5:
            self.put_poison()
        else:
            self.sqs.send_message(QueueUrl=self.url, MessageBody="{")
            self.poison.add("")  # such a letter has no key
        self.wait(lambda: faults.struck(fault) == 9, "refused dead letter")
        return True

    def drop_letters(self) -> None:
        drop(self.sqs, self.flow.settings, list(receive_letters(self.sqs, self.flow.settings, [self.flow.domain])))
        self.poison.clear()

    def wait_alone(self, condition: Callable[[], bool]) -> None:
        """Wait while no loader runs."""
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.03)


KILLED = "kill -9 of the loader: "
FAULTS: dict[str, Callable[[Line, str], bool]] = {
    **{f"{KILLED}{step}": Line.kill_at_step for step in STEPS},
    f"{KILLED}at any moment": Line.kill_anywhere,
    "kill -9 of ClickHouse under a loader": Line.kill_clickhouse,
    "SQS delivers five times": Line.duplicate,
    "SQS delivers out of order": Line.reorder,
    "visibility expires during the INSERT": Line.expire,
    "SQS refuses to delete": Line.fail_delete,
    "SQS loses the answer to a receive": Line.lose_receive,
    "rebuilds while a loader delivers": Line.rebuild_in_delivery,
    "rebuild, then its events from the queue": Line.rebuild_then_events,
    "rebuild, then replay of its dead letters": Line.rebuild_then_replay,
    "SQS refuses a dead letter": Line.fail_dead_letter,
}
