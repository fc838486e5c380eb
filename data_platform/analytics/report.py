"""What the computation of a service's tables came to, told to CloudWatch. Shared by the engines.

ExecutionTime in seconds, ExecutionsSucceeded, ExecutionsFailed, ExecutionsThrottled in tables. Telling stops nothing.
"""

import logging
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any

from data_platform.clients import aws
from data_platform.errors import Fault, PlatformError

if TYPE_CHECKING:
    from mypy_boto3_cloudwatch import CloudWatchClient

NAMESPACE = "DataPlatform/Metrics"  # dimensions: Environment, and Environment, Service, Engine
log = logging.getLogger(__name__)


@dataclass
class Executions:
    """The tables of one service in one run on one engine: how many were wanted, are done, met a throttle."""

    service: str
    engine: str
    wanted: int
    succeeded: int = 0
    throttled: int = 0
    seconds: float = 0.0
    fault: Fault | None = None  # why the run ended before all were done

    @property
    def failed(self) -> int:
        """Tables that were wanted and are not done."""
        return self.wanted - self.succeeded


@contextmanager
def reported(
    cloudwatch: "CloudWatchClient", env: str, executions: Executions, *, classify: Any
) -> Generator[Executions]:
    """Time what is within and tell how it ended; `classify` says what an error of the engine is."""
    started = monotonic()
    try:
        yield executions
    except BaseException as error:
        executions.fault = error.fault if isinstance(error, PlatformError) else classify(error)
        executions.throttled += executions.fault is Fault.THROTTLED
        raise
    finally:
        executions.seconds = monotonic() - started
        send(cloudwatch, env, executions)


def send(cloudwatch: "CloudWatchClient", env: str, executions: Executions) -> None:
    """Send the data points of a run; a failure of that is logged."""
    try:
        data: Any = executions_data(env, executions)
        cloudwatch.put_metric_data(Namespace=NAMESPACE, MetricData=data)
    except Exception as error:
        if aws.classify(error) is Fault.UNKNOWN:
            raise
        log.warning("metrics of %s were not sent to CloudWatch: %s", executions.service, error)


def executions_data(env: str, executions: Executions) -> list[dict[str, Any]]:
    """The data points as PutMetricData takes them: for the alarm over all services, and for each service and engine."""
    whole = [{"Name": "Environment", "Value": env}]
    own = [
        *whole,
        {"Name": "Service", "Value": executions.service},
        {"Name": "Engine", "Value": executions.engine},
    ]
    values = (
        ("ExecutionTime", executions.seconds, "Seconds"),
        ("ExecutionsSucceeded", executions.succeeded, "Count"),
        ("ExecutionsFailed", executions.failed, "Count"),
        ("ExecutionsThrottled", executions.throttled, "Count"),
    )
    return [
        {"MetricName": name, "Dimensions": dimensions, "Value": float(value), "Unit": unit}
        for dimensions in (whole, own)
        for name, value, unit in values
    ]
