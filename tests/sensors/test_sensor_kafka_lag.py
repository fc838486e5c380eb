"""Consumer lag: what is measured, who is told and how often, over failing brokers and webhooks and dying daemons."""

import random
import uuid
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import NewTopic

from data_platform.clients import kafka
from data_platform.errors import PlatformError
from data_platform.local.cloud import Cloud
from data_platform.sensors import kafka_lag
from data_platform.sensors.cursors import read_cursor
from data_platform.sensors.kafka_lag import Cursor, Lag, after_looking, kafka_lag_sensor, lag_of
from data_platform.settings import Settings
from tests.desk.slack import Slack, slack
from tests.desk.slack import settings_of as settings_of_alerts
from tests.sensors.conftest import Daemon, death

__all__ = ["slack"]  # the fixture
LIMIT = 3
STOPPED = dg.DefaultSensorStatus.STOPPED
COMMITTED, DENIED = {"api": "OffsetFetch"}, "GROUP_AUTHORIZATION_FAILED"


class Group:
    """A topic of its own and a consumer group that is moved by hand."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.name = self.topic = f"lag-{uuid.uuid4().hex[:8]}"
        admin = kafka.admin(settings)
        admin.create_topics([NewTopic(self.topic, 1)])[self.topic].result(10)
        self.end = self.behind = 0
        self.producer = kafka.producer(settings)

    def produce(self, records: int) -> None:
        for _ in range(records):
            self.producer.produce(self.topic, "x")
        assert self.producer.flush(20) == 0
        self.end += records
        self.behind += records

    def catch_up(self) -> None:
        member = kafka.consumer(self.settings, self.name)
        try:
            member.commit(offsets=[TopicPartition(self.topic, 0, self.end)], asynchronous=False)
        finally:
            member.close()
        self.behind = 0

    @property
    def watched(self) -> str:
        return f"{self.name}:{self.topic}"


@pytest.fixture
def group(cloud: Cloud) -> Group:
    return Group(cloud.settings)


def settings_of(cloud: Cloud, home: Path, slack: Slack, *watched: str) -> Settings:
    alerts = settings_of_alerts(home, slack, alert_per_minute=60)
    told = {name: getattr(alerts, name) for name in ("home", "env", "alert_routes", "alert_per_minute")}
    kafka_part = {"kafka_watched_groups": ",".join(watched), "kafka_lag_limit": LIMIT}
    return cloud.settings.model_copy(update={**told, **kafka_part})


@pytest.mark.integration
def test_lag_is_counted_from_the_committed_position_and_from_the_start_without_one(group: Group) -> None:
    group.produce(5)
    assert lag_of(group.settings, group.name, group.topic).records == 5
    group.catch_up()
    group.produce(2)
    assert lag_of(group.settings, group.name, group.topic).records == 2


@pytest.mark.integration
def test_a_group_that_cannot_be_asked_is_named_and_hides_no_other(
    cloud: Cloud, group: Group, slack: Slack, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    group.produce(LIMIT + 1)
    settings = settings_of(cloud, tmp_path, slack, "g:t", group.watched)
    with pytest.raises(PlatformError, match="group g is in topic t") as caught:
        lag_of(settings, "g", "t")
    assert "DATA_PLATFORM_KAFKA_WATCHED_GROUPS" in str(caught.value)
    daemon = Daemon(kafka_lag_sensor(STOPPED), lambda: settings, instance)
    assert daemon.tick()
    assert [event.metadata["lag"].value for event in daemon.events] == [LIMIT + 1]
    assert len(slack.texts) == 1


@pytest.mark.integration
@pytest.mark.parametrize("ticks", [12, pytest.param(100, marks=pytest.mark.load)])
def test_each_time_a_group_falls_behind_is_told_once_over_faults_and_deaths(
    cloud: Cloud,
    group: Group,
    slack: Slack,
    instance: dg.DagsterInstance,
    tmp_path: Path,
    chance: random.Random,
    ticks: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kafka_lag, "REQUEST_S", 1.0)
    settings = settings_of(cloud, tmp_path, slack, group.watched)
    daemon = Daemon(kafka_lag_sensor(STOPPED), lambda: settings, instance)
    faults, struck, refused, episodes = cloud.faults("kafka"), 0, 0, 0

    def answer() -> int:
        nonlocal refused
        bad = chance.random() < 0.3
        refused += bad
        return 503 if bad else 200

    slack.answer = answer
    for _ in range(ticks):
        if group.behind <= LIMIT and chance.random() < 0.5:
            group.produce(LIMIT + chance.randint(1, 3))
            episodes += 1
        elif group.behind > LIMIT and chance.random() < 0.3:
            settle(daemon, group, slack, episodes)
            group.catch_up()
            settle(daemon, group, slack, episodes)
        elif group.behind > LIMIT:
            group.produce(1)  # the text of the message is another one at each tick
        outage = chance.choice(["kafka.error", "kafka.broker_down"]) if chance.random() < 0.25 else None
        if outage == "kafka.error":
            faults.arm(outage, match=COMMITTED, times=None, code=DENIED)
        elif outage is not None:
            faults.arm(outage, times=None)
        daemon.tick(dies=death(chance))
        struck += sum(int(rule["struck"]) for rule in faults.rules())
        faults.clear()
    settle(daemon, group, slack, episodes)
    assert len(slack.texts) == episodes
    assert struck > 0
    assert daemon.seen["whole"] < daemon.seen["ticks"]
    assert daemon.seen["failed"] == 0
    assert refused or ticks < 50


def settle(daemon: Daemon, group: Group, slack: Slack, episodes: int) -> None:
    """Ticks until the sensor has seen what there is, at least one of them whole."""
    for _ in range(30):
        if daemon.tick():
            behind = group.watched in read_cursor(daemon.cursor, Cursor()).behind
            if behind == (group.behind > LIMIT) and len(slack.texts) == episodes:
                return
    raise AssertionError(f"{len(slack.texts)} messages after {episodes} times behind: {slack.texts}")


@pytest.mark.unit
def test_a_group_whose_lag_is_not_known_stays_told() -> None:
    cursor = Cursor(behind=["a:t", "b:t", "c:t"], recovered={"b:t": 1})
    following = after_looking(cursor, [Lag("a", "t", 9), Lag("b", "t", 0)], limit=5)
    assert following.behind == ["a:t", "c:t"]
    assert following.recovered == {"b:t": 2}


@pytest.mark.unit
@pytest.mark.parametrize("text", [None, "", "{", '{"v": 1, "told": []}'])
def test_a_cursor_that_cannot_be_read_begins_again(text: Any) -> None:
    assert read_cursor(text, Cursor()) == Cursor()
