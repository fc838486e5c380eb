"""How fast the embedded warehouse unloads to Parquet, against a bare COPY read by Arrow and written to a local file.

Both move the same rows in the same run, alternating; the UNLOAD goes through the protocol front, S3 and its manifest.
Run as `python -m benchmarks.unload_standin [rows]`; exit code 1 when the ratio is below the limit or a row is missing.
"""

import io
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import redshift_connector
from pyarrow import csv

from data_platform.local.process import EngineProcess

LIMIT = 0.5  # UNLOAD's rows per second over those of the bare copy
ROWS = 1_000_000
REPEATS = 3
BUCKET = "unload-bench"
MEGABYTE = 1024**2

TABLE = """CREATE TABLE bench AS SELECT i AS id, (i % 1000)::smallint AS kind, i * 1.5::float8 AS ratio,
    (i::numeric / 100)::numeric(18, 2) AS price, ('name ' || i)::varchar(40) AS name,
    CASE WHEN i % 7 = 0 THEN NULL ELSE md5(i::text) END AS hash, timestamp '2013-01-01' + i * interval '1 second' AS at,
    date '2013-01-01' + (i % 365) AS day, i % 2 = 0 AS even FROM generate_series(1, {rows}) i"""
TYPES = {
    "id": pa.int32(),
    "kind": pa.int16(),
    "ratio": pa.float64(),
    "price": pa.decimal128(18, 2),
    "name": pa.string(),
    "hash": pa.string(),
    "at": pa.timestamp("us"),
    "day": pa.date32(),
    "even": pa.bool_(),
}


class _Copy(io.RawIOBase):
    """COPY's rows as a file for Arrow's streaming reader."""

    def __init__(self, rows: Iterator[Any]) -> None:
        self._rows = rows
        self._left = b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        pieces = [self._left]
        length = len(self._left)
        while size < 0 or length < size:
            row = next(self._rows, None)
            if row is None:
                break
            pieces.append(bytes(row))
            length += len(row)
        data = b"".join(pieces)
        end = len(data) if size < 0 else size
        self._left = data[end:]
        return data[:end]


def bare_copy(connection: psycopg.Connection[Any], path: Path) -> int:
    """The table to one local Parquet file; rows written."""
    rows = 0
    statement = "COPY (SELECT * FROM bench) TO STDOUT (FORMAT csv)"
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        reader = csv.open_csv(
            pa.PythonFile(_Copy(iter(copy)), "r"),
            read_options=csv.ReadOptions(column_names=list(TYPES), block_size=4 * MEGABYTE),
            parse_options=csv.ParseOptions(newlines_in_values=True),
            convert_options=csv.ConvertOptions(
                column_types=TYPES,
                null_values=[""],
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
                true_values=["t"],
                false_values=["f"],
            ),
        )
        with pq.ParquetWriter(path, pa.schema(list(TYPES.items()))) as writer:
            for batch in reader:
                writer.write_batch(batch)
                rows += len(batch)
    return rows


def unload(cursor: Any, prefix: str) -> int:
    """The same table through UNLOAD; the session's count."""
    cursor.execute(
        f"UNLOAD ('select * from bench') TO 's3://{BUCKET}/{prefix}/' IAM_ROLE default PARQUET MANIFEST VERBOSE"
    )
    cursor.execute("SELECT pg_last_unload_count()")
    return int(cursor.fetchone()[0])


def timed(action: Callable[[], int]) -> tuple[float, int]:
    """Seconds and rows."""
    start = time.perf_counter()
    rows = action()
    return time.perf_counter() - start, rows


def stored_rows(s3: Any, prefix: str) -> int:
    """Rows in the Parquet files under a prefix, by their footers."""
    keys = [each["Key"] for each in s3.list_objects_v2(Bucket=BUCKET, Prefix=f"{prefix}/")["Contents"]]
    bodies = [s3.get_object(Bucket=BUCKET, Key=key)["Body"].read() for key in keys if key.endswith(".parquet")]
    return sum(pq.read_metadata(io.BytesIO(body)).num_rows for body in bodies)


def measure(env: dict[str, str], postgres_port: int, rows: int, folder: Path) -> int:
    """Run both, print the figures; 0 when the limit holds."""
    s3 = boto3.client(
        "s3",
        endpoint_url=env["AWS_ENDPOINT_URL"],
        aws_access_key_id=env["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=env["AWS_SECRET_ACCESS_KEY"],
        region_name=env["AWS_DEFAULT_REGION"],
    )
    s3.create_bucket(Bucket=BUCKET)
    login = {
        "host": env["REDSHIFT_HOST"],
        "user": env["REDSHIFT_USER"],
        "password": env["REDSHIFT_PASSWORD"],
    }
    bare: list[float] = []
    through: list[float] = []
    with (
        psycopg.connect(**login, port=postgres_port, dbname=env["REDSHIFT_DATABASE"], autocommit=True) as postgres,
        redshift_connector.connect(
            **login, port=int(env["REDSHIFT_PORT"]), database=env["REDSHIFT_DATABASE"], ssl=False
        ) as redshift,
    ):
        redshift.autocommit = True
        postgres.execute(TABLE.format(rows=rows))
        cursor = redshift.cursor()
        for number in range(REPEATS):
            seconds, copied = timed(lambda: bare_copy(postgres, folder / "bare.parquet"))
            bare.append(seconds)
            prefix = f"run-{number}"
            seconds, counted = timed(lambda prefix=prefix: unload(cursor, prefix))
            through.append(seconds)
            if not copied == counted == stored_rows(s3, prefix) == rows:
                print(f"rows differ: COPY {copied}, count {counted}, stored {stored_rows(s3, prefix)}, table {rows}")
                return 1
    size = (folder / "bare.parquet").stat().st_size / MEGABYTE
    ratio = min(bare) / min(through)
    print(f"{rows:,} rows, {size:.0f} MB of Parquet; best of {REPEATS}")
    print(f"bare COPY + Arrow to a file   {min(bare):6.2f} s  {rows / min(bare):12,.0f} rows/s")
    print(f"UNLOAD to S3 with a manifest  {min(through):6.2f} s  {rows / min(through):12,.0f} rows/s")
    print(f"ratio {ratio:.2f} (limit {LIMIT})")
    return 0 if ratio >= LIMIT else 1


def main() -> int:
    """Start the two engines, measure, stop them. Returns the exit code."""
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else ROWS
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)  # PostgreSQL's system user passes through it
        aws = EngineProcess.with_free_ports("aws", folder / "aws")
        aws.start()
        warehouse = EngineProcess.with_free_ports("warehouse", folder / "warehouse", {"env": aws.env})
        try:
            warehouse.start()
            return measure({**aws.env, **warehouse.env}, warehouse.ports["postgres"], rows, folder)
        finally:
            warehouse.stop()
            aws.stop()


if __name__ == "__main__":
    sys.exit(main())
