"""The CloudWatch alarms of the CSV batch: drops that nobody starts, drops that were given up."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from data_platform.provisioning.alarms import SQS_NAMESPACE, put_alarms
from data_platform.provisioning.report import Recorder
from data_platform.provisioning.routes import statistics_route
from data_platform.settings import Settings

if TYPE_CHECKING:
    from mypy_boto3_cloudwatch import CloudWatchClient

# A drop waits for at most one tick (30 s) and a run of 15 minutes; one that is older than half an hour is stuck.
OLDEST_S = 1800


def provision_statistics_alarms(cloudwatch: "CloudWatchClient", settings: Settings, recorder: Recorder) -> None:
    """Put the alarms. Raises PlatformError naming the action that is not allowed."""
    put_alarms(cloudwatch, f"{settings.env} statistics alarms", statistics_alarm_requests(settings), recorder)


def statistics_alarm_requests(settings: Settings) -> Iterator[dict[str, Any]]:
    """The PutMetricAlarm requests."""
    route = statistics_route(settings)
    actions = [settings.alarm_topic] if settings.alarm_topic else []
    for name, queue, metric, threshold, sentence in (
        ("StatisticsDropsStuck", route.queue, "ApproximateAgeOfOldestMessage", OLDEST_S,
         "P1: a CSV drop waits for more than 30 minutes: does the sensor run?"),
        ("StatisticsDLQMessages", route.dlq, "ApproximateNumberOfMessagesVisible", 0,
         "P0: a CSV drop was given up: data-platform statistics audit FILE"),
    ):  # fmt: skip
        yield {
            "AlarmName": f"{settings.env}-{name}",
            "AlarmDescription": sentence,
            "ActionsEnabled": True,
            "AlarmActions": actions,
            "OKActions": actions,
            "Namespace": SQS_NAMESPACE,
            "MetricName": metric,
            "Dimensions": [{"Name": "QueueName", "Value": queue}],
            "Statistic": "Maximum",
            "Period": 60,
            "EvaluationPeriods": 1,
            "DatapointsToAlarm": 1,
            "Threshold": float(threshold),
            "ComparisonOperator": "GreaterThanThreshold",
            "TreatMissingData": "notBreaching",
        }
