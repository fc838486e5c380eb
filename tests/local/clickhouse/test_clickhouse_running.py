"""Statements under way: their ids, their end by hand or by a client that leaves, sessions, faults, a killed engine."""

import contextlib
import shutil
import socket
import subprocess
import threading
import time
from pathlib import Path
from urllib.parse import quote

import pytest

from data_platform.local.process import EngineProcess
from tests.local.clickhouse.conftest import CREDENTIALS, Http, until

pytestmark = pytest.mark.integration

ENDLESS = "SELECT count() FROM numbers(1000000000000) WHERE NOT ignore(sipHash64(number))"


def running(http: Http, query_id: str) -> bool:
    return http.sql(f"SELECT count() FROM system.processes WHERE query_id = '{query_id}'") == "1"


def ask_a_dying_engine(http: Http, query_id: str) -> None:
    with contextlib.suppress(ConnectionError):
        http(ENDLESS.encode(), query_id=query_id)


# Ids, sessions, cancellation


def test_a_running_id_is_refused_a_second_time(http: Http) -> None:
    thread = threading.Thread(target=http, args=(ENDLESS.encode(),), kwargs={"query_id": "twin"})
    thread.start()
    until(lambda: running(http, "twin"))
    second = http(b"SELECT 1", query_id="twin")
    http.sql("KILL QUERY WHERE query_id = 'twin' SYNC")
    thread.join()
    assert (second.status, second.code) == (500, 216)
    assert http.sql("SELECT 1", query_id="twin") == "1"


def test_ids_are_found_in_the_query_log_with_the_truth(http: Http, table: str) -> None:
    http.sql(f"INSERT INTO {table} SELECT number, 'x' FROM numbers(7)", query_id="logged")
    http(b"SELECT throwIf(1)", query_id="failed")
    http.sql("SELECT 1", query_id="commented", log_comment="mine")
    http.sql("SYSTEM FLUSH LOGS")
    columns = "type, written_rows, exception_code, log_comment"
    rows = http.sql(
        f"SELECT query_id, {columns} FROM system.query_log WHERE type > 1"
        " AND query_id IN ('logged', 'failed', 'commented') ORDER BY query_id"
    )
    assert [line.split("\t") for line in rows.splitlines()] == [
        ["commented", "QueryFinish", "0", "0", "mine"],
        ["failed", "ExceptionWhileProcessing", "0", "395", "failed"],
        ["logged", "QueryFinish", "7", "0", "logged"],
    ]


def test_kill_by_id_ends_the_query_with_394(http: Http) -> None:
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(http(ENDLESS.encode(), query_id="victim").code))
    thread.start()
    until(lambda: running(http, "victim"))
    http.sql("KILL QUERY WHERE query_id = 'victim' SYNC")
    thread.join()
    assert codes == [394]


@pytest.mark.parametrize(("cancels", "readonly"), [(1, 1), (1, 0), (0, 1)])
def test_a_client_that_goes_away_cancels_only_a_readonly_query_that_says_so(
    http: Http, cancels: int, readonly: int
) -> None:
    query_id = f"left-{cancels}-{readonly}"
    raw = socket.create_connection(("127.0.0.1", http.port))
    target = f"/?query_id={query_id}&readonly={readonly}&cancel_http_readonly_queries_on_client_close={cancels}"
    head = f"POST {target} HTTP/1.1\r\nHost: x\r\nAuthorization: {CREDENTIALS['Authorization']}\r\n"
    raw.sendall(f"{head}Content-Length: {len(ENDLESS)}\r\n\r\n{ENDLESS}".encode())
    until(lambda: running(http, query_id))
    raw.close()
    if cancels and readonly:
        until(lambda: not running(http, query_id))
    else:
        time.sleep(1)
        assert running(http, query_id)
        http.sql(f"KILL QUERY WHERE query_id = '{query_id}' SYNC")


def test_a_client_that_leaves_in_the_middle_of_the_rows_ends_the_query(http: Http) -> None:
    raw = socket.create_connection(("127.0.0.1", http.port))
    target = f"/?query_id=abandoned&query={quote('SELECT number FROM system.numbers FORMAT RowBinary')}"
    raw.sendall(f"GET {target} HTTP/1.1\r\nHost: x\r\nAuthorization: {CREDENTIALS['Authorization']}\r\n\r\n".encode())
    assert len(raw.recv(1 << 16)) > 0
    assert running(http, "abandoned")
    raw.close()
    until(lambda: not running(http, "abandoned"))
    assert http.sql("SELECT 1", query_id="abandoned") == "1"


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not on PATH")
def test_curl(http: Http, table: str, tmp_path: Path) -> None:
    def curl(*arguments: str) -> str:
        address = f"http://127.0.0.1:{http.port}/"
        command = ["curl", "-sS", "--max-time", "20", "-u", "default:embedded", *arguments]
        return subprocess.run([*command[:-1], address + command[-1]], check=True, capture_output=True, text=True).stdout

    rows = tmp_path / "rows.csv"
    rows.write_text("".join(f"{number},x\n" for number in range(300_000)))
    started = time.monotonic()
    assert curl("--data-binary", f"@{rows}", f"?query=INSERT%20INTO%20{table}%20FORMAT%20CSV") == ""
    assert time.monotonic() - started < 5
    assert curl("-d", f"SELECT count() FROM {table}", "") == "300000\n"
    assert curl("--compressed", "-d", "SELECT 1", "?enable_http_compression=1") == "1\n"
    assert curl("-G", "--data-urlencode", "query=SELECT {x:String}", "-d", "param_x=y", "") == "y\n"


