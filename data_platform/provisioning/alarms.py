"""The four CloudWatch alarms of the load system, each over all domains: it rings when any domain is beyond the limit.

Queue depths are SQS's own metrics, so they ring when the loader itself is dead; latency and errors are the loader's.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from data_platform.catalog import Catalog
from data_platform.catalog import keys as s3_keys
from data_platform.provisioning.aws_calls import naming
from data_platform.provisioning.report import Recorder
from data_platform.settings import Settings

if TYPE_CHECKING:
    from mypy_boto3_cloudwatch import CloudWatchClient

NAMESPACE = "DataPlatform/Load"  # the loader's metrics; dimensions Environment and Domain
SQS_NAMESPACE = "AWS/SQS"
METRICS_AN_ALARM = 9  # CloudWatch takes 10 in one alarm; one is the expression


@dataclass(frozen=True)
class Alarm:
    """A row of the load system's alarm table; `period_s` seconds, `breaching` of `periods` periods."""

    name: str
    metric: str
    threshold: float
    periods: int
    breaching: int
    period_s: int
    priority: str
    sentence: str
    of_dlq: bool | None = None  # a queue metric of SQS, of the queue or its dead-letter queue; None: the loader's own


ALARMS = (
    Alarm(
        *("LoadLatencyHigh", "ProcessingLatency", 600, 3, 2, 300, "P1"),
        sentence="files take more than 10 minutes from S3 into ClickHouse; rows come late, none is lost. Which "
        "domain waits, and for what: data-platform loader status. Is ClickHouse slow or away: data-platform doctor. "
        "Else start another loader: data-platform loader",
    ),
    Alarm(
        *("LoadErrorRateHigh", "ErrorRate", 5, 3, 3, 300, "P0"),
        sentence="more than 5 % of a domain's files fail, or the domain is parked; its rows are missing in "
        "ClickHouse. The reasons: data-platform loader status (a parked domain names the right or table it lacks) "
        "and data-platform dlq list. Put it right, then data-platform loader resume DOMAIN and, for what is "
        "left of the list, data-platform dlq replay --domain DOMAIN",
    ),
    Alarm(
        *("LoadQueueDepthHigh", "ApproximateNumberOfMessagesVisible", 100, 3, 2, 300, "P1"),
        sentence="more than 100 files wait in a load queue; rows come late, none is lost. Does a loader receive them: "
        "data-platform loader status. If none does, start one: data-platform loader. If one does, start another",
        of_dlq=False,
    ),
    Alarm(
        *("LoadDLQMessages", "ApproximateNumberOfMessagesVisible", 0, 1, 1, 60, "P0"),
        sentence="a file was given up and is not tried any more; its rows are missing in ClickHouse. 1. Each with its "
        "reason and what to do: data-platform dlq list. 2. Remove the cause, or drop those for which it says so. 3. "
        "Have what is left loaded: data-platform dlq replay --domain DOMAIN",
        of_dlq=True,
    ),
)


def provision_alarms(cloudwatch: "CloudWatchClient", settings: Settings, catalog: Catalog, recorder: Recorder) -> None:
    """Put the alarms. Raises PlatformError naming the action that is not allowed."""
    put_alarms(cloudwatch, f"{settings.env} load alarms", alarm_requests(settings, sorted(catalog.domains)), recorder)


def put_alarms(
    cloudwatch: "CloudWatchClient", what: str, requests: Iterable[dict[str, Any]], recorder: Recorder
) -> None:
    """Put the alarms that are not there as they are requested. Raises PlatformError naming what is not allowed."""
    wanted = {request["AlarmName"]: request for request in requests}
    with naming("cloudwatch", what):
        found = cloudwatch.describe_alarms(AlarmNames=list(wanted), AlarmTypes=["MetricAlarm"])["MetricAlarms"]
        current = {alarm.get("AlarmName", ""): alarm for alarm in found}
        for name, request in wanted.items():
            present = current.get(name)
            if present is None or any(present.get(key) != value for key, value in request.items()):
                recorder.change(
                    "alarm",
                    name,
                    "create" if present is None else "update",
                    lambda request=request: cloudwatch.put_metric_alarm(**request),
                )


def alarm_requests(settings: Settings, domains: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The PutMetricAlarm requests. More domains than one alarm can watch make numbered alarms."""
    for alarm in ALARMS:
        groups = [domains[start : start + METRICS_AN_ALARM] for start in range(0, len(domains), METRICS_AN_ALARM)]
        for number, group in enumerate(groups, start=1):
            suffix = f"-{number}" if len(groups) > 1 else ""
            yield {
                "AlarmName": f"{settings.env}-{alarm.name}{suffix}",
                "AlarmDescription": f"{alarm.priority}: {alarm.sentence}",
                "ActionsEnabled": True,
                "AlarmActions": [settings.alarm_topic] if settings.alarm_topic else [],
                "OKActions": [settings.alarm_topic] if settings.alarm_topic else [],
                "Metrics": _metrics(settings.env, alarm, group),
                "ComparisonOperator": "GreaterThanThreshold",
                "Threshold": float(alarm.threshold),
                "EvaluationPeriods": alarm.periods,
                "DatapointsToAlarm": alarm.breaching,
                # No traffic sends no data points: silence is not an outage. A dead loader shows in the queue depth.
                "TreatMissingData": "notBreaching",
            }


def _metrics(env: str, alarm: Alarm, domains: Sequence[str]) -> list[dict[str, Any]]:
    sources = [
        {
            "Id": f"m{number}",
            "Label": domain,
            "MetricStat": {
                "Metric": {
                    "Namespace": NAMESPACE if alarm.of_dlq is None else SQS_NAMESPACE,
                    "MetricName": alarm.metric,
                    "Dimensions": _dimensions(env, alarm, domain),
                },
                "Period": alarm.period_s,
                "Stat": "Maximum",
            },
            "ReturnData": False,
        }
        for number, domain in enumerate(domains)
    ]
    return [{"Id": "worst", "Expression": "MAX(METRICS())", "Label": alarm.name, "ReturnData": True}, *sources]


def _dimensions(env: str, alarm: Alarm, domain: str) -> list[dict[str, str]]:
    if alarm.of_dlq is None:
        return [{"Name": "Environment", "Value": env}, {"Name": "Domain", "Value": domain}]
    name = s3_keys.dlq_name(env, domain) if alarm.of_dlq else s3_keys.queue_name(env, domain)
    return [{"Name": "QueueName", "Value": name}]
