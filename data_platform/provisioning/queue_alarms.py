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
DROP_STUCK = (
    "P1: a CSV drop waits for more than 30 minutes and is not in the table user_statistics. Which: the "
    "newest runs of the job user_statistics, each with its file as partition; without a run, the messages of the queue "
    "{queue} name it. Is the sensor user_statistics_drops off (Dagster, Automation)? Turn it on, that is all. Did its "
    "newest tick or the run fail? Correct what that says. If nothing failed, or in haste, by hand, which is safe "
    "beside the sensor: data-platform statistics apply S3_URL"
)
DROP_GIVEN_UP = (
    "P0: a CSV drop was given up: its runs failed three times, or it names no file. Which and why: data-platform "
    "statistics history --status FAILED, then data-platform statistics audit FILE; where none is listed, read the "
    "message in the queue {queue}. Correct the cause, then data-platform statistics apply S3_URL, and delete the "
    "message from that queue"
)
LOG_STUCK = (
    "P1: OpenTelemetry logs that came late wait for more than 4 hours; the product metrics lack their events. Is the "
    "sensor event_logs on (Dagster, Automation), and do the runs it starts succeed (Runs, tag data_platform/logs)? By "
    "hand: data-platform metrics rebuild"
)
LOG_GIVEN_UP = (
    "P1: the days of OpenTelemetry logs that came late could not be made in three runs, and the product metrics lack "
    "their events; or a message names no log. Failed runs: Dagster, Runs, tag data_platform/logs; correct the cause, "
    "then data-platform metrics rebuild. No failed run: read the messages in the queue {queue} and tell who sends "
    "them. Last, purge the queue: its messages are not needed any more"
)


def provision_queue_alarms(
    cloudwatch: "CloudWatchClient", settings: Settings, catalog: Catalog, recorder: Recorder
) -> None:
    """Put the alarms. Raises PlatformError naming the action that is not allowed."""
    put_alarms(cloudwatch, f"{settings.env} queue alarms", queue_alarm_requests(settings, catalog), recorder)


def queue_alarm_requests(settings: Settings, catalog: Catalog) -> Iterator[dict[str, Any]]:
    """The PutMetricAlarm requests."""
    drops = statistics_route(settings)
    watched = [
        ("StatisticsDropsStuck", drops.queue, AGE, OLDEST_DROP_S, DROP_STUCK.format(queue=drops.queue)),
        ("StatisticsDLQMessages", drops.dlq, VISIBLE, 0, DROP_GIVEN_UP.format(queue=drops.dlq)),
    ]
    if log_prefixes(catalog):
        logs = event_logs_route(settings, catalog)
        watched += [
            ("EventLogsStuck", logs.queue, AGE, OLDEST_LOG_S, LOG_STUCK),
            ("EventLogsDLQMessages", logs.dlq, VISIBLE, 0, LOG_GIVEN_UP.format(queue=logs.dlq)),
        ]
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
