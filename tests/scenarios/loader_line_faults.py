"""Faults that strike loader processes on their line: kill -9 at every step and at any moment, what SQS does, rebuilds.

What belongs here: faults of processes and queues. Does not: those at single statements of one load (loader_history.py).
"""

import time
from collections.abc import Callable, Iterable
from datetime import date, timedelta

from data_platform.catalog.keys import dlq_name
from data_platform.loading.deadletters import let_go, receive_letters, replay
from data_platform.loading.errors import diagnose
from data_platform.loading.message import ObjectEvent
from data_platform.loading.rebuild import rebuild_partition, verify_partition
from tests.scenarios.loader_line import DAYS, FIRST_DAY, VISIBILITY_S, Line
from tests.scenarios.loader_steps import KILLED, STEPS


class StruckLine(Line):
    """A line that is struck by faults, kind by kind."""

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


FAULTS: dict[str, Callable[[StruckLine, str], bool]] = {
    **{f"{KILLED}{step}": StruckLine.kill_at_step for step in STEPS},
    f"{KILLED}at any moment": StruckLine.kill_anywhere,
    "kill -9 of ClickHouse under a loader": StruckLine.kill_clickhouse,
    "SQS delivers five times": StruckLine.duplicate,
    "SQS delivers out of order": StruckLine.reorder,
    "visibility expires during the INSERT": StruckLine.expire,
    "SQS refuses to delete": StruckLine.fail_delete,
    "SQS loses the answer to a receive": StruckLine.lose_receive,
    "rebuilds while a loader delivers": StruckLine.rebuild_in_delivery,
    "rebuild, then its events from the queue": StruckLine.rebuild_then_events,
    "rebuild, then replay of its dead letters": StruckLine.rebuild_then_replay,
    "SQS refuses a dead letter": StruckLine.fail_dead_letter,
}
