"""The embedded Athena, asked by real boto3 and awswrangler: it executes, and refuses what Athena refuses."""

import io
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from botocore.exceptions import HTTPClientError

from tests.local.aws.conftest import Aws

pytestmark = pytest.mark.integration
SERDE = {"SerializationLibrary": "org.apache.hadoop.hive.ql.io.parquet.serde.ParquetHiveSerDe"}


class Desk:
    """A bucket with three days of events, a Glue table that projects them, and queries."""

    def __init__(self, aws: Aws) -> None:
        self.aws = aws
        self.athena, self.glue, self.s3 = aws.client("athena"), aws.client("glue"), aws.s3
        self.bucket = aws.bucket()
        for day in (8, 9, 10):
            table = pa.table(
                {
                    "at": pa.array([day * 10**9 + 123_456_789, 7], pa.timestamp("ns", tz="UTC")),
                    "user_id": pa.array([f"u{day}", None], pa.string()),
                    "n": pa.array([day, 1], pa.int32()),
                    "tags": pa.array([[("k", "v")], []], pa.map_(pa.string(), pa.string())),
                }
            )
            self.put(f"events/ds=2024-03-{day:02d}/part.parquet", table)
        self.put("events/ds=2024-03-08/_manifest.json", None)
        self.glue.create_database(DatabaseInput={"Name": "shop"})
        self.glue.create_table(
            DatabaseName="shop",
            TableInput={
                "Name": "events",
                "TableType": "EXTERNAL_TABLE",
                "Parameters": {
                    "projection.enabled": "true",
                    "projection.year.type": "integer", "projection.year.range": "2020,2030",
                    "projection.month.type": "integer", "projection.month.range": "1,12",
                    "projection.month.digits": "2",
                    "projection.day.type": "integer", "projection.day.range": "1,31", "projection.day.digits": "2",
                    "storage.location.template": f"s3://{self.bucket}/events/ds=${{year}}-${{month}}-${{day}}/",
                },
                "PartitionKeys": [{"Name": name, "Type": "string"} for name in ("year", "month", "day")],
                "StorageDescriptor": {
                    "Columns": [
                        {"Name": "at", "Type": "bigint"}, {"Name": "user_id", "Type": "string"},
                        {"Name": "n", "Type": "bigint"}, {"Name": "tags", "Type": "map<string,string>"},
                        {"Name": "later", "Type": "string"},
                    ],
                    "Location": f"s3://{self.bucket}/events/",
                    "SerdeInfo": SERDE,
                },
            },
        )  # fmt: skip

    def put(self, key: str, table: pa.Table | None) -> None:
        body = io.BytesIO(b"{}" if table is None else b"")
        if table is not None:
            pq.write_table(table, body)
        self.s3.put_object(Bucket=self.bucket, Key=key, Body=body.getvalue())

    def start(self, sql: str, **request: Any) -> str:
        where = {"ResultConfiguration": {"OutputLocation": f"s3://{self.bucket}/results/"}}
        context = {"QueryExecutionContext": {"Database": "shop"}}
        return self.athena.start_query_execution(QueryString=sql, **(where | context | request))["QueryExecutionId"]

    def wait(self, name: str) -> dict[str, Any]:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            found = self.athena.get_query_execution(QueryExecutionId=name)["QueryExecution"]
            if found["Status"]["State"] in {"SUCCEEDED", "FAILED", "CANCELLED"}:
                return found
            time.sleep(0.02)
        raise AssertionError("still running")

    def rows(self, sql: str, **request: Any) -> list[tuple[str | None, ...]]:
        found = self.wait(self.start(sql, **request))
        assert found["Status"]["State"] == "SUCCEEDED", found["Status"]
        answer = self.athena.get_query_results(QueryExecutionId=found["QueryExecutionId"])
        return [tuple(cell.get("VarCharValue") for cell in row["Data"]) for row in answer["ResultSet"]["Rows"]][1:]

    def reason(self, sql: str, **request: Any) -> str:
        found = self.wait(self.start(sql, **request))
        assert found["Status"]["State"] == "FAILED"
        return found["Status"]["StateChangeReason"]


