"""The CloudWatch alarms of the unload API: on what its processes tell once a minute, and on its dead letters."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from data_platform.provisioning.alarms import put_alarms
from data_platform.provisioning.report import Recorder
from data_platform.settings import Settings
from data_platform.unload.metrics import NAMESPACE

if TYPE_CHECKING:
    from mypy_boto3_cloudwatch import CloudWatchClient

PERIOD_S = 60
FAILED_IN_5_MINUTES = 5  # callers' own mistakes fail as well: one of them is no alarm
PENDING_S = 900
OUTBOX_S = 300
# An attempt may take its whole time, and a retry begin it anew.
RUNNING_MARGIN_S = 600


@dataclass(frozen=True)
class UnloadAlarm:
    """A metric of the service beyond `threshold` in all of `periods` periods of `period_s` seconds."""

    name: str
    metric: str
    statistic: str
    threshold: float
    periods: int
    sentence: str
    period_s: int = PERIOD_S
    silence: str = "missing"


def unload_alarms(settings: Settings) -> tuple[UnloadAlarm, ...]:
    """The alarms; those on durations follow the longest query the settings allow."""
    longest = settings.unload_max_seconds
    return (
        UnloadAlarm(
            *("UnloadFailed", "FailedRequests", "Sum", FAILED_IN_5_MINUTES, 1),
            sentence="P1: more than 5 unload requests FAILED within 5 minutes; their callers have been told. One "
            "cause for all? Dagster, Catalog, unload/requests, tab Events: each with its caller and error. Wrong "
            "statements of one caller: tell that caller, nothing else. Redshift or S3 away: data-platform doctor; "
            "once it is put right, data-platform unload retry ID for each",
            period_s=300,
            silence="notBreaching",
        ),
        UnloadAlarm(
            *("UnloadOldestRunning", "OldestRunning", "Maximum", longest + RUNNING_MARGIN_S, 5),
            sentence="P0: an unload request runs for longer than a query may: its end is not written down. The "
            "reconciler in a process of the API does that within a minute. Does one run? If not, start one: "
            "data-platform api. If one does, its log says what it waits for; data-platform doctor says whether "
            "Redshift answers",
        ),
        UnloadAlarm(
            *("UnloadOldestPending", "OldestPending", "Maximum", PENDING_S, 5),
            sentence="P1: an unload request waits for more than 15 minutes: no worker is free. Start another "
            "process of the API, or one with more workers: data-platform api --workers N. Nothing is lost",
        ),
        UnloadAlarm(
            *("UnloadOutboxAge", "OutboxAge", "Maximum", OUTBOX_S, 5),
            sentence="P1: an unload request's event has not been published for more than 5 minutes; who waits for "
            "it on Kafka waits on, nothing is lost. Are the brokers up: data-platform doctor. If they are, restart "
            "the API's process: data-platform api",
        ),
        UnloadAlarm(
            *("UnloadListenerLag", "ListenerLag", "Maximum", settings.kafka_lag_limit, 5),
            sentence="P1: requests that came by Kafka wait to be read. Is a process of the API up (data-platform "
            "api), and does its log say why the listener stands still? Requests older than the topic's retention "
            "are lost",
        ),
        UnloadAlarm(
            *("UnloadDurationHigh", "UnloadDuration", "Maximum", longest / 2, 1),
            sentence="P2: an unload request took more than half of the time a query may take; the next one may be "
            "stopped. Which: Dagster, Catalog, unload/requests, tab Events. Is its statement slow, or Redshift's "
            "queue full? Nothing to do at once",
            silence="notBreaching",
        ),
    )


def provision_unload_alarms(cloudwatch: "CloudWatchClient", settings: Settings, recorder: Recorder) -> None:
    """Put the alarms. Raises PlatformError naming the action that is not allowed."""
    put_alarms(cloudwatch, f"{settings.env} unload alarms", unload_alarm_requests(settings), recorder)


def unload_alarm_requests(settings: Settings) -> Iterator[dict[str, Any]]:
    """The PutMetricAlarm requests."""
    actions = [settings.alarm_topic] if settings.alarm_topic else []
    for alarm in unload_alarms(settings):
        yield {
            "AlarmName": f"{settings.env}-{alarm.name}",
            "AlarmDescription": alarm.sentence,
            "ActionsEnabled": True,
            "AlarmActions": actions,
            "OKActions": actions,
            "Namespace": NAMESPACE,
            "MetricName": alarm.metric,
            "Dimensions": [{"Name": "Environment", "Value": settings.env}],
            "Statistic": alarm.statistic,
            "Period": alarm.period_s,
            "EvaluationPeriods": alarm.periods,
            "DatapointsToAlarm": alarm.periods,
            "Threshold": float(alarm.threshold),
            "ComparisonOperator": "GreaterThanThreshold",
            # Ages that nobody tells are not known to be well: the alarm says so (INSUFFICIENT_DATA).
            "TreatMissingData": alarm.silence,
        }