def test_a_session_keeps_what_statements_set_and_nothing_a_request_sets(http: Http) -> None:
    http.sql("SET max_block_size = 77", session_id="one")
    http.sql("CREATE TEMPORARY TABLE kept (a Int8)", session_id="one")
    http.sql("INSERT INTO kept VALUES (1)", session_id="one")
    asked = "SELECT getSetting('max_block_size'), getSetting('max_threads') = 1, (SELECT count() FROM kept)"
    assert http.sql(asked, session_id="one", max_threads=1) == "77\t1\t1"
    assert http.sql(asked, session_id="one") == "77\t0\t1"
    http.sql("USE system", session_id="one")
    assert http.sql("SELECT currentDatabase()", session_id="one") == "system"
    assert http.sql("SELECT currentDatabase()", session_id="one", database="default") == "default"
    assert http.sql("SELECT currentDatabase()", session_id="one") == "system"
    assert http(b"SELECT * FROM kept", session_id="two").code == 60
    assert http(method="GET", query="DROP TABLE kept", session_id="one").code == 164
    assert http(b"SELECT 1", session_id="never", session_check=1).code == 372


def test_a_session_serves_one_request_at_a_time(http: Http) -> None:
    options = {"session_id": "busy", "query_id": "busy-query"}
    thread = threading.Thread(target=http, args=(ENDLESS.encode(),), kwargs=options)
    thread.start()
    until(lambda: running(http, "busy-query"))
    second = http(b"SELECT 1", session_id="busy")
    http.sql("KILL QUERY WHERE query_id = 'busy-query' SYNC")
    thread.join()
    assert second.code == 373


def test_a_query_is_answered_while_a_long_one_runs(http: Http) -> None:
    thread = threading.Thread(target=http, args=(ENDLESS.encode(),), kwargs={"query_id": "long"})
    thread.start()
    until(lambda: running(http, "long"))
    started = time.monotonic()
    for _ in range(10):
        http.sql("SELECT 1")
    took = time.monotonic() - started
    http.sql("KILL QUERY WHERE query_id = 'long' SYNC")
    thread.join()
    assert took < 2


def test_eight_callers_overlap(http: Http) -> None:
    threads = [threading.Thread(target=http.sql, args=("SELECT sleep(1)",)) for _ in range(8)]
    started = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert time.monotonic() - started < 5  # one after another: 8 s


# Fault switches


def test_an_injected_error_strikes_what_it_matches_and_executes_nothing(
    http: Http, faults: EngineProcess, table: str
) -> None:
    armed = faults.faults.arm(
        "clickhouse.error", match={"sql": f"INSERT*{table}*"}, code=252, status=500, message="Too many parts (300)."
    )
    assert http.sql("SELECT 1") == "1"
    refused = http(f"INSERT INTO {table} VALUES (1, 'x')".encode())
    assert (refused.status, refused.code) == (500, 252)
    assert "Too many parts" in refused.text
    assert faults.faults.struck(armed) == 1
    assert http.sql(f"SELECT count() FROM {table}") == "0"


@pytest.mark.parametrize(("kind", "executed"), [("clickhouse.drop_before", "0"), ("clickhouse.drop_after", "1")])
def test_a_lost_request_and_a_lost_answer(
    http: Http, faults: EngineProcess, table: str, kind: str, executed: str
) -> None:
    armed = faults.faults.arm(kind, match={"query_id": "lost"})
    with pytest.raises(ConnectionError):
        http(f"INSERT INTO {table} VALUES (1, 'x')".encode(), query_id="lost")
    assert faults.faults.struck(armed) == 1
    assert http.sql(f"SELECT count() FROM {table}") == executed


def test_delay_and_truncation(http: Http, faults: EngineProcess) -> None:
    slow = faults.faults.arm("clickhouse.delay", seconds=0.5)
    started = time.monotonic()
    assert http.sql("SELECT 1") == "1"
    assert time.monotonic() - started >= 0.5
    cut = faults.faults.arm("clickhouse.truncate", bytes=10)
    with pytest.raises(Exception, match=r"IncompleteRead"):
        http(b"SELECT number FROM numbers(1000)")
    assert (faults.faults.struck(slow), faults.faults.struck(cut)) == (1, 1)


def test_a_late_exception_comes_behind_a_200(http: Http, faults: EngineProcess) -> None:
    armed = faults.faults.arm("clickhouse.late_exception", code=241, message="memory")
    with pytest.raises(Exception, match="IncompleteRead"):
        http(b"SELECT 1")
    assert faults.faults.struck(armed) == 1


# Life and death


def test_what_was_acknowledged_survives_kill_and_stop(tmp_path: Path) -> None:
    process = EngineProcess.with_free_ports("clickhouse", tmp_path).start()
    http = Http(process.ports["http"])
    found_in_log = "SELECT count() FROM system.query_log WHERE query_id = 'before-the-kill' AND type = 'QueryFinish'"
    try:
        http.sql("CREATE DATABASE d")
        http.sql("CREATE TABLE d.t (a Int64) ENGINE = MergeTree ORDER BY a")
        http.sql("INSERT INTO d.t SELECT number FROM numbers(100000)")
        http.sql("INSERT INTO d.t VALUES (-1)")
        http.sql("SELECT 1", query_id="before-the-kill")
        http.sql("SYSTEM FLUSH LOGS")
        process.kill()
        process.start()
        assert http.sql("SELECT count(), min(a) FROM d.t") == "100001\t-1"
        assert http.sql(found_in_log) == "1"
        thread = threading.Thread(target=ask_a_dying_engine, args=(http, "last"))
        thread.start()
        until(lambda: running(http, "last"))
        started = time.monotonic()
        process.stop()
        assert time.monotonic() - started < 5
        thread.join()
        process.start()
        assert http.sql("SELECT count() FROM d.t") == "100001"
        assert http.sql(found_in_log) == "1"
    finally:
        process.stop()