@pytest.fixture(scope="module")
def desk(aws: Aws) -> Iterator[Desk]:
    yield Desk(aws)
    aws.faults.clear()


def test_partitions_are_projected_pruned_and_paid_by_the_bytes_of_the_columns_read(desk: Desk) -> None:
    everything = desk.wait(desk.start("SELECT * FROM events"))
    assert desk.rows("SELECT count(*), count(user_id), max(at), max(later) FROM events") == [
        ("6", "3", "10123456789", None)
    ]
    one = desk.wait(
        desk.start("SELECT n FROM events WHERE year = '2024' AND month = '03' AND day BETWEEN '09' AND '09'")
    )
    assert 0 < one["Statistics"]["DataScannedInBytes"] < everything["Statistics"]["DataScannedInBytes"] / 3
    assert desk.rows("SELECT DISTINCT year, month, day, \"$path\" FROM events WHERE day = '09'") == [
        ("2024", "03", "09", f"s3://{desk.bucket}/events/ds=2024-03-09/part.parquet")
    ]
    assert desk.rows("SELECT n FROM events WHERE year = '2019'") == []


SAYS = (
    ("CAST(timestamp '2024-03-10 01:00:00' AT TIME ZONE 'America/New_York' AS date)", "2024-03-09"),
    ("date_diff('day', timestamp '2024-01-01 23:00:00', timestamp '2024-01-02 01:00:00')", "0"),
    ("date_add('month', 1, DATE '2024-01-31')", "2024-02-29"),
    ("DATE '2024-03-01' - INTERVAL '1' DAY", "2024-02-29"),
    ("7 / 2", "3"),
    ("CAST(7 AS double) / 2", "3.5"),
    ("CAST(2.5 AS integer)", "3"),
    ("day_of_week(DATE '2024-03-10')", "7"),
    ("greatest(1, NULL)", None),
    ("cardinality(map(ARRAY['a'], ARRAY[1]))", "1"),
    ("width_bucket(5e0, ARRAY[1e0, 5e0, 9e0])", "2"),
    ("array_join(transform(sequence(3, 1), x -> CAST(x AS varchar)), ',')", "3,2,1"),
    ("1e7", "1.0E7"),
    ("element_at(ARRAY[DATE '2024-01-01'], 1)", "2024-01-01"),
    ("ARRAY[5, 6, 7][2]", "6"),
    ("ARRAY[5, 6, 7][cardinality(ARRAY[1, 2])]", "6"),
    ("max(x) OVER () FROM (SELECT ARRAY[5, 6, 7][n] AS x FROM (VALUES (2)) AS t(n)) AS u", "6"),
)


def test_the_same_words_mean_what_they_mean_in_athena(desk: Desk) -> None:
    found = desk.wait(desk.start("SELECT 1, n FROM events"))
    answer = desk.athena.get_query_results(QueryExecutionId=found["QueryExecutionId"])
    assert [each["Name"] for each in answer["ResultSet"]["ResultSetMetadata"]["ColumnInfo"]] == ["_col0", "n"]
    (row,) = desk.rows(f"SELECT {', '.join(sql for sql, _ in SAYS)}")
    wrong = [(sql, expected, got) for (sql, expected), got in zip(SAYS, row, strict=True) if expected != got]
    assert wrong == []
    assert desk.rows("SELECT k, v FROM UNNEST(map(ARRAY['a', 'b'], ARRAY[1, 2])) AS t(k, v) ORDER BY k") == [
        ("a", "1"), ("b", "2")
    ]  # fmt: skip
    assert desk.rows("SELECT d FROM UNNEST(sequence(DATE '2024-02-28', DATE '2024-03-01')) AS t(d)") == [
        ("2024-02-28",), ("2024-02-29",), ("2024-03-01",)
    ]  # fmt: skip


