"""The CloudWatch alarms of the queues that sensors read: what nobody starts, what was given up."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from data_platform.catalog import Catalog
from data_platform.provisioning.alarms import SQS_NAMESPACE, put_alarms
from data_platform.provisioning.report import Recorder
from data_platform.provisioning.routes import event_logs_route, log_prefixes, statistics_route
from data_platform.settings import Settings

if TYPE_CHECKING:
    from mypy_boto3_cloudwatch import CloudWatchClient

AGE, VISIBLE = "ApproximateAgeOfOldestMessage", "ApproximateNumberOfMessagesVisible"
# A drop waits for at most one tick (30 s) and a run of 15 minutes; one that is older than half an hour is stuck.
OLDEST_DROP_S = 1800
# A log waits for at most one tick (5 min) and a run over its days, once more where that run failed.
OLDEST_LOG_S = 4 * 3600


def provision_queue_alarms(
    cloudwatch: "CloudWatchClient", settings: Settings, catalog: Catalog, recorder: Recorder
) -> None:
    """Put the alarms. Raises PlatformError naming the action that is not allowed."""
    put_alarms(cloudwatch, f"{settings.env} queue alarms", queue_alarm_requests(settings, catalog), recorder)


def queue_alarm_requests(settings: Settings, catalog: Catalog) -> Iterator[dict[str, Any]]:
    """The PutMetricAlarm requests."""
    drops = statistics_route(settings)
    watched = [
        ("StatisticsDropsStuck", drops.queue, AGE, OLDEST_DROP_S,
         "P1: a CSV drop waits for more than 30 minutes: does the sensor user_statistics_drops run?"),
        ("StatisticsDLQMessages", drops.dlq, VISIBLE, 0,
         "P0: a CSV drop was given up: data-platform statistics audit FILE"),
    ]  # fmt: skip
    if log_prefixes(catalog):
        logs = event_logs_route(settings, catalog)
        watched += [
            ("EventLogsStuck", logs.queue, AGE, OLDEST_LOG_S,
             "P1: a late log waits for more than 4 hours: does the sensor event_logs run, and do its runs succeed?"),
            ("EventLogsDLQMessages", logs.dlq, VISIBLE, 0,
             "P1: the days of a late log could not be made: mend their runs, then data-platform metrics rebuild"),
        ]  # fmt: skip
    actions = [settings.alarm_topic] if settings.alarm_topic else []
    for name, queue, metric, threshold, sentence in watched:
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
