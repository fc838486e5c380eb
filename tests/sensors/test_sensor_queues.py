"""The loader's queues seen by Dagster, over faults of SQS and deaths of the daemon: catch-up runs and dead letters."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from data_platform.catalog.keys import dlq_name, queue_name
from data_platform.clients import aws
from data_platform.jobs.loading import catch_up_job
from data_platform.local.cloud import Cloud
from data_platform.sensors import dlq, loading
from data_platform.sensors.cursors import read_cursor
from data_platform.sensors.dlq import dead_letter_sensor
from data_platform.sensors.loading import STILL_TICKS, load_queue_sensor
from data_platform.settings import Settings
from tests.flow import dataset_entry, write_catalog
from tests.sensors.conftest import Daemon, death

pytestmark = pytest.mark.integration
TICKS = [20, pytest.param(100, marks=pytest.mark.load)]
DOMAIN = "product"
STOPPED = dg.DefaultSensorStatus.STOPPED


class Queue:
    """One of the domain's queues."""

    def __init__(self, settings: Settings, name: str) -> None:
        self.sqs: Any = aws.sqs(settings)
        self.url = self.sqs.get_queue_url(QueueName=name)["QueueUrl"]

    def send(self) -> None:
        self.sqs.send_message(QueueUrl=self.url, MessageBody="{}")

    def drain(self) -> int:
        """Take everything there is; how many that were."""
        count = 0
        while messages := self._receive():
            count += len(messages)
            for message in messages:
                self.sqs.delete_message(QueueUrl=self.url, ReceiptHandle=message["ReceiptHandle"])
        return count

    def _receive(self) -> list[dict[str, Any]]:
        answer = self.sqs.receive_message(QueueUrl=self.url, MaxNumberOfMessages=10, WaitTimeSeconds=0)
        return answer.get("Messages", [])


@pytest.fixture
def settings(cloud: Cloud, tmp_path: Path) -> Settings:
    """The cloud's settings with a catalogue of the one domain."""
    write_catalog(tmp_path, DOMAIN, [dataset_entry(DOMAIN, "planes")])
    return cloud.settings.model_copy(update={"catalog": tmp_path})


@pytest.fixture
def queue(settings: Settings) -> Iterator[Queue]:
    found = Queue(settings, queue_name(settings.env, DOMAIN))
    found.drain()
    yield found
    found.drain()


@pytest.fixture
def dead(settings: Settings) -> Iterator[Queue]:
    found = Queue(settings, dlq_name(settings.env, DOMAIN))
    found.drain()
    yield found
    found.drain()


def refuse(cloud: Cloud, chance: random.Random) -> int:
    """SQS refuses the next calls of one kind, with an answer that botocore does not repeat."""
    action = chance.choice(["GetQueueAttributes", "GetQueueUrl"])
    return cloud.faults("aws").arm("sqs.error", match={"action": action}, times=chance.randint(1, 4), status=403)


@pytest.mark.parametrize("ticks", TICKS)
def test_waiting_messages_are_loaded_once_over_faults_and_deaths(
    cloud: Cloud, settings: Settings, queue: Queue, instance: dg.DagsterInstance, chance: random.Random, ticks: int
) -> None:
    sent, struck, loaded = 0, 0, list[int]()

    def load(_: dg.RunRequest) -> bool:
        if chance.random() < 0.2:
            return False
        loaded.append(queue.drain())
        return True

    daemon = Daemon(load_queue_sensor(catch_up_job(), STOPPED), lambda: settings, instance, load)
    for _ in range(ticks):
        if chance.random() < 0.3:
            queue.send()
            sent += 1
        fault = refuse(cloud, chance) if chance.random() < 0.3 else None
        daemon.tick(dies=death(chance))
        if fault is not None:
            struck += cloud.faults("aws").struck(fault)
            cloud.faults("aws").clear()
    for _ in range(6 * STILL_TICKS):
        daemon.tick()
    assert sum(loaded) == sent, "nothing is left in the queue"
    assert all(loaded), "no run was started for messages that a run before it had taken"
    assert struck >= ticks // 10
    assert daemon.seen["whole"] < daemon.seen["ticks"]
    assert daemon.seen["failed"] == 0, "a queue that cannot be asked is passed over"


def test_a_lost_cursor_does_not_silence_the_sensor(
    settings: Settings, queue: Queue, instance: dg.DagsterInstance
) -> None:
    daemon = Daemon(
        load_queue_sensor(catch_up_job(), STOPPED), lambda: settings, instance, lambda _: bool(queue.drain())
    )
    for _ in range(2):
        queue.send()
        daemon.cursor = '{"v": 0, "something": "else"}'
        for _ in range(STILL_TICKS):
            daemon.tick()
    assert len(daemon.runs) == 2


def test_a_tick_that_runs_out_of_time_forgets_nothing(
    settings: Settings, queue: Queue, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon = Daemon(load_queue_sensor(catch_up_job(), STOPPED), lambda: settings, instance)
    queue.send()
    daemon.tick()
    before = daemon.cursor
    monkeypatch.setattr(loading, "DEADLINE_S", -1.0)
    daemon.tick()
    assert daemon.cursor == before


@pytest.mark.parametrize("ticks", TICKS)
def test_dead_letters_turn_the_check_red_and_green_over_faults_and_deaths(
    cloud: Cloud, settings: Settings, dead: Queue, instance: dg.DagsterInstance, chance: random.Random, ticks: int
) -> None:
    daemon = Daemon(dead_letter_sensor(STOPPED), lambda: settings, instance)
    letters, struck, changes = 0, 0, 0
    for _ in range(ticks):
        if chance.random() < 0.3:
            dead.send()
            letters, changes = letters + 1, changes + 1
        elif letters and chance.random() < 0.3:
            letters, changes = letters - dead.drain(), changes + 1
        fault = refuse(cloud, chance) if chance.random() < 0.3 else None
        daemon.tick(dies=death(chance))
        if fault is not None:
            struck += cloud.faults("aws").struck(fault)
            cloud.faults("aws").clear()
    daemon.tick()
    shown = daemon.events[-1]
    assert (shown.passed, shown.metadata["dead_letters"].value) == (letters == 0, letters)
    repeated = daemon.seen["died behind events"] + daemon.seen["died behind runs"]
    assert len(daemon.events) <= changes + 1 + repeated, "only changes are told, and what a death made doubtful"
    before = len(daemon.events)
    daemon.tick()
    assert len(daemon.events) == before
    assert struck >= ticks // 10
    assert daemon.seen["failed"] == 0


@pytest.mark.parametrize("cursor", ["product=1", '{"v": 1, "dead": "x"}', "{"])
def test_a_cursor_of_another_age_begins_again(cursor: str) -> None:
    assert read_cursor(cursor, dlq.Cursor()) == dlq.Cursor()