REFUSED = (
    ("SELEC 1", "SYNTAX_ERROR"),
    ("SELECT * FROM nothing", "TABLE_NOT_FOUND"),
    ("SELECT missing FROM events", "COLUMN_NOT_FOUND"),
    ("SELECT n AS m FROM events WHERE m = 1", "COLUMN_NOT_FOUND"),
    ("SELECT n AS m, count(*) FROM events GROUP BY m", "COLUMN_NOT_FOUND"),
    ("SELECT list_sort(ARRAY[1])", "FUNCTION_NOT_FOUND"),
    ("SELECT user_id FROM events WHERE user_id ILIKE 'a'", "SYNTAX_ERROR"),
    ("SELECT 1 WHERE DATE '2024-01-01' = '2024-01-01'", "TYPE_MISMATCH"),
    ("SELECT count(DISTINCT n) OVER () FROM events", "NOT_SUPPORTED"),
    ("SELECT 1 / (n - n) FROM events", "DIVISION_BY_ZERO"),
    ("SELECT tags['none'] FROM events", "INVALID_FUNCTION_ARGUMENT"),
    ("SELECT 1; SELECT 2", "SYNTAX_ERROR"),
)


def test_what_athena_refuses_is_refused_in_its_words(desk: Desk) -> None:
    wrong = [(sql, code, desk.reason(sql)) for sql, code in REFUSED]
    assert [each for each in wrong if not each[2].startswith(each[1])] == []


def test_create_table_as_writes_partitioned_parquet_and_registers_the_table(desk: Desk) -> None:
    place = f"s3://{desk.bucket}/made/{uuid.uuid4().hex}/"
    sql = (
        f"CREATE TABLE copied WITH (format = 'PARQUET', external_location = '{place}', write_compression = 'ZSTD', "
        "partitioned_by = ARRAY['month', 'day']) AS SELECT sum(n) AS n, user_id, month, day FROM events "
        "WHERE year = '2024' GROUP BY user_id, month, day"
    )
    found = desk.wait(desk.start(sql))
    assert found["Status"]["State"] == "SUCCEEDED", found["Status"]
    assert sorted(desk.rows("SELECT n, user_id FROM copied WHERE month = '03' AND day >= '09'"), key=str) == [
        ("1", None), ("1", None), ("10", "u10"), ("9", "u9")
    ]  # fmt: skip
    manifest = found["Statistics"]["DataManifestLocation"].removeprefix(f"s3://{desk.bucket}/")
    listed = desk.s3.get_object(Bucket=desk.bucket, Key=manifest)["Body"].read().decode().split()
    assert len(listed) == 3
    assert all(url.startswith(place) for url in listed)
    kinds = {
        each["Name"]: each["Type"]
        for each in desk.glue.get_table(DatabaseName="shop", Name="copied")["Table"]["StorageDescriptor"]["Columns"]
    }
    assert kinds == {"n": "bigint", "user_id": "string"}
    assert desk.reason(sql).startswith("TABLE_ALREADY_EXISTS")
    assert desk.wait(desk.start("DROP TABLE copied"))["Status"]["State"] == "SUCCEEDED"
    assert desk.reason(sql).startswith("HIVE_PATH_ALREADY_EXISTS")  # the data stays, as in AWS
    assert desk.reason("DROP TABLE copied").startswith("TABLE_NOT_FOUND")
    assert desk.wait(desk.start("DROP TABLE IF EXISTS copied"))["Status"]["State"] == "SUCCEEDED"


def test_a_token_gives_the_same_execution_and_never_another_statement(desk: Desk) -> None:
    token = uuid.uuid4().hex
    first = desk.start("SELECT 1", ClientRequestToken=token)
    assert desk.start("SELECT 1", ClientRequestToken=token) == first
    with pytest.raises(desk.athena.exceptions.InvalidRequestException, match="Idempotent"):
        desk.start("SELECT 2", ClientRequestToken=token)


