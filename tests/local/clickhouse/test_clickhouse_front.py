"""The HTTP interface as any client sees it: answers, errors, bodies in and out."""

import gzip
import json
import socket
import time
from collections.abc import Iterator
from urllib.parse import quote

import lz4.frame
import pytest
from backports import zstd

from data_platform.local.process import EngineProcess
from tests.local.clickhouse.conftest import CREDENTIALS, Http, until

pytestmark = pytest.mark.integration

# Questions and answers


def test_health_needs_no_password(http: Http) -> None:
    for path in ("/ping", "/replicas_status", "/"):
        assert http(method="GET", path=path, headers={}).text == "Ok."


def test_a_statement_comes_by_parameter_by_body_or_by_both(http: Http) -> None:
    assert http(method="GET", query="SELECT 1").text == "1"
    assert http.sql("SELECT 2") == "2"
    assert http(b"+ 2", query="SELECT 1").text == "3"
    assert http(iter([b"SELECT ", b"4"])).text == "4"


def test_an_answer_says_what_it_is(http: Http) -> None:
    reply = http(b"SELECT number FROM numbers(10) FORMAT JSONEachRow", query_id="described", wait_end_of_query=1)
    assert reply.headers["X-ClickHouse-Query-Id"] == "described"
    assert reply.headers["X-ClickHouse-Format"] == "JSONEachRow"
    assert reply.headers["X-ClickHouse-Timezone"] == "UTC"
    assert reply.headers["Content-Type"].startswith("application/x-ndjson")
    summary = json.loads(reply.headers["X-ClickHouse-Summary"])
    assert (summary["read_rows"], summary["result_rows"], summary["written_rows"]) == ("10", "10", "0")


def test_formats(http: Http) -> None:
    assert http.sql("SELECT 1 AS a", default_format="JSONCompactEachRow") == "[1]"
    assert json.loads(http.sql("SELECT 1 AS a FORMAT JSON", default_format="CSV"))["data"] == [{"a": 1}]
    assert http(b"SELECT 1 AS a FORMAT Parquet").body[:4] == b"PAR1"
    by_header = http(b"SELECT 'x' AS a", headers={**CREDENTIALS, "X-ClickHouse-Format": "CSV"})
    assert by_header.text == '"x"'


def test_parameters_and_settings_are_values_not_text(http: Http) -> None:
    assert http.sql("SELECT {x:String} || '!'", param_x="'; DROP") == "\\'; DROP!"
    assert http.sql("SELECT getSetting('max_threads')", max_threads=1) == "1"
    assert http.sql("SELECT getSetting('log_comment')", log_comment="it's \\ so") == "it\\'s \\\\ so"
    assert http.sql("SELECT getSetting('max_threads') SETTINGS max_threads = 2", max_threads=1) == "2"
    assert int(http.sql("SELECT getSetting('max_threads')")) != 1, "a setting must not outlive its request"


def test_the_database_of_a_request(http: Http) -> None:
    http.sql("CREATE DATABASE IF NOT EXISTS `odd``name`")
    assert http.sql("SELECT currentDatabase()", database="odd`name") == "odd`name"
    assert http.sql("SELECT currentDatabase()") == "default"
    assert http(b"SELECT 1", database="nowhere").code == 81


@pytest.mark.parametrize(
    ("statement", "status", "code"),
    [
        ("SELECT * FROM nobody", 404, 60),
        ("SELECT * FROM nowhere.nobody", 404, 81),
        ("SELECT nobody", 404, 47),
        ("SELEC 1", 400, 62),
        ("SELECT", 400, 62),  # the engine refuses it before there is a stream of rows
        ("SELECT * FROM numbers(1) WHERE", 400, 62),
        ("1 + 1", 400, 62),
        ("SELECT 1; SELECT 2", 400, 62),
        ("-- only a comment", 400, 62),
        (" /* another */ ; ", 400, 62),
        ("", 400, 62),
        ("SELECT toInt32('x')", 400, 6),
        ("SELECT throwIf(1)", 500, 395),
        ("SELECT sum(sipHash64(number)) FROM numbers(100000000000) SETTINGS max_execution_time = 0.2", 408, 159),
    ],
)
def test_an_error_has_the_servers_status_code_and_text(http: Http, statement: str, status: int, code: int) -> None:
    reply = http(statement.encode())
    assert (reply.status, reply.code) == (status, code)
    assert reply.text.startswith(f"Code: {code}. DB::Exception: ")
    assert reply.text.endswith(")")


def test_unknown_settings_are_refused(http: Http) -> None:
    assert http(b"SELECT 1", no_such_setting=1).code == 115
    assert http(b"SELECT 1", **{"max_threads = 1, readonly": 1}).code == 115


