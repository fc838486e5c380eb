"""The Redshift front over the real protocol: redshift-connector, psycopg, awswrangler, raw sockets."""

import socket
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import psycopg
import pytest
import redshift_connector

from data_platform.local.process import EngineProcess
from data_platform.local.warehouse.protocol import cancel_packet, startup_packet
from tests.local.warehouse.conftest import Open, psycopg_session, redshift_session, rows

pytestmark = pytest.mark.integration


def test_server_looks_like_redshift_to_the_driver(session: redshift_connector.Connection) -> None:
    ((version,),) = rows(session, "SELECT version()")
    assert version.startswith("PostgreSQL 8.0.2 on ")
    assert ", Redshift 1.0." in version
    assert dict(session.parameter_statuses)[b"server_version"] == b"8.0.2"


@pytest.mark.parametrize(
    ("sql", "value"),
    [
        ("SELECT 12345678901234567890.123456789::decimal(38, 9)", Decimal("12345678901234567890.123456789")),
        ("SELECT -0.50::numeric(10, 2)", Decimal("-0.50")),
        ("SELECT timestamp '2013-01-31 23:59:59.123456'", datetime(2013, 1, 31, 23, 59, 59, 123456)),  # noqa: DTZ001
        ("SELECT timestamptz '2013-01-31 23:59:59+09'", datetime(2013, 1, 31, 14, 59, 59, tzinfo=UTC)),
        ("SELECT date '2013-01-31'", date(2013, 1, 31)),
        ("SELECT true", True),
        ("SELECT 9223372036854775807::bigint", 9223372036854775807),
        ("SELECT 0.1::float8", 0.1),
        ("SELECT '日本語 ✈ ''quoted'''", "日本語 ✈ 'quoted'"),
        ("SELECT ''", ""),
        ("SELECT NULL::varchar", None),
        (r"SELECT 'a\\b\'c'", "a\\b'c"),  # a backslash escapes, as in Redshift
    ],
)
def test_values_arrive_with_their_types(session: redshift_connector.Connection, sql: str, value: object) -> None:
    assert rows(session, sql) == [(value,)]


@pytest.mark.parametrize("value", [7, 'it\'s \\ a "text" ✈', Decimal("1.50"), None, date(2013, 1, 1), True])
def test_parameters_come_back_as_they_were(session: redshift_connector.Connection, value: object) -> None:
    assert rows(session, "SELECT %s", (value,)) == [(value,)]


def test_dataframe_of_many_rows(session: redshift_connector.Connection) -> None:
    with session.cursor() as cursor:
        cursor.execute("SELECT g AS n, 'row ' || g AS name FROM generate_series(1, 20000) AS g ORDER BY g")
        frame = cursor.fetch_dataframe()
    assert list(frame.columns) == ["n", "name"]
    assert int(frame["n"].sum()) == 20000 * 20001 // 2
    assert frame["name"].iloc[-1] == "row 20000"


@pytest.mark.parametrize(
    ("sql", "sqlstate"),
    [
        ("SELECT * FROM there_is_no_such_table", "42P01"),
        ("SELEC 1", "42601"),
        ("SELECT 1/0", "22012"),
        ("SELECT no_such_column FROM (SELECT 1 AS a) AS t", "42703"),
    ],
)
def test_errors_carry_their_sqlstate_and_leave_the_session_usable(
    session: redshift_connector.Connection, sql: str, sqlstate: str
) -> None:
    with pytest.raises(redshift_connector.ProgrammingError) as caught:
        rows(session, sql)
    assert caught.value.args[0]["C"] == sqlstate
    assert rows(session, "SELECT 1") == [(1,)]


def test_transactions_commit_roll_back_and_fail(open_session: Open) -> None:
    writer, reader = open_session(), open_session()
    rows(writer, "CREATE TABLE transfers (id int)")
    writer.autocommit = False
    rows(writer, "INSERT INTO transfers VALUES (1)")
    assert rows(reader, "SELECT count(*) FROM transfers") == [(0,)]
    writer.commit()
    assert rows(reader, "SELECT count(*) FROM transfers") == [(1,)]
    rows(writer, "INSERT INTO transfers VALUES (2)")
    with pytest.raises(redshift_connector.ProgrammingError):
        rows(writer, "SELECT * FROM nothing_here")
    with pytest.raises(redshift_connector.ProgrammingError) as caught:
        rows(writer, "SELECT 1")
    assert caught.value.args[0]["C"] == "25P02"
    writer.rollback()
    assert rows(reader, "SELECT count(*) FROM transfers") == [(1,)]


