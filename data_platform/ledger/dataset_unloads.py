"""Attempts to unload one partition of a catalogued dataset: begin, finish, fail, and which is the newest.

An attempt owns its S3 prefix for ever: none writes where another did. The newest attempt is the only one that may
finish, so a run that was given up and wakes again cannot declare its files the result.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa  # noqa: TID253 - see base.py

from data_platform.errors import PlatformError
from data_platform.ledger.base import instant, metadata, one_of

SUPERSEDED = "SUPERSEDED"

dataset_unloads = sa.Table(
    "dataset_unloads",
    metadata,
    sa.Column("dataset", sa.Text, primary_key=True, comment="<domain>/<name>, as in the catalogue."),
    sa.Column("partition", sa.Text, primary_key=True, comment="The day, YYYY-MM-DD."),
    sa.Column("attempt", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("prefix", sa.Text, nullable=False, unique=True),
    sa.Column("status", sa.Text, nullable=False, server_default="RUNNING"),
    sa.Column("rows", sa.BigInteger),
    sa.Column("files", sa.Integer),
    sa.Column("bytes", sa.BigInteger),
    sa.Column("manifest_url", sa.Text, comment="Null when the result is empty: UNLOAD then writes no manifest."),
    sa.Column("query_id", sa.Text, comment="Redshift's own id of the UNLOAD."),
    sa.Column("error_code", sa.Text),
    sa.Column("error_message", sa.Text),
    sa.Column("run_id", sa.Text, comment="Dagster run."),
    instant("started_at", now=True),
    instant("finished_at"),
    one_of("status", ("RUNNING", "DONE", "FAILED")),
    sa.CheckConstraint("attempt >= 1", name="attempt"),
    sa.CheckConstraint("(status = 'RUNNING') = (finished_at IS NULL)", name="finished"),
    sa.CheckConstraint(
        "status <> 'DONE' OR (rows IS NOT NULL AND files IS NOT NULL AND bytes IS NOT NULL)", name="outcome"
    ),
    sa.CheckConstraint("status <> 'FAILED' OR error_code IS NOT NULL", name="error"),
)


@dataclass(frozen=True)
class DatasetUnload:
    """One attempt, as it stands in the ledger; sizes are in bytes, times are UTC."""

    dataset: str
    partition: str
    attempt: int
    prefix: str
    status: str
    rows: int | None
    files: int | None
    bytes: int | None
    manifest_url: str | None
    query_id: str | None
    error_code: str | None
    error_message: str | None
    run_id: str | None
    started_at: datetime
    finished_at: datetime | None


class SupersededError(PlatformError):
    """The attempt is no longer the running one of its partition; its files are not the result."""


def begin(
    connection: sa.Connection,
    dataset: str,
    partition: str,
    prefix_of: Callable[[int], str],
    *,
    run_id: str | None = None,
) -> DatasetUnload:
    """Start the next attempt; `prefix_of(attempt)` is its S3 prefix. An attempt still RUNNING becomes FAILED.

    Commit before the UNLOAD is sent, or a crash leaves files that no attempt owns.
    """
    # Two runs that begin at once get two numbers: the second waits here for the first's commit.
    connection.execute(
        sa.select(sa.func.pg_advisory_xact_lock(sa.func.hashtextextended(f"dataset_unloads:{dataset}:{partition}", 0)))
    )
    mine = (dataset_unloads.c.dataset == dataset) & (dataset_unloads.c.partition == partition)
    number = connection.execute(
        sa.select(sa.func.coalesce(sa.func.max(dataset_unloads.c.attempt), 0) + 1).where(mine)
    ).scalar_one()
    connection.execute(
        sa.update(dataset_unloads)
        .where(mine, dataset_unloads.c.status == "RUNNING")
        .values(
            status="FAILED",
            error_code=SUPERSEDED,
            error_message=f"attempt {number} was started before this one ended",
            finished_at=sa.func.clock_timestamp(),
        )
    )
    inserted = connection.execute(
        sa.insert(dataset_unloads)
        .values(dataset=dataset, partition=partition, attempt=number, prefix=prefix_of(number), run_id=run_id)
        .returning(*dataset_unloads.c)
    )
    return DatasetUnload(**inserted.mappings().one())


def finish(
    connection: sa.Connection,
    unload: DatasetUnload,
    *,
    rows: int,
    files: int,
    bytes: int,  # noqa: A002 - the column's name
    manifest_url: str | None,
    query_id: str | None = None,
) -> DatasetUnload:
    """Declare the attempt the result of its partition. Raises SupersededError when it is no longer running."""
    return _end(
        connection,
        unload,
        {
            "status": "DONE",
            "rows": rows,
            "files": files,
            "bytes": bytes,
            "manifest_url": manifest_url,
            "query_id": query_id,
        },
    )


def fail(
    connection: sa.Connection, unload: DatasetUnload, *, code: str, message: str, query_id: str | None = None
) -> DatasetUnload:
    """Write down why the attempt failed. Raises SupersededError when it is no longer running."""
    return _end(
        connection, unload, {"status": "FAILED", "error_code": code, "error_message": message, "query_id": query_id}
    )


def latest(
    connection: sa.Connection, dataset: str, partition: str, *, status: str | None = None
) -> DatasetUnload | None:
    """The newest attempt of a partition (with this status); None when there is none."""
    query = (
        sa.select(dataset_unloads)
        .where(dataset_unloads.c.dataset == dataset, dataset_unloads.c.partition == partition)
        .order_by(dataset_unloads.c.attempt.desc())
        .limit(1)
    )
    if status is not None:
        query = query.where(dataset_unloads.c.status == status)
    row = connection.execute(query).mappings().one_or_none()
    return None if row is None else DatasetUnload(**row)


def _end(connection: sa.Connection, unload: DatasetUnload, values: dict[str, object]) -> DatasetUnload:
    row = (
        connection.execute(
            sa.update(dataset_unloads)
            .where(
                dataset_unloads.c.dataset == unload.dataset,
                dataset_unloads.c.partition == unload.partition,
                dataset_unloads.c.attempt == unload.attempt,
                dataset_unloads.c.status == "RUNNING",
            )
            .values(finished_at=sa.func.clock_timestamp(), **values)
            .returning(*dataset_unloads.c)
        )
        .mappings()
        .one_or_none()
    )
    if row is None:
        raise SupersededError(
            f"attempt {unload.attempt} of {unload.dataset} {unload.partition} is not running any more",
            hint="a newer attempt owns the partition; its result counts",
        )
    return DatasetUnload(**row)
