"""What CloudWatch is told of a run: every table counted once, also of a run that fails; telling stops nothing."""

from typing import Any, cast

import pytest

from data_platform.analytics.report import Executions, executions_data, reported
from data_platform.errors import Fault, ThrottledError

pytestmark = pytest.mark.unit


class CloudWatch:
    """Takes what it is told; away when `error` is set."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.values: dict[str, float] = {}

    def put_metric_data(self, **told: Any) -> None:
        if self.error is not None:
            raise self.error
        self.values = {each["MetricName"]: each["Value"] for each in told["MetricData"] if len(each["Dimensions"]) == 1}


def run(cloudwatch: CloudWatch, done: int, error: Exception | None = None) -> dict[str, float]:
    executions = Executions("theshop-brand", "clickhouse", 7)
    with reported(cast("Any", cloudwatch), "test", executions, classify=lambda _: Fault.UNKNOWN):
        executions.succeeded = done
        if error is not None:
            raise error
    return cloudwatch.values


def test_a_run_that_ends_well_counts_its_tables() -> None:
    told = run(CloudWatch(), 7)
    assert told.pop("ExecutionTime") >= 0
    assert told == {"ExecutionsSucceeded": 7, "ExecutionsFailed": 0, "ExecutionsThrottled": 0}


@pytest.mark.parametrize(("error", "throttled"), [(ThrottledError("wait"), 1), (RuntimeError("no"), 0)])
def test_a_run_that_fails_counts_what_is_missing_and_fails_all_the_same(error: Exception, throttled: int) -> None:
    cloudwatch = CloudWatch()
    with pytest.raises(type(error)):
        run(cloudwatch, 2, error)
    assert cloudwatch.values["ExecutionsFailed"] == 5
    assert cloudwatch.values["ExecutionsThrottled"] == throttled


def test_cloudwatch_that_is_away_stops_no_run() -> None:
    from botocore.exceptions import EndpointConnectionError

    assert run(CloudWatch(EndpointConnectionError(endpoint_url="http://away")), 7) == {}


def test_every_service_and_engine_has_points_of_its_own_beside_the_ones_of_all() -> None:
    data = executions_data("test", Executions("theshop-brand", "athena", 7, succeeded=7, fault=Fault.PERMANENT))
    assert [len(each["Dimensions"]) for each in data] == [1] * 4 + [3] * 4
    assert {"Name": "Engine", "Value": "athena"} in data[-1]["Dimensions"]
