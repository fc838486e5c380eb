"""One partition of a catalogued dataset out of Redshift: readiness, attempts with a prefix of their own, the ledger.

An attempt is in the ledger before the statement is sent and ends there as DONE or FAILED; only a proven result is DONE.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

from data_platform.catalog.models import Dataset
from data_platform.clients import redshift
from data_platform.clients.classify import classify
from data_platform.clients.retry import retrying
from data_platform.errors import Fault, PlatformError
from data_platform.settings import Settings
from data_platform.unload.execution import (
    UnloadResult,
    UnloadTarget,
    give_up,
    prove_target,
    remove_attempt,
    run_attempt,
)
from data_platform.unload.manifest import MANIFEST_NAME
from data_platform.unload.statement import UnloadOptions

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from sqlalchemy import Engine

ATTEMPTS = 3


class NotReadyError(PlatformError):
    """The source says that the day is not complete yet; ask again later."""

    fault = Fault.THROTTLED


@dataclass(frozen=True)
class PartitionUnload:
    """The attempt that won for one partition, with its proven files; `sql` is the SELECT that was unloaded."""

    dataset: str
    ds: date
    attempt: int
    result: UnloadResult
    sql: str


def request_id(dataset: Dataset, ds: date) -> str:
    """The id under which attempts of this partition are kept: `<domain>.<table>.<day>`."""
    return f"{dataset.domain}.{dataset.name}.{ds.isoformat()}"


def partition_select(dataset: Dataset, ds: date) -> str:
    """The SELECT of one day (daily) or of everything (snapshot), with exactly the catalogue's columns in order."""
    source = dataset.redshift
    columns = ", ".join(quote_identifier(column.name) for column in dataset.columns)
    relation = source.table if source.table is not None else f"(\n{source.sql}\n) AS source"
    select = f"SELECT {columns}\nFROM {relation}"
    if source.partition_column is None:
        return select
    return f"{select}\nWHERE {quote_identifier(source.partition_column)} = DATE '{ds.isoformat()}'"


def ready_sql(dataset: Dataset, ds: date) -> str | None:
    """The readiness condition with `:day` put in as a date literal; None where the dataset has none."""
    ready = dataset.redshift.ready
    return None if ready is None else ready.replace(":day", f"DATE '{ds.isoformat()}'")


def quote_identifier(name: str) -> str:
    """A Redshift identifier in double quotes."""
    return '"' + name.replace('"', '""') + '"'


def check_ready(settings: Settings, dataset: Dataset, ds: date) -> None:
    """Raise NotReadyError unless the dataset's readiness condition holds for the day (no condition: it holds)."""
    sql = ready_sql(dataset, ds)
    if sql is None:
        return
    with redshift.connect(settings) as connection, connection.cursor() as cursor:
        cursor.execute(sql)
        row = cursor.fetchone()
    if row is None or row[0] is not True:
        raise NotReadyError(
            f"{dataset.key} of {ds} waits for its source: source.ready gave {row[0] if row else 'no row'}, not true",
            hint="the sensor source_changes asks again every half hour and starts the day then; by hand, run it again "
            "once the source is complete. The condition is source.ready in the dataset's catalogue file",
        )


def unload_partition(
    settings: Settings,
    s3: "S3Client",
    ledger: "Engine",
    dataset: Dataset,
    ds: date,
    *,
    run_id: str | None = None,
    on_retry: Callable[[BaseException, int], None] | None = None,
) -> PartitionUnload:
    """Unload one partition as Parquet and prove it; at most 3 attempts, only after faults that may pass.

    Raises NotReadyError, ProofError, SupersededError when a newer attempt took over, or the client's error.
    """
    check_ready(settings, dataset, ds)
    sql = partition_select(dataset, ds)
    return retrying(
        lambda: _attempt(settings, s3, ledger, dataset, ds, sql, run_id),
        classify,
        attempts=ATTEMPTS,
        on_retry=on_retry,
    )


def _attempt(
    settings: Settings, s3: "S3Client", ledger: "Engine", dataset: Dataset, ds: date, sql: str, run_id: str | None
) -> PartitionUnload:
    from data_platform.ledger import dataset_unloads, outbox
    from data_platform.unload.events import done_event

    def target(attempt: int) -> UnloadTarget:
        return UnloadTarget(settings.unload_bucket, request_id(dataset, ds), str(attempt))

    with ledger.connect() as connection:
        left = dataset_unloads.latest(connection, dataset.key, ds.isoformat(), status="RUNNING")
    with ledger.begin() as connection:
        attempt = dataset_unloads.begin(
            connection, dataset.key, ds.isoformat(), lambda number: target(number).prefix, run_id=run_id
        )
    if left is not None:
        # Its run was killed, or will find itself superseded: it can never be the result.
        remove_attempt(s3, target(left.attempt))
    mine = target(attempt.attempt)
    try:
        result = run_attempt(settings, s3, sql=sql, target=mine, options=UnloadOptions())
    except Exception as error:
        code, message = redshift.describe(error)
        with suppress(dataset_unloads.SupersededError), ledger.begin() as connection:
            dataset_unloads.fail(connection, attempt, code=code or type(error).__name__, message=message)
        raise
    try:
        with ledger.begin() as connection:
            dataset_unloads.finish(
                connection,
                attempt,
                rows=result.rows,
                files=len(result.files),
                bytes=result.bytes,
                manifest_url=f"{mine.url}{MANIFEST_NAME}" if result.files else None,
                query_id=None if result.query_id is None else str(result.query_id),
            )
            outbox.add(connection, done_event(settings, request_id(dataset, ds), attempt.attempt, result))
    except dataset_unloads.SupersededError as error:
        give_up(s3, mine, error)
        raise
    return PartitionUnload(dataset.key, ds, attempt.attempt, result, sql)


def proven_unload(settings: Settings, s3: "S3Client", ledger: "Engine", dataset: Dataset, ds: date) -> PartitionUnload:
    """What the ledger calls the partition's result, if S3 agrees: a record is a claim, the store is the truth.

    Raises PlatformError when there is no finished attempt, ProofError when its files are not whole any more.
    """
    from data_platform.ledger import dataset_unloads

    started = time.monotonic()
    with ledger.connect() as connection:
        attempt = dataset_unloads.latest(connection, dataset.key, ds.isoformat(), status="DONE")
    if attempt is None or attempt.rows is None:
        raise PlatformError(
            f"{dataset.key} of {ds} was never unloaded", hint=f"materialise unload/{dataset.key} for that day first"
        )
    target = UnloadTarget(settings.unload_bucket, request_id(dataset, ds), str(attempt.attempt))
    files = prove_target(s3, target, count=attempt.rows)
    query_id = None if attempt.query_id is None else int(attempt.query_id)
    size = sum(file.bytes for file in files)
    result = UnloadResult(target, files, attempt.rows, size, time.monotonic() - started, query_id)
    return PartitionUnload(dataset.key, ds, attempt.attempt, result, partition_select(dataset, ds))
