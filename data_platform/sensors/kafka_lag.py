"""How far consumer groups are behind their topics -> an observation on the topic, and an alert beyond the limit."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal

import dagster as dg
from pydantic import Field

from data_platform.alerts.delivery import Delivered, deliver
from data_platform.alerts.message import NOBODY, Problem, group
from data_platform.alerts.routes import EVERYBODY_ELSE, read_routes
from data_platform.clients import kafka
from data_platform.errors import Fault, PlatformError, TransientError
from data_platform.resources.settings import SettingsResource
from data_platform.sensors.cursors import SensorCursor, read_cursor
from data_platform.settings import Settings, variable_of

NAME = "kafka_lag"
INTERVAL_S = 300
DEADLINE_S = 40.0
NOT_ASKED = "how far group %s is in topic %s was not asked, which the next tick does: the tick's time was over"
REQUEST_S = 5.0
# Kafka's own tools, which whoever runs the brokers has.
GROUPS_TOOL = "kafka-consumer-groups.sh --bootstrap-server $KAFKA_BOOTSTRAP_SERVERS"
CONFIGS_TOOL = "kafka-configs.sh --bootstrap-server $KAFKA_BOOTSTRAP_SERVERS --entity-type topics"


class Cursor(SensorCursor):
    """The groups that were alerted and have not caught up since, and how often each has caught up: told once a time.

    The count is part of the message's identity: a tick that died behind the message does not send it again, although
    the lag, and so the text, is another one by then.
    """

    v: Literal[2] = 2
    behind: list[str] = Field(default_factory=list[str])
    recovered: dict[str, int] = Field(default_factory=dict[str, int])


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
    """The group's lag. Raises PlatformError when the cluster does not answer or does not know the topic."""
    from confluent_kafka import KafkaException

    try:
        return Lag(name, topic, kafka.lag(settings, name, topic, timeout_s=REQUEST_S))
    except KafkaException as error:
        away = kafka.classify(error) is Fault.TRANSIENT
        raise (TransientError if away else PlatformError)(
            f"Kafka did not tell how far group {name} is in topic {topic}: {error.args[0]}",
            hint=f"are the brokers up, and does {variable_of('kafka_watched_groups')} name the topic rightly?",
        ) from error


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
        cursor = read_cursor(context.cursor, Cursor())
        lags: list[Lag] = []
        for name, topic in watched(settings):
            if time.monotonic() > deadline:
                context.log.warning(NOT_ASKED, name, topic)
                break
            try:
                lags.append(lag_of(settings, name, topic))
            except PlatformError as error:  # of this group; the others are asked all the same
                context.log.warning("%s", error)
        following = after_looking(cursor, lags, limit=settings.kafka_lag_limit)
        for lag in lags:
            late = lag.records > settings.kafka_lag_limit and lag.name not in following.behind
            if late and _tell(settings, lag, following.recovered.get(lag.name, 0)):
                following.behind.append(lag.name)
        return dg.SensorResult(
            asset_events=[_observation(lag) for lag in lags],
            cursor=following.model_dump_json(),
            skip_reason=dg.SkipReason(
                ", ".join(f"{lag.name}: {lag.records:,} behind" for lag in lags) or "none watched"
            ),
        )

    return tick


def after_looking(cursor: Cursor, lags: Sequence[Lag], *, limit: int) -> Cursor:
    """The cursor without the groups that have caught up; one whose lag is not known stays as it was."""
    caught_up = {lag.name for lag in lags if lag.records <= limit} & set(cursor.behind)
    recovered = {**cursor.recovered, **{name: cursor.recovered.get(name, 0) + 1 for name in caught_up}}
    return Cursor(behind=[name for name in cursor.behind if name not in caught_up], recovered=recovered)


def _observation(lag: Lag) -> dg.AssetObservation:
    return dg.AssetObservation(
        dg.AssetKey(["kafka", *lag.topic.split(".")]),
        description=f"{lag.group} is {lag.records:,} records behind",
        metadata={"group": lag.group, "lag": lag.records, "at": datetime.now(UTC).isoformat(timespec="seconds")},
    )


def problem_of(lag: Lag, limit: int) -> Problem:
    """What a person is told of a group that is behind."""
    return Problem(
        NOBODY,
        f"consumer group {lag.group}",
        f"{lag.records:,} records behind in topic {lag.topic}",
        None,
        f"{lag.records:,} records wait to be read; the limit is {limit:,} (DATA_PLATFORM_KAFKA_LAG_LIMIT).",
        f"1. See whether the consumer runs, and where: {GROUPS_TOOL} --describe --members --group {lag.group} "
        "(CLIENT-ID and HOST name it; no members: it does not run). 2. Have whoever runs it start it, or see in its "
        f"log why it is slow. Who that is, whoever put {lag.name} into DATA_PLATFORM_KAFKA_WATCHED_GROUPS knows. 3. "
        f"How long records are kept: retention.ms in {CONFIGS_TOOL} --entity-name {lag.topic} --describe --all. Nobody "
        "to be found, or too little time: the same with --alter --add-config retention.ms=MILLISECONDS instead of "
        "--describe --all, until it reads again. You are told once, and again only after it has caught up.",
        "",
        effect="Records that are not read within the topic's retention are lost to this group.",
    )


def _tell(settings: Settings, lag: Lag, recovered: int) -> bool:
    """Whether the alert went out, or nobody is to be told."""
    route = read_routes(settings).get(EVERYBODY_ELSE)
    if route is None:
        return True
    problem = problem_of(lag, settings.kafka_lag_limit)
    alerts = group([problem], env=settings.env, dagster_url=settings.dagster_url)
    about = f"{NAME} {lag.name} {recovered}"
    outcomes = [each for alert in alerts for each in deliver(settings, route, replace(alert, about=about))]
    return not outcomes or any(each.delivered is Delivered.SENT for each in outcomes)