@pytest.mark.security
def test_a_password_is_asked_for(http: Http) -> None:
    assert http(b"SELECT 1", session_id="s", session_timeout="soon").code == 374
    for headers in ({}, {"X-ClickHouse-User": "default", "X-ClickHouse-Key": "guess"}, {"Authorization": "Bearer x"}):
        refused = http(b"SELECT 1", headers=headers)
        assert (refused.status, refused.code) == (403, 516)
    assert http(b"SELECT 1", headers={"X-ClickHouse-User": "default", "X-ClickHouse-Key": "embedded"}).text == "1"
    assert http(b"SELECT 1", headers={}, user="default", password="embedded").text == "1"


@pytest.mark.security
def test_the_keys_of_the_lake_are_never_shown(http: Http) -> None:
    secret = "a-secret-of-the-lake"
    assert secret not in http.sql("SELECT * FROM system.named_collections FORMAT Vertical")
    reply = http(
        b"SELECT * FROM s3(platform_s3, url = 'http://127.0.0.1:1/lake/k', format = 'CSV')", s3_retry_attempts=0
    )
    assert reply.code == 499
    assert secret not in reply.text
    http.sql("SYSTEM FLUSH LOGS")
    logged = http.sql(f"SELECT count() FROM system.query_log WHERE query LIKE '%{secret[:8]}%{secret[9:]}%'")
    assert int(logged) <= 1, "only this very question may hold it"


def test_a_get_changes_nothing(http: Http, table: str) -> None:
    for statement in (f"INSERT INTO {table} VALUES (1, 'x')", f"DROP TABLE {table}"):
        assert http(method="GET", query=statement).code == 164
    assert http(f"INSERT INTO {table} VALUES (1, 'x')".encode(), readonly=1).code == 164
    assert http.sql(f"SELECT count() FROM {table}") == "0"


# Bodies


@pytest.mark.parametrize("encoding", ["gzip", "lz4", "zstd"])
def test_bodies_are_compressed_in_both_directions(http: Http, table: str, encoding: str) -> None:
    compress = {"gzip": gzip.compress, "lz4": lz4.frame.compress, "zstd": zstd.compress}[encoding]
    decompress = {"gzip": gzip.decompress, "lz4": lz4.frame.decompress, "zstd": zstd.decompress}[encoding]
    rows = b"".join(b'{"a": %d, "s": "x"}\n' % number for number in range(1000))
    frames = compress(rows[:9000]) + compress(rows[9000:])
    statement = f"INSERT INTO {table} FORMAT JSONEachRow"
    sent = http(frames, query=statement, headers={**CREDENTIALS, "Content-Encoding": encoding})
    assert json.loads(sent.headers["X-ClickHouse-Summary"])["written_rows"] == "1000"
    got = http(
        f"SELECT a FROM {table} ORDER BY a".encode(),
        enable_http_compression=1,
        headers={**CREDENTIALS, "Accept-Encoding": encoding},
    )
    assert got.headers["Content-Encoding"] == encoding
    assert decompress(got.body).split() == [b"%d" % number for number in range(1000)]


def test_a_damaged_or_foreign_body_is_refused_and_writes_nothing(http: Http, table: str) -> None:
    statement = f"INSERT INTO {table} FORMAT JSONEachRow"
    whole = gzip.compress(b'{"a": 1, "s": "x"}\n')
    for body, encoding, code in ((whole[:-4], "gzip", 271), (b"zzzz", "gzip", 271), (b"{}", "snappy", 89)):
        reply = http(body, query=statement, headers={**CREDENTIALS, "Content-Encoding": encoding})
        assert reply.code == code
    assert http.sql(f"SELECT count() FROM {table}") == "0"


@pytest.mark.parametrize(
    ("data_format", "rows"),
    [
        ("Values", "(1, 'a'), (1 + 1, 'b')"),
        ("CSV", "1,a\n2,b\n"),
        ("TabSeparated", "1\ta\n2\tb\n"),
        ("JSONEachRow", '{"a": 1, "s": "a"}\n{"a": 2, "s": "b"}'),
    ],
)
def test_rows_come_behind_the_statement_or_beside_it(http: Http, table: str, data_format: str, rows: str) -> None:
    statement = f"INSERT INTO {table} FORMAT {data_format}"
    http.sql(f"{statement}\n{rows}")
    http.sql(rows, query=statement)
    http.sql(rows, query=f"INSERT INTO {table} SELECT a + 2, s FROM input('a Int64, s String') FORMAT {data_format}")
    assert http.sql(f"SELECT groupArray(a) FROM (SELECT a FROM {table} ORDER BY a)") == "[1,1,2,2,3,4]"


@pytest.mark.parametrize("data_format", ["Native", "Parquet", "Arrow", "RowBinary"])
def test_binary_rows_make_the_round_trip(http: Http, table: str, data_format: str) -> None:
    made = http(f"SELECT number::Int64 AS a, toString(number) AS s FROM numbers(5000) FORMAT {data_format}".encode())
    statement = f"INSERT INTO {table} FORMAT {data_format}\n".encode()
    assert http(statement + made.body).status == 200
    assert http(iter([made.body[:1000], made.body[1000:]]), query=statement.decode()).status == 200
    assert http.sql(f"SELECT count(), sum(a), uniqExact(s) FROM {table}") == "10000\t24995000\t5000"


