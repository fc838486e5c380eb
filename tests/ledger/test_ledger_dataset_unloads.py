"""Attempts of a dataset's partition: numbers that never repeat, one winner, and a fenced latecomer."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from data_platform.ledger.dataset_unloads import (
    SUPERSEDED,
    DatasetUnload,
    SupersededError,
    begin,
    dataset_unloads,
    fail,
    finish,
    latest,
)

pytestmark = pytest.mark.integration
FLIGHTS, DAY = "market/flights", "2013-01-01"


def prefix_of(attempt: int) -> str:
    return f"s3://raw/{FLIGHTS}/ds={DAY}/{attempt}/"


def started(engine: sa.Engine, run_id: str | None = None) -> DatasetUnload:
    with engine.begin() as connection:
        return begin(connection, FLIGHTS, DAY, prefix_of, run_id=run_id)


def finished(engine: sa.Engine, unload: DatasetUnload, rows: int = 842) -> DatasetUnload:
    with engine.begin() as connection:
        return finish(
            connection, unload, rows=rows, files=2, bytes=4096, manifest_url=f"{unload.prefix}manifest", query_id="77"
        )


def test_an_attempt_that_is_finished_is_the_latest_done(ledger: sa.Engine) -> None:
    done = finished(ledger, started(ledger, run_id="run-1"))
    assert (done.status, done.rows, done.files, done.bytes, done.run_id) == ("DONE", 842, 2, 4096, "run-1")
    assert done.finished_at is not None
    assert done.finished_at >= done.started_at
    with ledger.connect() as connection:
        assert latest(connection, FLIGHTS, DAY, status="DONE") == done
        assert latest(connection, FLIGHTS, "2013-01-02") is None


def test_a_failure_keeps_its_reason_and_the_earlier_result_stays(ledger: sa.Engine) -> None:
    done = finished(ledger, started(ledger))
    second = started(ledger)
    assert (second.attempt, second.prefix) == (2, prefix_of(2))
    with ledger.begin() as connection:
        fail(connection, second, code="57014", message="cancelled on user's request")
    with ledger.connect() as connection:
        newest = latest(connection, FLIGHTS, DAY)
        assert newest is not None
        assert (newest.attempt, newest.status, newest.error_code) == (2, "FAILED", "57014")
        assert latest(connection, FLIGHTS, DAY, status="DONE") == done


def test_a_newer_attempt_fences_the_older(ledger: sa.Engine) -> None:
    older, newer = started(ledger), started(ledger)
    with pytest.raises(SupersededError, match="attempt 1 of market/flights 2013-01-01 is not running"):
        finished(ledger, older)
    finished(ledger, newer)
    with ledger.connect() as connection:
        rows = connection.execute(
            sa.select(dataset_unloads.c.status, dataset_unloads.c.error_code).order_by(dataset_unloads.c.attempt)
        ).all()
    assert [tuple(row) for row in rows] == [("FAILED", SUPERSEDED), ("DONE", None)]


def test_a_final_attempt_stays_as_it_is(ledger: sa.Engine) -> None:
    unload = started(ledger)
    finished(ledger, unload)
    with ledger.begin() as connection, pytest.raises(SupersededError):
        fail(connection, unload, code="X", message="too late")


def test_runs_that_begin_at_once_get_different_prefixes(ledger: sa.Engine) -> None:
    start = threading.Barrier(6)

    def run(_number: int) -> DatasetUnload:
        start.wait(10)
        return started(ledger)

    with ThreadPoolExecutor(6) as pool:
        unloads = list(pool.map(run, range(6)))
    assert sorted(unload.attempt for unload in unloads) == [1, 2, 3, 4, 5, 6]
    with ledger.connect() as connection:
        running = sa.select(sa.func.count()).where(dataset_unloads.c.status == "RUNNING")
        assert connection.execute(running).scalar_one() == 1
