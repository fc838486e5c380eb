"""The Athena client: which failures are which, what a query costs. Queries themselves: tests/analytics/athena."""

from datetime import UTC, datetime

import pytest
from botocore.exceptions import ClientError, ConnectTimeoutError

from data_platform.clients.athena import Execution, Meter, classify, cost_usd, fault_of, query_error, token_of
from data_platform.errors import Fault
from data_platform.jobs.pools import POOLS
from data_platform.settings import Settings

pytestmark = pytest.mark.unit
REASONS = (
    ("Query exhausted resources at this scale factor", None, Fault.PERMANENT),
    ("TooManyRequestsException: You have exceeded the limit for the number of queries", None, Fault.THROTTLED),
    ("ConcurrentExecutionLimitExceeded", None, Fault.THROTTLED),
    ("AmazonS3Exception: Please reduce your request rate. (SlowDown)", 3, Fault.THROTTLED),
    ("SYNTAX_ERROR: line 1:8: mismatched input", 2, Fault.PERMANENT),
    ("COLUMN_NOT_FOUND: line 1:8: Column 'x' cannot be resolved", 2, Fault.PERMANENT),
    ("TABLE_NOT_FOUND: line 1:15: Table 'awsdatacatalog.log_db.x' does not exist", 2, Fault.CONFIGURATION),
    ("HIVE_PATH_ALREADY_EXISTS: Target directory for table 'a.b' already exists", 2, Fault.TRANSIENT),
    ("GENERIC_INTERNAL_ERROR: null", 1, Fault.TRANSIENT),
    ("Query timed out", None, Fault.TRANSIENT),
    ("Access Denied (Service: Amazon S3; Status Code: 403)", 2, Fault.CONFIGURATION),
    ("Query cancelled! : Bytes scanned limit was exceeded", 2, Fault.CONFIGURATION),
    ("something nobody has seen", 1, Fault.TRANSIENT),
    ("something nobody has seen", 2, Fault.PERMANENT),
)


def failed(reason: str, category: int | None, state: str = "FAILED") -> Execution:
    return Execution("id", state, datetime(2024, 1, 1, tzinfo=UTC), 0, 1.0, reason, category)


@pytest.mark.parametrize(("reason", "category", "fault"), REASONS)
def test_the_reason_of_a_failed_query_tells_what_may_be_done(reason: str, category: int | None, fault: Fault) -> None:
    assert fault_of(failed(reason, category))[0] is fault


def test_people_are_told_what_to_do() -> None:
    assert "year/month/day and MIN_DATA_DATE" in str(query_error(failed(REASONS[0][0], None)))
    assert "who else is querying" in str(query_error(failed("ConcurrentExecutionLimitExceeded", None)))
    assert fault_of(failed("", None, "CANCELLED"))[0] is Fault.PERMANENT


@pytest.mark.parametrize(
    ("code", "status", "fault"),
    [
        ("TooManyRequestsException", 400, Fault.THROTTLED),
        ("ThrottlingException", 400, Fault.THROTTLED),
        ("InternalServerException", 500, Fault.TRANSIENT),
        ("InvalidRequestException", 400, Fault.PERMANENT),
        ("AccessDeniedException", 400, Fault.CONFIGURATION),
        ("EntityNotFoundException", 400, Fault.CONFIGURATION),
    ],
)
def test_errors_of_the_calls_are_classified(code: str, status: int, fault: Fault) -> None:
    response = {"Error": {"Code": code, "Message": ""}, "ResponseMetadata": {"HTTPStatusCode": status}}
    assert classify(ClientError(response, "StartQueryExecution")) is fault  # pyright: ignore[reportArgumentType]


def test_a_lost_connection_is_transient() -> None:
    assert classify(ConnectTimeoutError(endpoint_url="http://x")) is Fault.TRANSIENT


def test_a_query_is_charged_for_ten_megabytes_at_least_and_counted_once() -> None:
    assert cost_usd(0, 5) == 0
    assert cost_usd(1, 5) == cost_usd(10_000_000, 5) == pytest.approx(5e-5)
    meter = Meter(5.0)
    for _ in range(2):
        meter.add(Execution("a", "SUCCEEDED", datetime(2024, 1, 1, tzinfo=UTC), 2 * 1000**4, 1.0))
    assert (meter.bytes_scanned, meter.usd) == (2 * 1000**4, 10.0)


def test_a_token_is_of_the_key_and_the_statement() -> None:
    assert len(token_of("a", "SELECT 1")) == 64
    assert len({token_of("a", "SELECT 1"), token_of("b", "SELECT 1"), token_of("a", "SELECT 2")}) == 3


def test_all_services_at_once_stay_below_the_limit_of_an_account() -> None:
    assert POOLS["athena"].limit * Settings().athena_concurrency < 25  # pyright: ignore[reportCallIssue]