def test_a_running_query_is_stopped_and_a_stalled_one_too(desk: Desk) -> None:
    numbers = ", ".join(f"UNNEST(sequence(1, 9999)) AS t{n}(x{n})" for n in range(3))
    heavy = f"SELECT count(*) FROM {numbers} WHERE x0 * x1 * x2 = 3"
    name = desk.start(heavy)
    while desk.athena.get_query_execution(QueryExecutionId=name)["QueryExecution"]["Status"]["State"] == "QUEUED":
        time.sleep(0.02)
    desk.athena.stop_query_execution(QueryExecutionId=name)
    assert desk.wait(name)["Status"]["State"] == "CANCELLED"
    stall = desk.aws.faults.arm("athena.stall", seconds=60)
    name = desk.start("SELECT 1")
    while not desk.aws.faults.struck(stall):
        time.sleep(0.02)
    desk.athena.stop_query_execution(QueryExecutionId=name)
    assert desk.wait(name)["Status"]["State"] == "CANCELLED"


def test_the_limit_of_a_workgroup_stops_a_query_and_its_output_can_be_enforced(desk: Desk) -> None:
    desk.athena.create_work_group(
        Name="careful",
        Configuration={
            "EnforceWorkGroupConfiguration": True,
            "BytesScannedCutoffPerQuery": 10_000_000,
            "ResultConfiguration": {"OutputLocation": f"s3://{desk.bucket}/enforced/"},
        },
    )
    found = desk.wait(desk.start("SELECT 1", WorkGroup="careful"))
    assert found["ResultConfiguration"]["OutputLocation"].startswith(f"s3://{desk.bucket}/enforced/")


def test_awswrangler_reads_through_it(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    wr = pytest.importorskip("awswrangler")
    for name, value in desk.aws.process.env.items():
        monkeypatch.setenv(name, value)
    for service in ("s3", "athena", "glue", "sts"):
        setattr(wr.config, f"{service}_endpoint_url", desk.aws.process.env["AWS_ENDPOINT_URL"])
    for ctas in (True, False):
        frame = wr.athena.read_sql_query(
            "SELECT user_id, n FROM events WHERE day = '10' AND user_id IS NOT NULL",
            database="shop",
            ctas_approach=ctas,
            s3_output=f"s3://{desk.bucket}/wrangler/{ctas}/",
        )  # fmt: skip
        assert frame.to_dict("records") == [{"user_id": "u10", "n": 10}]


def test_faults_strike_where_they_are_armed(desk: Desk) -> None:
    faults = desk.aws.faults
    throttle = faults.arm("athena.throttle", match={"query": "SELECT 71*"})
    with pytest.raises(desk.athena.exceptions.TooManyRequestsException):
        desk.start("SELECT 71")
    fail = faults.arm("athena.fail", code="GENERIC_INTERNAL_ERROR", message="try again")
    found = desk.wait(desk.start("SELECT 72"))
    assert found["Status"]["AthenaError"]["Retryable"]
    lost = faults.arm("athena.lost")
    token = uuid.uuid4().hex
    with pytest.raises(HTTPClientError):
        desk.start("SELECT 73", ClientRequestToken=token)
    assert desk.wait(desk.start("SELECT 73", ClientRequestToken=token))["Status"]["State"] == "SUCCEEDED"
    ids = desk.athena.list_query_executions(WorkGroup="primary")["QueryExecutionIds"]
    known = desk.athena.batch_get_query_execution(QueryExecutionIds=ids[:5])["QueryExecutions"]
    assert sum(each["Query"] == "SELECT 73" for each in known) == 1
    assert [faults.struck(each) for each in (throttle, fail, lost)] == [1, 1, 1]


def test_tables_survive_a_restart(desk: Desk) -> None:
    desk.aws.process.kill()
    desk.aws.process.start()
    assert desk.rows("SELECT count(*) FROM events") == [("6",)]
