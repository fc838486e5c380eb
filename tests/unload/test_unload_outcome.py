"""The decisions about an attempt that did not end by itself: what to do about it, what its failure is called."""

from datetime import timedelta

import pytest
import sqlalchemy as sa
from psycopg.errors import AdminShutdown, UndefinedTable

from data_platform.errors import ThrottledError
from data_platform.unload.execution import AttemptLostError
from data_platform.unload.manifest import ProofError
from data_platform.unload.outcome import BACKOFF_CAP_S, CapError, Stop, Verdict, backoff, failure_of, verdict
from data_platform.unload.warehouse import Statement

pytestmark = pytest.mark.unit

RUNS = Statement(1, 2, "running", None, None)
ENDED = Statement(1, 2, "success", 10, 100)
FAILED = Statement(1, 2, "failed", None, None)


@pytest.mark.parametrize(
    ("statement", "cancelled", "overdue", "expected"),
    [
        (RUNS, False, False, Verdict.WAIT),
        (RUNS, True, False, Verdict.STOP),
        (RUNS, False, True, Verdict.AGAIN),
        (RUNS, True, True, Verdict.CANCEL),
        (ENDED, False, False, Verdict.ADOPT),
        (ENDED, False, True, Verdict.ADOPT),
        (ENDED, True, False, Verdict.CANCEL),
        (FAILED, False, False, Verdict.AGAIN),
        (None, False, False, Verdict.AGAIN),
        (None, True, False, Verdict.CANCEL),
    ],
)
def test_the_warehouses_word_decides(
    statement: Statement | None, cancelled: bool, overdue: bool, expected: Verdict
) -> None:
    assert verdict(statement, cancelled=cancelled, overdue=overdue) is expected


def test_a_ledger_that_is_lost_is_told_without_the_statement_and_tried_again() -> None:
    lost = sa.exc.OperationalError("UPDATE secret SET x", {}, AdminShutdown("terminating connection\nLINE 1: secret"))
    failure = failure_of(lost)
    assert (failure.code, failure.message, failure.passing) == ("LEDGER", "terminating connection", True)
    broken = sa.exc.ProgrammingError("SELECT", {}, UndefinedTable("no such table"))
    assert not failure_of(broken).passing


@pytest.mark.parametrize(
    ("error", "code", "passing"),
    [
        (CapError(Stop.ROW_CAP, "more than 5 rows"), "ROW_CAP", False),
        (ProofError("missing from S3: x"), "PROOF", False),
        (AttemptLostError("the session was lost"), "TRANSIENT", True),
        (ThrottledError("too many sessions"), "THROTTLED", True),
        (ValueError("a bug"), "ValueError", False),
    ],
)
def test_a_failure_has_a_name_and_says_whether_it_passes(error: Exception, code: str, passing: bool) -> None:
    failure = failure_of(error)
    assert (failure.code, failure.passing) == (code, passing)


def test_waits_grow_with_jitter_up_to_a_cap() -> None:
    for attempt in range(1, 12):
        waits = [backoff(attempt) for _ in range(50)]
        assert max(waits) <= timedelta(seconds=min(2.0**attempt, BACKOFF_CAP_S))
        assert len(set(waits)) > 1
