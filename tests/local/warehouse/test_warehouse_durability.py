"""What the warehouse has acknowledged survives kill -9, and no process of PostgreSQL outlives its engine."""

import contextlib
import os
import signal
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
import redshift_connector

from data_platform.local.process import EngineProcess
from tests.local.warehouse.conftest import redshift_session, rows, run_until_it_fails

pytestmark = pytest.mark.integration


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[EngineProcess]:
    process = EngineProcess.with_free_ports("warehouse", tmp_path / "warehouse").start()
    yield process
    process.stop()


def postgres_processes(engine: EngineProcess) -> list[psutil.Process]:
    found: list[psutil.Process] = []
    for process in psutil.process_iter(["name"]):
        with contextlib.suppress(psutil.Error, OSError):
            if process.info["name"] == "postgres" and Path(process.cwd()) == engine.state / "postgresql":
                found.append(process)
    return found


def wait_until_gone(engine: EngineProcess, seconds: float) -> list[psutil.Process]:
    deadline = time.monotonic() + seconds
    while (left := postgres_processes(engine)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


@pytest.mark.scenario
def test_every_committed_row_survives_kill_9(engine: EngineProcess) -> None:
    with redshift_session(engine) as connection:
        rows(connection, "CREATE TABLE ledger (worker int, n int)")
    acknowledged = [0, 0, 0]

    def insert(worker: int) -> None:
        with (
            contextlib.suppress(redshift_connector.Error, OSError, struct.error),
            redshift_session(engine) as connection,
        ):
            while True:
                n = acknowledged[worker] + 1
                rows(connection, "INSERT INTO ledger VALUES (%s, %s)", (worker, n))
                acknowledged[worker] = n

    threads = [threading.Thread(target=insert, args=(worker,)) for worker in range(3)]
    for thread in threads:
        thread.start()
    while min(acknowledged) < 20:
        time.sleep(0.01)
    engine.kill()
    for thread in threads:
        thread.join()
    started = time.monotonic()
    engine.start()
    assert time.monotonic() - started < 10
    with redshift_session(engine) as connection:
        kept = dict(rows(connection, "SELECT worker, count(DISTINCT n) FROM ledger GROUP BY worker"))
    for worker, count in enumerate(acknowledged):
        assert kept[worker] in {count, count + 1}  # the one in flight may have come through


def test_restart_after_kill_9_with_a_query_still_running(engine: EngineProcess) -> None:
    busy = psycopg.connect(engine.env["DAGSTER_POSTGRES_URL"], autocommit=True)
    # A loop that never looks at its socket: the back-end outlives the postmaster until it is ended.

    def count() -> None:
        with contextlib.suppress(psycopg.Error):
            busy.execute("SELECT count(*) FROM generate_series(1, 1e9)")

    thread = threading.Thread(target=count)
    thread.start()
    time.sleep(0.3)
    engine.kill()
    engine.start()
    thread.join()
    busy.close()
    with psycopg.connect(engine.env["DAGSTER_POSTGRES_URL"]) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_stop_takes_little_time_and_leaves_no_process(engine: EngineProcess) -> None:
    with redshift_session(engine) as connection:
        thread = threading.Thread(target=run_until_it_fails, args=(connection, "SELECT pg_sleep(60)"))
        thread.start()
        time.sleep(0.2)
        assert postgres_processes(engine)
        started = time.monotonic()
        engine.stop()
        assert time.monotonic() - started < 5
        thread.join()
    assert postgres_processes(engine) == []


def test_postgresql_ends_with_its_engine_however_that_died(engine: EngineProcess) -> None:
    assert engine.pid is not None
    os.kill(engine.pid, signal.SIGKILL)  # the engine alone, not its process group
    assert wait_until_gone(engine, 5) == []


def test_state_folder_below_one_that_only_root_may_pass(tmp_path: Path) -> None:
    shut = tmp_path / "shut"
    shut.mkdir(mode=0o700)
    engine = EngineProcess.with_free_ports("warehouse", shut / "state").start()
    try:
        with psycopg.connect(engine.env["DAGSTER_POSTGRES_URL"], autocommit=True) as connection:
            connection.execute("CREATE TABLE kept (n int)")
        engine.stop()
        engine.start()
        with psycopg.connect(engine.env["DAGSTER_POSTGRES_URL"]) as connection:
            assert connection.execute("SELECT count(*) FROM kept").fetchone() == (0,)
        assert shut.stat().st_mode & 0o077 == 0
    finally:
        engine.stop()


def test_query_ids_keep_growing_over_a_crash(engine: EngineProcess) -> None:
    ids: list[int] = []
    for _ in range(2):
        with redshift_session(engine) as connection:
            rows(connection, "SELECT 1")
            ids += [query for (query,) in rows(connection, "SELECT pg_last_query_id()")]
        engine.kill()
        engine.start()
    assert ids == sorted(set(ids))


def test_half_made_cluster_is_made_again(tmp_path: Path) -> None:
    state = tmp_path / "warehouse"
    (state / "postgresql.new").mkdir(parents=True)
    (state / "postgresql.new" / "PG_VERSION").write_text("18\n")
    engine = EngineProcess.with_free_ports("warehouse", state).start()
    try:
        with psycopg.connect(engine.env["DAGSTER_POSTGRES_URL"]) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
    finally:
        engine.stop()
