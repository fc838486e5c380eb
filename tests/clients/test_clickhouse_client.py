"""The ClickHouse client: errors the engine really makes, S3 by named collection, nothing repeated behind our back."""

import io
from collections.abc import Iterator
from pathlib import Path

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError, OperationalError

from data_platform.clients import clickhouse
from data_platform.clients.clickhouse import ErrorFacts, classify, inner_code, quote_identifier, s3_source
from data_platform.errors import ConfigurationError, Fault, PlatformError, TransientError
from data_platform.local.process import EngineProcess, free_port
from data_platform.settings import Settings

BUCKET = "lake"
ROWS = 20_000
CROWDED = "parts_to_throw_insert = 1, parts_to_delay_insert = 1, max_delay_to_insert = 0"


def make_settings(**values: object) -> Settings:
    return Settings.model_validate({"clickhouse_secure": False, **values})


def settings_of(aws: EngineProcess, engine: EngineProcess, **changes: object) -> Settings:
    env = {**aws.env, **engine.env}
    values: dict[str, object] = {
        "aws_endpoint_url": env["AWS_ENDPOINT_URL"],
        "aws_region": env["AWS_DEFAULT_REGION"],
        "clickhouse_host": env["CLICKHOUSE_HOST"],
        "clickhouse_port": int(env["CLICKHOUSE_PORT"]),
        "clickhouse_user": env["CLICKHOUSE_USER"],
        "clickhouse_password": env["CLICKHOUSE_PASSWORD"],
        "clickhouse_s3_collection": env["DATA_PLATFORM_CLICKHOUSE_S3_COLLECTION"],
    }
    return make_settings(**{**values, **changes})


def parquet(**columns: object) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


