"""UNLOAD through the front: both protocols, transactions, the session's count, the system views, cancelling."""

import gzip
import io
import json
import struct
import threading
import time
from typing import Any

import psycopg
import pyarrow.parquet as pq
import pytest
import redshift_connector

from data_platform.local.process import EngineProcess
from data_platform.local.warehouse.protocol import cancel_packet
from tests.local.warehouse.conftest import (
    BUCKET,
    Open,
    psycopg_session,
    redshift_session,
    rows,
    run_until_it_fails,
    unload_sql,
)

pytestmark = pytest.mark.integration
ENDLESS = "SELECT g, repeat('x', 200) AS t FROM generate_series(1, 100000000) AS g"


def keys(s3: Any, prefix: str) -> list[str]:
    listed = s3.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", [])
    return [item["Key"] for item in listed]


def read(s3: Any, key: str) -> bytes:
    return s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()


def cancel(connection: redshift_connector.Connection) -> None:
    import socket

    with socket.create_connection(connection._usock.getpeername()) as second:
        second.sendall(cancel_packet(connection._backend_key_data or b""))
        second.recv(1)


def test_rows_manifest_count_and_notice(session: redshift_connector.Connection, s3: Any) -> None:
    query = r"SELECT g AS n, nvl(NULL, 'it\'s \\ ' || g) AS t FROM generate_series(1, 3) AS g ORDER BY g"
    rows(
        session, unload_sql(query, "plain/", "FORMAT CSV HEADER GZIP PARALLEL OFF MANIFEST VERBOSE EXTENSION 'csv.gz'")
    )
    assert rows(session, "SELECT pg_last_unload_count()") == [(3,)]
    assert b"UNLOAD completed, 3 record(s) unloaded successfully." in [notice.get(b"M") for notice in session.notices]
    assert gzip.decompress(read(s3, "plain/000.csv.gz")).decode() == "n,t\n1,it's \\ 1\n2,it's \\ 2\n3,it's \\ 3\n"
    assert json.loads(read(s3, "plain/manifest"))["meta"]["record_count"] == 4


def test_simple_extended_and_pipelined_give_the_same(psycopg_connection: psycopg.Connection[Any], s3: Any) -> None:
    connection = psycopg_connection
    simple = psycopg.ClientCursor(connection)
    simple.execute("/* first */ -- and\n " + unload_sql("SELECT 1 AS a", "simple/", "FORMAT CSV"))
    assert simple.statusmessage == "UNLOAD"
    assert connection.execute(unload_sql("SELECT 1 AS a", "extended/", "FORMAT CSV")).statusmessage == "UNLOAD"
    with connection.pipeline():
        connection.execute("CREATE TEMP TABLE IF NOT EXISTS piped AS SELECT 1 AS a")
        connection.execute(unload_sql("SELECT a FROM piped", "pipelined/", "FORMAT CSV"))
        count = connection.execute("SELECT pg_last_unload_count()")
    assert count.fetchone() == (1,)
    for prefix in ("simple/", "extended/", "pipelined/"):
        assert [read(s3, key) for key in keys(s3, prefix)] == [b"1\n"]


def test_unload_after_a_failure_in_the_same_batch_does_not_run(
    psycopg_connection: psycopg.Connection[Any], s3: Any
) -> None:
    def pipelined() -> None:
        with psycopg_connection.pipeline():
            psycopg_connection.execute("SELECT 1/0")
            psycopg_connection.execute(unload_sql("SELECT 1 AS a", "never/"))

    with pytest.raises(psycopg.errors.DivisionByZero):
        pipelined()
    assert keys(s3, "never/") == []
    assert psycopg_connection.execute("SELECT 1").fetchone() == (1,)


def test_uncommitted_rows_and_temporary_tables_are_unloaded(session: redshift_connector.Connection, s3: Any) -> None:
    session.autocommit = False
    rows(session, "CREATE TEMP TABLE mine AS SELECT 7 AS x")
    rows(session, unload_sql("SELECT x FROM mine", "temporary/", "FORMAT PARQUET"))
    session.rollback()
    (key,) = keys(s3, "temporary/")
    assert pq.read_table(io.BytesIO(read(s3, key))).to_pylist() == [{"x": 7}]


@pytest.mark.parametrize(
    ("sql", "sqlstate"),
    [
        (unload_sql("SELECT * FROM not_there", "bad/"), "42P01"),
        (unload_sql("SELECT 1 AS a LIMIT 1", "bad/"), "42601"),
        ("UNLOAD 'SELECT 1'", "42601"),
        (unload_sql("SELECT 1; DROP TABLE pg_class", "bad/"), "42601"),
        (unload_sql("SELECT 1 AS a) TO STDOUT; DROP TABLE pg_class; COPY (SELECT 1", "bad/"), "42601"),
        (unload_sql("SELECT rolpassword FROM pg_authid", "bad/"), "42501"),
        (unload_sql("SELECT 1/g AS a FROM generate_series(0, 1) AS g", "bad/"), "22012"),
    ],
)
@pytest.mark.parametrize("simple", [True, False])
def test_refusals_leave_count_session_and_bucket_as_they_were(
    psycopg_connection: psycopg.Connection[Any], s3: Any, sql: str, sqlstate: str, simple: bool
) -> None:
    connection = psycopg_connection
    connection.execute(unload_sql("SELECT 1 AS a UNION ALL SELECT 2", "good/", "ALLOWOVERWRITE"))
    cursor = psycopg.ClientCursor(connection) if simple else connection.cursor()
    with pytest.raises(psycopg.Error) as caught:
        cursor.execute(sql)
    assert caught.value.sqlstate == sqlstate
    assert connection.execute("SELECT pg_last_unload_count()").fetchone() == (2,)
    assert keys(s3, "bad/") == []


