"""How far consumer groups are behind their topics -> an observation on the topic, and an alert beyond the limit."""

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import dagster as dg
from pydantic import BaseModel, ConfigDict, ValidationError

from data_platform.alerts.delivery import Delivered, deliver
from data_platform.alerts.message import Problem, group
from data_platform.alerts.routes import EVERYBODY_ELSE, read_routes
from data_platform.clients import kafka
from data_platform.resources.settings import SettingsResource
from data_platform.settings import Settings

NAME = "kafka_lag"
INTERVAL_S = 300
DEADLINE_S = 40.0
REQUEST_S = 5.0


class Cursor(BaseModel):
    """The groups that were alerted and have not caught up since: each is told once."""

    model_config = ConfigDict(extra="forbid")

    v: int = 1
    behind: list[str] = []


@dataclass(frozen=True)
class Lag:
    """Records of `topic` that `group` has not committed yet, over all partitions."""

    group: str
    topic: str
    records: int

    @property
    def name(self) -> str:
        """`group:topic`, as the settings name it."""
        return f"{self.group}:{self.topic}"


def watched(settings: Settings) -> list[tuple[str, str]]:
    """The (group, topic) pairs in the settings."""
    pairs = [pair.partition(":") for pair in settings.kafka_watched_groups.split(",") if pair]
    return [(name, topic) for name, _, topic in pairs]


def lag_of(settings: Settings, name: str, topic: str) -> Lag:
    """The group's lag. Raises KafkaException when the cluster does not answer or does not know the topic."""
    from confluent_kafka import KafkaException, TopicPartition

    member = kafka.consumer(settings, name)
    try:
        found = member.list_topics(topic, timeout=REQUEST_S).topics[topic]
        if found.error is not None:
            raise KafkaException(found.error)
        partitions = [TopicPartition(topic, number) for number in found.partitions]
        behind = 0
        for committed in member.committed(partitions, timeout=REQUEST_S):
            low, high = member.get_watermark_offsets(committed, timeout=REQUEST_S)
            # A group that never committed, or whose position was deleted, begins at the earliest record.
            behind += high - max(low, committed.offset)
        return Lag(name, topic, behind)
    finally:
        member.close()


def kafka_lag_sensor(status: dg.DefaultSensorStatus) -> dg.SensorDefinition:
    """The sensor over the groups in the settings."""

    @dg.sensor(
        name=NAME,
        minimum_interval_seconds=INTERVAL_S,
        default_status=status,
        description="Watches how far consumer groups are behind their topics (DATA_PLATFORM_KAFKA_WATCHED_GROUPS).",
    )
    def tick(context: dg.SensorEvaluationContext, platform: SettingsResource) -> Any:
        deadline = time.monotonic() + DEADLINE_S
        settings = platform.load()
        cursor = read_cursor(context.cursor)
        lags: list[Lag] = []
        for name, topic in watched(settings):
            if time.monotonic() > deadline:
                context.log.warning("the tick's time is over; %s:%s was not asked", name, topic)
                break
            lags.append(lag_of(settings, name, topic))
        behind = {lag.name: lag for lag in lags if lag.records > settings.kafka_lag_limit}
        told = [name for name in cursor.behind if name in behind]
        for name, lag in behind.items():
            if name not in told and _tell(settings, lag):
                told.append(name)
        return dg.SensorResult(
            asset_events=[_observation(lag) for lag in lags],
            cursor=Cursor(behind=told).model_dump_json(),
            skip_reason=dg.SkipReason(
                ", ".join(f"{lag.name}: {lag.records:,} behind" for lag in lags) or "none watched"
            ),
        )

    return tick


def read_cursor(text: str | None) -> Cursor:
    """The cursor; one that cannot be read begins again."""
    try:
        return Cursor.model_validate_json(text or "{}")
    except ValidationError:
        return Cursor()


def _observation(lag: Lag) -> dg.AssetObservation:
    return dg.AssetObservation(
        dg.AssetKey(["kafka", *lag.topic.split(".")]),
        description=f"{lag.group} is {lag.records:,} records behind",
        metadata={"group": lag.group, "lag": lag.records, "at": datetime.now(UTC).isoformat(timespec="seconds")},
    )


def _tell(settings: Settings, lag: Lag) -> bool:
    """Whether the alert went out, or nobody is to be told."""
    route = read_routes(settings).get(EVERYBODY_ELSE)
    if route is None:
        return True
    problem = Problem(
        "everybody",
        f"consumer group {lag.group}",
        f"{lag.records:,} records behind topic {lag.topic}",
        None,
        f"{lag.records:,} records of {lag.topic} wait; the limit is {settings.kafka_lag_limit:,}.",
        "See whether the group's consumer runs and what its log says; records are kept for the topic's retention only.",
        NAME,
    )
    alerts = group([problem], env=settings.env, dagster_url=settings.dagster_url)
    outcomes = [each for alert in alerts for each in deliver(settings, route, alert)]
    return not outcomes or any(each.delivered is Delivered.SENT for each in outcomes)