def with_bits_flipped(data: bytes) -> bytes:
    damaged = bytearray(data)
    for position in range(1000, len(damaged) // 2, 97):
        damaged[position] ^= 0xFF
    return bytes(damaged)


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    engine = EngineProcess.with_free_ports("aws", tmp_path_factory.mktemp("aws")).start()
    yield engine
    engine.stop()


@pytest.fixture(scope="module")
def engine(aws: EngineProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    process = EngineProcess.with_free_ports("clickhouse", tmp_path_factory.mktemp("clickhouse"), {"env": aws.env})
    yield process.start()
    process.stop()


@pytest.fixture(scope="module")
def objects(aws: EngineProcess) -> None:
    """One good object and every bad one of the table in the loading design."""
    s3 = boto3.client(
        "s3",
        endpoint_url=aws.env["AWS_ENDPOINT_URL"],
        aws_access_key_id=aws.env["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=aws.env["AWS_SECRET_ACCESS_KEY"],
        region_name="us-east-1",
    )
    s3.create_bucket(Bucket=BUCKET)
    good = parquet(a=pa.array(range(ROWS), pa.int64()), s=[str(i) for i in range(ROWS)])
    bodies = {
        "good.parquet": good,
        "with space & ümlaut.parquet": good,
        "truncated.parquet": good[: len(good) // 2],
        "magic.parquet": b"XXXX" + good[4:-4] + b"XXXX",
        "flipped.parquet": with_bits_flipped(good),
        "text.parquet": parquet(a=["x"], s=["y"]),
        "null.parquet": parquet(a=pa.array([1, None], pa.int64()), s=["x", "y"]),
        "lacking.parquet": parquet(a=[1, 2]),
        "wide.parquet": parquet(a=[2**40], s=["x"]),
        "empty.parquet": b"",
    }
    for key, body in bodies.items():
        s3.put_object(Bucket=BUCKET, Key=key, Body=body)


@pytest.fixture(scope="module")
def settings(aws: EngineProcess, engine: EngineProcess, objects: None) -> Settings:
    return settings_of(aws, engine)


@pytest.fixture(scope="module")
def client(settings: Settings) -> Iterator[Client]:
    connection = clickhouse.connect(settings)
    for statement in (
        "CREATE TABLE target (a Int64, s String) ENGINE = MergeTree ORDER BY a",
        "CREATE TABLE narrow (a Int32, s String) ENGINE = MergeTree ORDER BY a",
        "CREATE TABLE scattered (a Int64, s String) ENGINE = MergeTree PARTITION BY a ORDER BY a",
        f"CREATE TABLE crowded (a Int64) ENGINE = MergeTree ORDER BY a SETTINGS {CROWDED}",
    ):
        connection.command(statement)
    yield connection
    connection.close()


STRICT = {
    "s3_retry_attempts": 0,
    "input_format_null_as_default": 0,
    "input_format_parquet_allow_missing_columns": 0,
    "s3_skip_empty_files": 0,
}


def load(client: Client, settings: Settings, key: str, *, table: str = "target", bucket: str = BUCKET) -> None:
    source = s3_source(settings, bucket, key, structure="a Int64, s String")
    client.command(f"INSERT INTO {table} SELECT * FROM {source}", settings=STRICT)


def failure(client: Client, settings: Settings, key: str, **where: str) -> tuple[Fault, ErrorFacts]:
    with pytest.raises(DatabaseError) as caught:
        load(client, settings, key, **where)
    return classify(caught.value), inner_code(caught.value)


def error_of(client: Client, statement: str, **options: object) -> DatabaseError:
    with pytest.raises(DatabaseError) as caught:
        client.command(statement, settings=options)
    return caught.value


# Errors the engine makes


@pytest.mark.integration
@pytest.mark.parametrize(
    ("key", "code"),
    [
        ("truncated.parquet", 117),
        ("magic.parquet", 117),
        ("empty.parquet", 117),
        ("flipped.parquet", 271),
        ("text.parquet", 6),
        ("null.parquet", 349),
        ("lacking.parquet", 8),
    ],
)
def test_a_bad_object_is_permanent(client: Client, settings: Settings, key: str, code: int) -> None:
    fault, facts = failure(client, settings, key)
    assert (fault, facts.code) == (Fault.PERMANENT, code)
    assert not facts.source_gone


@pytest.mark.integration
def test_a_missing_object_is_told_as_gone(client: Client, settings: Settings) -> None:
    fault, facts = failure(client, settings, "nobody.parquet")
    assert fault is Fault.PERMANENT
    assert (facts.outer_code, facts.http_status, facts.source_gone) == (499, 404, True)


@pytest.mark.integration
def test_a_missing_bucket_cannot_be_told_from_a_missing_object_but_by_a_listing(
    client: Client, settings: Settings
) -> None:
    _, facts = failure(client, settings, "good.parquet", bucket="nobucket")
    assert facts.source_gone, "a HEAD answers 404 without a body for both"
    source = s3_source(settings, "nobucket", "*.parquet", structure="a Int64", glob=True)
    listed = error_of(client, f"SELECT count() FROM {source}", s3_retry_attempts=0)
    assert (classify(listed), inner_code(listed).s3_name) == (Fault.CONFIGURATION, "NoSuchBucket")
    assert not inner_code(listed).source_gone


@pytest.mark.integration
@pytest.mark.parametrize(
    ("status", "fault"),
    [(403, Fault.CONFIGURATION), (503, Fault.THROTTLED), (500, Fault.TRANSIENT)],
)
def test_what_s3_answers_decides(
    client: Client, settings: Settings, aws: EngineProcess, status: int, fault: Fault
) -> None:
    armed = aws.faults.arm("s3.error", times=None, status=status)
    try:
        found, facts = failure(client, settings, "good.parquet")
    finally:
        struck = aws.faults.struck(armed)
        aws.faults.clear()
    assert (found, facts.http_status) == (fault, status)
    assert struck >= 1


@pytest.mark.integration
@pytest.mark.parametrize("address", ["http://127.0.0.1:1", "http://no.such.host.invalid"])
def test_s3_that_does_not_answer_is_transient(client: Client, settings: Settings, address: str) -> None:
    elsewhere = settings.model_copy(update={"clickhouse_s3_endpoint": address})
    fault, facts = failure(client, elsewhere, "good.parquet")
    assert (fault, facts.outer_code, facts.http_status) == (Fault.TRANSIENT, 499, None)
    assert facts.code in (1000, 198)


@pytest.mark.integration
def test_an_inferred_structure_wraps_the_reason(client: Client, settings: Settings) -> None:
    facts = inner_code(error_of(client, f"DESCRIBE {s3_source(settings, BUCKET, 'magic.parquet')}"))
    assert (facts.outer_code, facts.code) == (636, 117)


@pytest.mark.integration
def test_two_opposite_failures_share_code_252(client: Client, settings: Settings) -> None:
    fault, facts = failure(client, settings, "good.parquet", table="scattered")
    assert (fault, facts.code) == (Fault.PERMANENT, 252)
    client.command("SYSTEM STOP MERGES crowded")
    client.command("INSERT INTO crowded SELECT 1")
    crowded = error_of(client, "INSERT INTO crowded SELECT 2")
    assert (classify(crowded), inner_code(crowded).code) == (Fault.THROTTLED, 252)


@pytest.mark.integration
def test_settings_and_tables_that_are_not_there_are_configuration(client: Client, settings: Settings) -> None:
    for table, code in (("nobody", 60), ("nowhere.target", 81)):
        fault, facts = failure(client, settings, "good.parquet", table=table)
        assert (fault, facts.code) == (Fault.CONFIGURATION, code)
    other = settings.model_copy(update={"clickhouse_s3_collection": "nobody"})
    fault, facts = failure(client, other, "good.parquet")
    assert (fault, facts.code) == (Fault.CONFIGURATION, 669)


@pytest.mark.integration
def test_the_limits_of_a_query(client: Client) -> None:
    memory = error_of(client, "SELECT uniqExact(number) FROM numbers(50000000)", max_memory_usage=30_000_000)
    assert (classify(memory), inner_code(memory).code) == (Fault.PERMANENT, 241)
    late = error_of(client, "SELECT sum(sipHash64(number)) FROM numbers(100000000000)", max_execution_time=1)
    assert (classify(late), inner_code(late).code) == (Fault.UNKNOWN, 159)


@pytest.mark.integration
def test_narrowing_is_refused_only_when_asked_for(client: Client, settings: Settings) -> None:
    source = s3_source(settings, BUCKET, "wide.parquet", structure="a Int64, s String")
    client.command(f"INSERT INTO narrow SELECT * FROM {source}")
    assert client.query("SELECT a FROM narrow").result_rows == [(0,)]
    checked = error_of(
        client,
        f"INSERT INTO narrow SELECT accurateCast(a, 'Int32'), s FROM {source}",
        use_structure_from_insertion_table_in_table_functions=0,
    )
    assert (classify(checked), inner_code(checked).code) == (Fault.PERMANENT, 70)


@pytest.mark.unit
def test_quoted_data_cannot_pass_for_a_code() -> None:
    text = (
        "Code: 499. DB::Exception: Failed to get object info: No response body.. HTTP response code: 403: while "
        "reading 'HTTP response code: 404 Code: 117. DB::' in bucket 'lake' (S3_ERROR) (version 26.9.2.1)"
    )
    facts = inner_code(DatabaseError(text))
    assert (facts.code, facts.http_status) == (499, 403)
    thrown = DatabaseError("Code: 395. DB::Exception: Code: 241. DB::Exception: Query memory limit (FUNCTION_THROW_IF)")
    assert inner_code(thrown).code == 395


@pytest.mark.unit
@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("Code: 216. DB::Exception: Query with id = x is already running. (QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING)",
         Fault.UNKNOWN),
        ("Code: 202. DB::Exception: Too many simultaneous queries. Maximum: 100. (TOO_MANY_SIMULTANEOUS_QUERIES)",
         Fault.THROTTLED),
        ("Code: 241. DB::Exception: (total) memory limit exceeded: would use 10.81 GiB (MEMORY_LIMIT_EXCEEDED)",
         Fault.THROTTLED),
        ("Code: 242. DB::Exception: Table is in readonly mode (TABLE_IS_READ_ONLY)", Fault.TRANSIENT),
        ("Code: 62. DB::Exception: Syntax error (SYNTAX_ERROR)", Fault.PERMANENT),
        ("HTTP driver received HTTP status 502, server response: <html>", Fault.UNKNOWN),
        ("HTTP driver received HTTP status 503, server response: <html>", Fault.THROTTLED),
    ],
)  # fmt: skip
def test_codes_a_single_embedded_engine_does_not_make(text: str, fault: Fault) -> None:
    assert classify(DatabaseError(text)) is fault


# The connection


@pytest.mark.integration
def test_an_engine_that_is_down_is_transient() -> None:
    down = make_settings(clickhouse_host="127.0.0.1", clickhouse_port=free_port())
    with pytest.raises(TransientError):
        clickhouse.connect(down)


@pytest.mark.integration
def test_a_wrong_password_is_configuration_and_is_not_printed(settings: Settings) -> None:
    wrong = Settings.model_validate({**settings.model_dump(), "clickhouse_password": "hunter2"})
    with pytest.raises(ConfigurationError) as caught:
        clickhouse.connect(wrong)
    assert "hunter2" not in str(caught.value)


@pytest.mark.unit
def test_a_missing_host_names_its_variable() -> None:
    with pytest.raises(ConfigurationError, match="CLICKHOUSE_HOST"):
        clickhouse.connect(make_settings())


@pytest.mark.integration
def test_ping_tells_the_version(settings: Settings) -> None:
    assert clickhouse.ping(settings).split(".")[0].isdigit()


@pytest.mark.integration
def test_query_tags_reach_the_query_log(settings: Settings) -> None:
    tagged = clickhouse.connect(settings, query_tags={"job": "rebuild", "run": "r-1"})
    tagged.command("SELECT 'tagged'", settings={"query_id": "tagged-query"})
    tagged.command("SYSTEM FLUSH LOGS")
    rows = tagged.query("SELECT DISTINCT log_comment FROM system.query_log WHERE query_id = 'tagged-query'").result_rows
    tagged.close()
    assert rows == [('{"job": "rebuild", "run": "r-1"}',)]


@pytest.mark.integration
@pytest.mark.parametrize("fault", ["clickhouse.drop_before", "clickhouse.drop_after"])
def test_a_lost_answer_is_unknown_and_the_insert_is_sent_once(
    client: Client, engine: EngineProcess, fault: str
) -> None:
    client.command("CREATE OR REPLACE TABLE once (a Int64) ENGINE = MergeTree ORDER BY a")
    armed = engine.faults.arm(fault, match={"sql": "INSERT*once*"})
    with pytest.raises(OperationalError) as caught:
        client.insert("once", [[1], [2]], column_names=["a"])
    assert engine.faults.struck(armed) == 1
    assert classify(caught.value) is Fault.UNKNOWN
    executed = 1 if fault == "clickhouse.drop_after" else 0
    assert client.query("SELECT count() FROM once").result_rows == [(2 * executed,)]


@pytest.mark.integration
def test_a_time_out_of_the_client_is_unknown(settings: Settings, engine: EngineProcess) -> None:
    hasty = clickhouse.connect(settings.model_copy(update={"clickhouse_timeout_s": 1}))
    armed = engine.faults.arm("clickhouse.delay", match={"sql": "*hasty*"}, seconds=2)
    with pytest.raises(OperationalError) as caught:
        hasty.command("SELECT 'hasty'")
    hasty.close()
    assert classify(caught.value) is Fault.UNKNOWN
    assert engine.faults.struck(armed) == 1


# S3 expressions


@pytest.mark.integration
def test_an_object_is_read_by_the_named_collection_whatever_its_key(client: Client, settings: Settings) -> None:
    for key in ("good.parquet", "with space & ümlaut.parquet"):
        source = s3_source(settings, BUCKET, key, structure="a Int64, s String")
        assert client.query(f"SELECT count() FROM {source}").result_rows == [(ROWS,)]
        assert settings.aws_secret_access_key is None
        assert "embedded" not in source


@pytest.mark.integration
def test_an_etag_that_has_changed_inserts_nothing_and_does_not_use_up_the_token(
    client: Client, settings: Settings
) -> None:
    client.command(
        "CREATE OR REPLACE TABLE exact (a Int64, s String) ENGINE = MergeTree ORDER BY a"
        " SETTINGS non_replicated_deduplication_window = 100"
    )
    source = s3_source(settings, BUCKET, "good.parquet", structure="a Int64, s String")
    etag, size = client.query(f"SELECT DISTINCT _etag, _size FROM {source}").first_row
    assert (etag[0], etag[-1]) == ('"', '"'), "the value includes the quotes"
    assert size > 0

    def load_as(expected: str) -> int:
        statement = f"INSERT INTO exact SELECT a, s FROM {source} WHERE _etag = {{etag:String}}"
        done = client.command(statement, parameters={"etag": expected}, settings={"insert_deduplication_token": "t"})
        return done.written_rows

    assert load_as('"stale"') == 0
    assert load_as(etag) == ROWS
    load_as(etag)
    assert client.query("SELECT count() FROM exact").first_row == (ROWS,)


@pytest.mark.unit
def test_s3_expressions() -> None:
    collection = make_settings(aws_endpoint_url="http://127.0.0.1:1/", clickhouse_s3_collection="platform_s3")
    assert s3_source(collection, "b", "d/ds=2026-01-01/x'y.parquet", structure="a Int64") == (
        "s3(platform_s3, url = 'http://127.0.0.1:1/b/d/ds=2026-01-01/x%27y.parquet', format = 'Parquet',"
        " structure = 'a Int64')"
    )
    role = make_settings(aws_region="ap-northeast-1")
    assert s3_source(role, "b", "k.parquet") == "s3('https://b.s3.ap-northeast-1.amazonaws.com/k.parquet', 'Parquet')"
    with pytest.raises(PlatformError, match="pattern"):
        s3_source(role, "b", "a*.parquet")


@pytest.mark.unit
def test_identifiers_are_quoted_whatever_they_hold() -> None:
    assert quote_identifier("a`b\\c") == "`a\\`b\\\\c`"


def test_files_of_the_engine_that_hold_keys_are_private(engine: EngineProcess) -> None:
    path = Path(engine.state) / "config.xml"
    assert "secret_access_key" in path.read_text()
    assert path.stat().st_mode & 0o077 == 0