@pytest.mark.parametrize("simple", [True, False])
def test_failure_inside_a_transaction_fails_the_transaction(
    psycopg_connection: psycopg.Connection[Any], s3: Any, simple: bool
) -> None:
    connection = psycopg_connection
    connection.execute(unload_sql("SELECT 1 AS a", f"taken/{simple}/"))
    connection.autocommit = False
    cursor = psycopg.ClientCursor(connection) if simple else connection.cursor()
    with pytest.raises(psycopg.Error, match="is not empty"):
        cursor.execute(unload_sql("SELECT 1 AS a", f"taken/{simple}/"))
    with pytest.raises(psycopg.errors.InFailedSqlTransaction):
        cursor.execute("SELECT 1")
    connection.rollback()
    assert cursor.execute("SELECT 2").fetchone() == (2,)


def test_system_views_show_it_while_it_runs_and_afterwards(
    session: redshift_connector.Connection, open_session: Open, warehouse: EngineProcess, s3: Any
) -> None:
    watcher = open_session()
    fault = warehouse.faults.arm("unload.slow", match={"prefix": "*watched/*"}, times=None, seconds=0.4)
    query = "SELECT g AS n FROM generate_series(1, 1000) AS g"
    thread = threading.Thread(target=rows, args=(session, unload_sql(query, "watched/", "FORMAT CSV MANIFEST")))
    thread.start()
    history = (
        "SELECT status, unloaded_rows, unloaded_files_count, file_format, session_id FROM sys_unload_history"
        f" WHERE unloaded_location = 's3://{BUCKET}/watched/'"
    )
    states: list[Any] = []
    while thread.is_alive():
        states += rows(watcher, history)
        time.sleep(0.05)
    thread.join()
    assert warehouse.faults.struck(fault) >= 1
    pid = struct.unpack("!i", (session._backend_key_data or b"")[:4])[0]
    assert states[0][0] == "running"
    assert any(0 < files < 4 for _, _, files, _, _ in states)  # progress is seen
    assert rows(watcher, history) == [("completed", 1000, 4, "CSV", pid)]
    log = rows(
        watcher, "SELECT trim(path), line_count, transfer_size FROM stl_unload_log WHERE path LIKE '%%/watched/%%'"
    )
    listed = {f"s3://{BUCKET}/{item['Key']}": item["Size"] for item in s3.list_objects_v2(Bucket=BUCKET)["Contents"]}
    assert [listed[path] for path, _, _ in log] == [size for _, _, size in log]
    assert sum(lines for _, lines, _ in log) == 1000


@pytest.mark.parametrize("attempt", range(3))
def test_cancel_request_ends_an_unload_within_half_a_second(
    session: redshift_connector.Connection, s3: Any, attempt: int
) -> None:
    sent: list[float] = []

    def later() -> None:
        time.sleep(0.3 + attempt * 0.2)
        sent.append(time.monotonic())
        cancel(session)

    thread = threading.Thread(target=later)
    thread.start()
    with pytest.raises(redshift_connector.ProgrammingError) as caught:
        rows(session, unload_sql(ENDLESS, f"cancelled/{attempt}/", "FORMAT CSV PARALLEL OFF"))
    took = time.monotonic() - sent[0]
    thread.join()
    assert caught.value.args[0]["C"] == "57014"
    assert took < 0.5
    assert rows(session, "SELECT 1") == [(1,)]


def test_statement_timeout_ends_an_unload(session: redshift_connector.Connection, s3: Any) -> None:
    rows(session, "SET statement_timeout TO 600")
    started = time.monotonic()
    with pytest.raises(redshift_connector.ProgrammingError) as caught:
        rows(session, unload_sql(ENDLESS, "timed-out/", "FORMAT CSV PARALLEL OFF"))
    assert caught.value.args[0]["C"] == "57014"
    assert time.monotonic() - started < 20  # by itself it would not end


def test_client_that_goes_away_ends_its_unload(warehouse: EngineProcess, open_session: Open, s3: Any) -> None:
    leaver = redshift_session(warehouse)
    thread = threading.Thread(target=run_until_it_fails, args=(leaver, unload_sql(ENDLESS, "left/")))
    thread.start()
    watcher = open_session()
    status = "SELECT status FROM sys_unload_history WHERE unloaded_location LIKE '%%/left/'"
    deadline = time.monotonic() + 5
    while rows(watcher, status) != [("running",)] and time.monotonic() < deadline:
        time.sleep(0.05)
    leaver._usock.shutdown(2)
    thread.join()
    while rows(watcher, status) != [("aborted",)] and time.monotonic() < deadline:
        time.sleep(0.05)
    assert rows(watcher, status) == [("aborted",)]
    busy = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'COPY%%' AND state = 'active'"
    assert rows(watcher, busy) == [(0,)]


def test_large_result_streams_with_bounded_memory(warehouse: EngineProcess, s3: Any) -> None:
    import psutil

    assert warehouse.pid is not None
    engine = psutil.Process(warehouse.pid)
    with psycopg_session(warehouse) as connection:
        connection.execute(unload_sql("SELECT 1 AS a", "warm/", "FORMAT CSV GZIP"))
        before = engine.memory_info().rss
        query = "SELECT g, md5(g::text) AS a, md5(g::text) AS b FROM generate_series(1, 500000) AS g"
        connection.execute(unload_sql(query, "large/", "FORMAT CSV PARALLEL OFF MAXFILESIZE 5 MB"))
        assert connection.execute("SELECT pg_last_unload_count()").fetchone() == (500_000,)
    grown = (engine.memory_info().rss - before) / 1e6
    assert len(keys(s3, "large/")) >= 6
    assert grown < 150, f"{grown:.0f} MB more for 36 MB of rows"
