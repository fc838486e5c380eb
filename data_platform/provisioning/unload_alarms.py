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
            sentence="P1: more than 5 requests have FAILED within 5 minutes: data-platform unload list --status FAILED",
            period_s=300,
            silence="notBreaching",
        ),
        UnloadAlarm(
            *("UnloadOldestRunning", "OldestRunning", "Maximum", longest + RUNNING_MARGIN_S, 5),
            sentence="P0: a request runs for longer than a query may: does the reconciler run?",
        ),
        UnloadAlarm(
            *("UnloadOldestPending", "OldestPending", "Maximum", PENDING_S, 5),
            sentence="P1: a request waits for more than 15 minutes: no worker is free",
        ),
        UnloadAlarm(
            *("UnloadOutboxAge", "OutboxAge", "Maximum", OUTBOX_S, 5),
            sentence="P1: an event waits for more than 5 minutes: is the broker away?",
        ),
        UnloadAlarm(
            *("UnloadListenerLag", "ListenerLag", "Maximum", settings.kafka_lag_limit, 5),
            sentence="P1: the listener is behind its topic",
        ),
        UnloadAlarm(
            *("UnloadDurationHigh", "UnloadDuration", "Maximum", longest / 2, 1),
            sentence="P2: a request took more than half of the time a query may take",
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
