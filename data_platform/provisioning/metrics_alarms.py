"""The CloudWatch alarm of the product metrics: a service's table could not be computed."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from data_platform.analytics.report import NAMESPACE
from data_platform.provisioning.alarms import put_alarms
from data_platform.provisioning.report import Recorder
from data_platform.settings import Settings

if TYPE_CHECKING:
    from mypy_boto3_cloudwatch import CloudWatchClient


def provision_metrics_alarms(cloudwatch: "CloudWatchClient", settings: Settings, recorder: Recorder) -> None:
    """Put the alarm. Raises PlatformError naming the action that is not allowed."""
    put_alarms(cloudwatch, f"{settings.env} metrics alarms", metrics_alarm_requests(settings), recorder)


def metrics_alarm_requests(settings: Settings) -> Iterator[dict[str, Any]]:
    """The PutMetricAlarm request: one failed table in a period of 300 s."""
    actions = [settings.alarm_topic] if settings.alarm_topic else []
    yield {
        "AlarmName": f"{settings.env}-MetricsExecutionsFailed",
        "AlarmDescription": "P1: a product metric's table was not computed; readers still see the one before. Why: "
        "Dagster, Runs, the newest failed run of the job summaries. The next try is the schedule's, at 02:00 UTC; "
        "now: data-platform metrics rebuild",
        "ActionsEnabled": True,
        "AlarmActions": actions,
        "OKActions": actions,
        "Namespace": NAMESPACE,
        "MetricName": "ExecutionsFailed",
        "Dimensions": [{"Name": "Environment", "Value": settings.env}],
        "Statistic": "Sum",
        "Period": 300,
        "EvaluationPeriods": 1,
        "DatapointsToAlarm": 1,
        "Threshold": 1.0,
        "ComparisonOperator": "GreaterThanOrEqualToThreshold",
        "TreatMissingData": "notBreaching",
    }