def test_parameters_name_the_target_of_an_insert(http: Http, table: str) -> None:
    http.sql("1,a\n", query="INSERT INTO {target:Identifier} FORMAT CSV", param_target=table)
    assert http.sql("SELECT count() FROM {target:Identifier}", param_target=table) == "1"


def test_an_insert_cut_off_in_its_body_writes_nothing(http: Http, table: str) -> None:
    with socket.create_connection(("127.0.0.1", http.port)) as raw:
        target = quote(f"INSERT INTO {table} FORMAT JSONEachRow")
        head = f"POST /?query={target} HTTP/1.1\r\nHost: x\r\nAuthorization: {CREDENTIALS['Authorization']}\r\n"
        raw.sendall(f"{head}Content-Length: 1000\r\n\r\n".encode() + b'{"a": 1, "s": "x"}\n')
    time.sleep(0.3)
    assert http.sql(f"SELECT count() FROM {table}") == "0"


def test_a_large_insert_is_written_while_it_is_sent(http: Http, table: str) -> None:
    rows = b'{"a": 1, "s": "x"}\n' * 10_000
    seen = 0

    def body() -> Iterator[bytes]:
        nonlocal seen
        for _ in range(40):
            yield rows
        until(lambda: int(http.sql(f"SELECT count() FROM {table}")) > 0)
        seen = int(http.sql(f"SELECT count() FROM {table}"))
        yield rows

    blocks = {"max_insert_block_size": 10_000, "min_insert_block_size_rows": 10_000}
    assert http(body(), query=f"INSERT INTO {table} FORMAT JSONEachRow", **blocks).status == 200
    assert 0 < seen < 410_000
    assert http.sql(f"SELECT count() FROM {table}") == "410000"


def test_a_format_read_from_its_end_waits_on_disk(http: Http, engine: EngineProcess, table: str) -> None:
    made = http(b"SELECT number::Int64 AS a, randomPrintableASCII(100) AS s FROM numbers(50000) FORMAT Parquet").body
    waiting = 0

    def spooled() -> int:
        return sum(file.stat().st_size for file in (engine.state / "spool").iterdir())

    def body() -> Iterator[bytes]:
        nonlocal waiting
        yield made[:-1000]
        until(lambda: spooled() > len(made) // 2, seconds=30)
        waiting = spooled()
        yield made[-1000:]

    statement = f"INSERT INTO {table} (a, s) SETTINGS max_threads = 1 FORMAT Parquet"
    assert http(body(), query=statement).status == 200
    assert waiting > len(made) // 2
    assert http.sql(f"SELECT count(), uniqExact(a) FROM {table}") == "50000\t50000"
    assert not list((engine.state / "spool").iterdir())


# Streams


def test_a_large_answer_flows_while_it_is_computed(http: Http) -> None:
    started = time.monotonic()
    connection = socket.create_connection(("127.0.0.1", http.port))
    target = quote("SELECT number, sleepEachRow(0.0000005) FROM numbers(3000000) FORMAT CSV")
    head = f"GET /?query={target} HTTP/1.1\r\nHost: x\r\nAuthorization: {CREDENTIALS['Authorization']}\r\n\r\n"
    connection.sendall(head.encode())
    first = connection.recv(1000)
    first_at = time.monotonic() - started
    size = len(first)
    while not first.endswith(b"0\r\n\r\n"):
        first = connection.recv(1 << 20)
        size += len(first)
    connection.close()
    assert size > 20_000_000
    assert first_at < 0.7 * (time.monotonic() - started)


def test_a_failure_behind_the_first_rows_ends_the_body_with_the_exception(http: Http) -> None:
    connection = socket.create_connection(("127.0.0.1", http.port))
    target = quote("SELECT number, throwIf(number = 5000000) FROM numbers(9000000) FORMAT CSV")
    head = f"GET /?query={target} HTTP/1.1\r\nHost: x\r\nAuthorization: {CREDENTIALS['Authorization']}\r\n\r\n"
    connection.sendall(head.encode())
    body = b""
    while piece := connection.recv(1 << 20):
        body += piece
    connection.close()
    assert body.startswith(b"HTTP/1.1 200")
    tag = body.partition(b"X-ClickHouse-Exception-Tag: ")[2][:16]
    assert b"\r\n__exception__\r\n" + tag + b"\r\nCode: 395. " in body
    assert not body.endswith(b"0\r\n\r\n"), "an answer cut short must not look complete"


def test_waiting_for_the_end_turns_a_late_failure_into_a_status(http: Http) -> None:
    reply = http(b"SELECT throwIf(number = 5000000) FROM numbers(9000000)", wait_end_of_query=1)
    assert (reply.status, reply.code) == (500, 395)


def test_totals_are_not_lost_on_the_way(http: Http) -> None:
    text = http.sql("SELECT number % 2 AS k, count() FROM numbers(10) GROUP BY k WITH TOTALS ORDER BY k")
    assert text.splitlines() == ["0\t5", "1\t5", "", "0\t10"]