def test_wrong_password_is_refused_by_postgresql(warehouse: EngineProcess) -> None:
    with pytest.raises(redshift_connector.ProgrammingError) as caught:
        redshift_session(warehouse, password="guess")
    assert caught.value.args[0]["C"] == "28P01"


def test_user_of_the_platform_is_no_superuser(session: redshift_connector.Connection) -> None:
    assert rows(session, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user") == [(False,)]
    with pytest.raises(redshift_connector.ProgrammingError) as caught:
        rows(session, "COPY (SELECT 1) TO PROGRAM 'cat'")
    assert caught.value.args[0]["C"] == "42501"


def test_cancel_request_ends_a_query_within_half_a_second(session: redshift_connector.Connection) -> None:
    key = session._backend_key_data
    assert key is not None
    sent: list[float] = []

    def cancel() -> None:
        time.sleep(0.3)
        sent.append(time.monotonic())
        with socket.create_connection(session._usock.getpeername()) as second:
            second.sendall(cancel_packet(key))
            assert second.recv(1) == b""

    thread = threading.Thread(target=cancel)
    thread.start()
    with pytest.raises(redshift_connector.ProgrammingError) as caught:
        rows(session, "SELECT pg_sleep(20)")
    took = time.monotonic() - sent[0]
    thread.join()
    assert caught.value.args[0]["C"] == "57014"
    assert took < 0.5
    assert rows(session, "SELECT 1") == [(1,)]


def test_cancel_request_with_a_guessed_key_changes_nothing(session: redshift_connector.Connection) -> None:
    key = session._backend_key_data
    assert key is not None
    guess = key[:4] + bytes(byte ^ 0xFF for byte in key[4:])
    with socket.create_connection(session._usock.getpeername()) as second:
        second.sendall(cancel_packet(guess))
        assert second.recv(1) == b""
    assert rows(session, "SELECT pg_sleep(0.3), 1") == [("", 1)]


def test_tls_is_declined_and_a_password_is_asked_for(warehouse: EngineProcess) -> None:
    address = (warehouse.env["REDSHIFT_HOST"], int(warehouse.env["REDSHIFT_PORT"]))
    with socket.create_connection(address, timeout=10) as raw:
        raw.sendall(struct.pack("!II", 8, 80877103))
        assert raw.recv(1) == b"N"
        raw.sendall(startup_packet({"user": "nobody_at_all", "database": "warehouse"}))
        assert raw.recv(100)[:9] == b"R\0\0\0\x17\0\0\0\x0a"  # SASL: PostgreSQL does not tell who exists


@pytest.mark.parametrize("junk", [b"GET / HTTP/1.1\r\n\r\n", b"\0\0\0\4", b"\xff" * 64, b""])
def test_junk_on_the_port_ends_that_connection_only(warehouse: EngineProcess, junk: bytes) -> None:
    address = (warehouse.env["REDSHIFT_HOST"], int(warehouse.env["REDSHIFT_PORT"]))
    with socket.create_connection(address, timeout=5) as raw:
        raw.sendall(junk)
        raw.shutdown(socket.SHUT_WR)
        assert raw.recv(100) == b""
    with redshift_session(warehouse) as connection:
        assert rows(connection, "SELECT 1") == [(1,)]


def test_thirty_sessions_work_at_once(warehouse: EngineProcess) -> None:
    with redshift_session(warehouse) as first:
        rows(first, "CREATE TABLE concurrent (worker int, n int)")
    together = threading.Barrier(30, timeout=60)

    def work(worker: int) -> int:
        with redshift_session(warehouse) as connection:
            together.wait()
            for n in range(5):
                rows(connection, "INSERT INTO concurrent VALUES (%s, %s)", (worker, n))
            ((count,),) = rows(connection, "SELECT count(*) FROM concurrent WHERE worker = %s", (worker,))
            return count

    with ThreadPoolExecutor(30) as pool:
        assert list(pool.map(work, range(30))) == [5] * 30


def test_psycopg_speaks_simple_extended_and_pipelined(psycopg_connection: psycopg.Connection[Any]) -> None:
    connection = psycopg_connection
    assert connection.execute("SELECT dateadd(day, 1, date '2013-02-28')").fetchone() == (
        datetime(2013, 3, 1),  # noqa: DTZ001
    )
    simple = psycopg.ClientCursor(connection)
    simple.execute("SELECT nvl(%s, 2); SELECT sysdate IS NOT NULL", [None])
    assert simple.fetchone() == (2,)
    assert simple.nextset()
    assert simple.fetchone() == (True,)
    with connection.pipeline():
        cursors = [connection.execute("SELECT nvl2(%s::int, 'some', 'none')", [value]) for value in (1, None, 3)]
    assert [cursor.fetchone() for cursor in cursors] == [("some",), ("none",), ("some",)]


def test_large_rows_and_copy_pass_through(psycopg_connection: psycopg.Connection[Any]) -> None:
    connection = psycopg_connection
    wide = connection.execute("SELECT repeat('x', 20000000)").fetchone()
    assert wide is not None
    assert len(wide[0]) == 20_000_000
    connection.execute("CREATE TEMP TABLE copied (n int, t text)")
    with connection.cursor().copy("COPY copied FROM STDIN") as copy:
        for n in range(10_000):
            copy.write_row((n, f"text {n}"))
    assert connection.execute("SELECT count(*), max(n) FROM copied").fetchone() == (10_000, 9_999)


def test_prepared_statements_are_translated_once_and_reused(warehouse: EngineProcess) -> None:
    with psycopg_session(warehouse, prepare_threshold=1) as connection:
        for n in range(5):
            assert connection.execute("SELECT nvl(%s::int, 9)", [n]).fetchone() == (n,)


def test_awswrangler_reads_and_writes_through_the_driver(session: redshift_connector.Connection) -> None:
    import awswrangler as wr
    import pandas as pd

    frame = pd.DataFrame({"id": [1, 2, 3], "name": ["a", "b\\c", "it's"], "price": [1.5, 2.5, None]})
    wr.redshift.to_sql(frame, session, table="wrangled", schema="public", mode="overwrite", index=False)
    back = wr.redshift.read_sql_query("SELECT * FROM public.wrangled ORDER BY id", session)
    assert back["name"].tolist() == ["a", "b\\c", "it's"]
    assert back["price"].isna().tolist() == [False, False, True]


def test_query_log_views_show_what_ran(session: redshift_connector.Connection, open_session: Open) -> None:
    rows(session, "SET query_group TO 'nightly'")
    rows(session, "SELECT 41 + 1 AS marked_statement")
    with pytest.raises(redshift_connector.ProgrammingError):
        rows(session, "SELECT 1/0 AS marked_statement")
    sql = "SELECT label, trim(querytxt), aborted FROM stl_query WHERE querytxt LIKE '%%marked_statement' ORDER BY query"
    assert rows(open_session(), sql) == [
        ("nightly", "SELECT 41 + 1 AS marked_statement", 0),
        ("nightly", "SELECT 1/0 AS marked_statement", 1),
    ]
    last = "SELECT pg_last_query_id() = max(query) FROM stl_query WHERE pid = pg_backend_pid()"
    assert rows(session, last) == [(True,)]


def test_running_statements_are_in_flight(session: redshift_connector.Connection, open_session: Open) -> None:
    watcher = open_session()
    thread = threading.Thread(target=rows, args=(session, "SELECT pg_sleep(1.2) /* long one */"))
    thread.start()
    deadline = time.monotonic() + 1.1
    seen: list[Any] = []
    while not seen and time.monotonic() < deadline:
        seen = rows(watcher, "SELECT pid FROM stv_inflight WHERE text LIKE '%%long one%%' AND pid <> pg_backend_pid()")
    thread.join()
    assert seen == [(struct.unpack("!i", (session._backend_key_data or b"")[:4])[0],)]


def test_passwords_do_not_reach_the_query_log(session: redshift_connector.Connection) -> None:
    rows(session, "CREATE USER logged_user PASSWORD 'S3cret''pass\\\\word'")
    ((text,),) = rows(session, "SELECT trim(querytxt) FROM stl_query WHERE querytxt LIKE 'CREATE USER logged%%'")
    assert text == "CREATE USER logged_user PASSWORD '***'"
