"""The small decisions of the checks: versions, clocks, libpq's words."""

from datetime import UTC, datetime, timedelta

import pytest

from data_platform.provisioning.checks.finding import Status, skew_finding, version_finding
from data_platform.provisioning.postgres import reason_of

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("version", "status"),
    [
        ("24.8.1.2684", Status.OK),
        ("26.9.2.1", Status.OK),
        ("25.1", Status.OK),
        ("24.7.9", Status.FAILED),
        ("23.12", Status.FAILED),
        ("16.3 (Debian 16.3-1)", Status.FAILED),
        ("head", Status.WARNING),
    ],
)
def test_a_version_is_compared_number_by_number(version: str, status: Status) -> None:
    assert version_finding("x", version, (24, 8)).status is status


@pytest.mark.parametrize(
    ("seconds", "status"), [(0, Status.OK), (-20, Status.OK), (31, Status.WARNING), (-301, Status.FAILED)]
)
def test_a_clock_may_be_half_a_minute_off(seconds: int, status: Status) -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert skew_finding("x", now + timedelta(seconds=seconds), now).status is status


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (
            'connection failed: connection to "h", port 1 failed: Connection refused\n\tIs the server running?',
            "Connection refused",
        ),
        (
            'connection failed: connection to "h", port 1 failed: FATAL:  password authentication failed for u',
            "password authentication failed for u",
        ),
        ("could not translate host name", "could not translate host name"),
    ],
)
def test_libpqs_reason_comes_without_the_address(message: str, reason: str) -> None:
    assert reason_of(RuntimeError(message)) == reason
