"""The reject files of a run, CSV and Parquet, beside the source: every record that was not applied, and why."""

import csv
import io
import tempfile
from collections.abc import Iterator, Sequence
from typing import IO, TYPE_CHECKING, Any

from data_platform.clients import aws
from data_platform.clients.retry import retrying
from data_platform.statistics.errors import ErrorClass, ProcessingError, RowError
from data_platform.statistics.runs import Run
from data_platform.statistics.source import FileVersion

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from sqlalchemy import Connection

INCOMING, REJECTED = "incoming/", "rejected/"
FIELDS = ("file", "line", "column", "value", "rule", "reason", "error_class")
BATCH = 10_000
SPOOL_BYTES = 8 << 20
# A spreadsheet would execute these; the Parquet file has the value as it was.
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def reject_key(file: FileVersion, run_id: object) -> str:
    """S3 key of the reject files without suffix: `rejected/` beside `incoming/`, which raises no event."""
    if file.key.startswith(INCOMING):
        return f"{REJECTED}{file.key.removeprefix(INCOMING)}/{run_id}"
    folder, slash, name = file.key.rpartition("/")
    return f"{folder}{slash}{REJECTED}{name}/{run_id}"


def write_rejects(connection: "Connection", s3: "S3Client", run: Run) -> str:
    """Write both files, over those of an earlier attempt; returns their `s3://` address without suffix.

    Raises ProcessingError when S3 does not take them.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {name: pa.int64() if name == "line" else pa.string() for name in FIELDS}
    schema = pa.schema(list(types.items()))
    key = reject_key(run.file, run.run_id)
    with (
        tempfile.SpooledTemporaryFile(SPOOL_BYTES) as text,
        tempfile.SpooledTemporaryFile(SPOOL_BYTES) as parquet,
    ):
        wrapper = io.TextIOWrapper(text, "utf-8", newline="", write_through=True)  # pyright: ignore[reportArgumentType] - it is a binary file
        writer = csv.writer(wrapper)
        writer.writerow(FIELDS)
        with pq.ParquetWriter(parquet, schema, compression="zstd") as table:
            for rows in _rows(connection, run):
                writer.writerows(map(_harmless, rows))
                table.write_table(pa.table([list(column) for column in zip(*rows, strict=True)], schema=schema))
        wrapper.flush()
        wrapper.detach()
        _put(s3, run.file, f"{key}.csv", text)
        _put(s3, run.file, f"{key}.parquet", parquet)
    return f"s3://{run.file.bucket}/{key}"


def sample(connection: "Connection", run: Run, limit: int) -> tuple[RowError, ...]:
    """The first rejects, by line."""
    rows = connection.exec_driver_sql(
        f"""SELECT error_class, line, "column", value, rule, reason, lines FROM {run.rejects_table}
            ORDER BY line LIMIT %s""",
        (limit,),
    )
    return tuple(
        RowError(ErrorClass(kind), run.file.url, line, column, value, rule, reason, lines)
        for kind, line, column, value, rule, reason, lines in rows
    )


def _rows(connection: "Connection", run: Run) -> Iterator[Sequence[tuple[Any, ...]]]:
    driver: Any = connection.connection.driver_connection
    with driver.cursor(name="rejects") as cursor:
        cursor.execute(
            f"""SELECT %s, line, "column", value, rule, reason, error_class FROM {run.rejects_table} ORDER BY line""",
            (run.file.url,),
        )
        while rows := cursor.fetchmany(BATCH):
            yield rows


def _harmless(row: tuple[Any, ...]) -> list[Any]:
    return [f"'{cell}" if isinstance(cell, str) and cell.startswith(FORMULA_STARTS) else cell for cell in row]


def _put(s3: "S3Client", file: FileVersion, key: str, body: IO[bytes]) -> None:
    from botocore.exceptions import BotoCoreError, ClientError

    body.seek(0, io.SEEK_END)
    size = body.tell()

    def put() -> None:
        body.seek(0)
        s3.put_object(Bucket=file.bucket, Key=key, Body=body, ContentLength=size)

    try:
        retrying(put, aws.classify)
    except (BotoCoreError, ClientError) as error:
        reason = f"the reject file s3://{file.bucket}/{key} could not be written: {error}"
        raise ProcessingError(reason, file=file.url, rule="s3", fault=aws.classify(error)) from error
