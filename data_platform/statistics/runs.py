"""The ledger's side of a run: begun, resumed, finished, failed; what happened to which file, and every word about it.

What belongs here: rows of processing_metadata and audit_logs. What does not: the chunks' rows, which the writing
transaction of a chunk changes itself (chunks.py).
"""

import secrets
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from data_platform.statistics.errors import COMPLETED, EVENT_PROCESSED_SUCCESSFULLY, ErrorClass, Level
from data_platform.statistics.source import FileVersion

if TYPE_CHECKING:
    from sqlalchemy import Connection

FINAL = ("DONE", "REFUSED")
STAGING_PREFIX = "statistics_staging_"
KEPT_DAYS = 7  # staging of a run that nobody took up again
DRY_GENERATIONS = 2**31 - 1  # those of dry runs are negative, so that several may be under way


@dataclass(frozen=True, slots=True)
class Run:
    """One run of one file; `staging` is set once the file has been read and only chunks are left to do."""

    run_id: uuid.UUID
    file: FileVersion
    generation: int
    attempt: int
    staging: str | None = None

    @property
    def rows_table(self) -> str:
        """Table of the rows to apply. An attempt that is overtaken while it reads is in nobody's way."""
        return self.staging or f"{STAGING_PREFIX}{self.run_id.hex}_{self.attempt}"

    @property
    def rejects_table(self) -> str:
        """Table of the rejected records."""
        return f"{self.rows_table}_bad"


@dataclass(frozen=True, slots=True)
class Done:
    """The file was finished before, as this row of processing_metadata tells."""

    row: Mapping[str, Any]


def begin(connection: "Connection", file: FileVersion, *, again: bool, dagster_run_id: str | None) -> Run | Done:
    """Take up the unfinished run of the file, or begin one; a finished file is begun anew only with `again`."""
    import sqlalchemy as sa

    from data_platform.ledger.user_statistics import processing_metadata as table

    newest = (
        connection.execute(
            sa.select(table).where(table.c.file_id == file.file_id).order_by(table.c.generation.desc()).limit(1)
        )
        .mappings()
        .one_or_none()
    )
    if newest is not None and newest["status"] in FINAL and not again:
        return Done(dict(newest))
    if newest is not None and newest["status"] in {"RUNNING", "FAILED"}:
        resumed = _resume(connection, dict(newest), file, dagster_run_id)
        if resumed is not None:
            return resumed
    run = _insert(connection, file, 1 if newest is None else newest["generation"] + 1, dagster_run_id)
    write_audit(connection, run, Level.INFO, "PROCESSING_STARTED", f"reading {file.size} bytes")
    return run


def begin_dry(connection: "Connection", file: FileVersion) -> Run:
    """A run that is only rehearsed: the caller rolls the transaction back."""
    return _insert(connection, file, -1 - secrets.randbelow(DRY_GENERATIONS), None)


def _insert(connection: "Connection", file: FileVersion, generation: int, dagster_run_id: str | None) -> Run:
    import sqlalchemy as sa

    from data_platform.ledger.user_statistics import processing_metadata as table

    run = Run(uuid.uuid4(), file, generation, attempt=1)
    connection.execute(
        sa.insert(table).values(
            run_id=run.run_id,
            file_id=file.file_id,
            generation=generation,
            bucket=file.bucket,
            key=file.key,
            version=file.version,
            etag=file.etag,
            size=file.size,
            last_modified=file.last_modified,
            dagster_run_id=dagster_run_id,
        )
    )
    return run


def _resume(
    connection: "Connection", row: Mapping[str, Any], file: FileVersion, dagster_run_id: str | None
) -> Run | None:
    """The run taken up again; None when its staging is gone: it is abandoned, and a new one does all of the file."""
    import sqlalchemy as sa

    from data_platform.ledger.user_statistics import processing_metadata as table

    run = Run(row["run_id"], file, row["generation"], row["attempts"] + 1, row["staging"])
    mine = table.c.run_id == run.run_id
    now = sa.func.clock_timestamp()
    if run.staging and connection.execute(sa.select(sa.func.to_regclass(run.staging))).scalar_one() is None:
        message = "its staging is gone; the file is read again"
        connection.execute(sa.update(table).where(mine).values(status="ABANDONED", finished_at=now, failure=message))
        write_audit(connection, run, Level.WARN, "PROCESSING_ABANDONED", message)
        return None
    values = {"status": "RUNNING", "finished_at": None, "attempts": run.attempt, "dagster_run_id": dagster_run_id}
    connection.execute(sa.update(table).where(mine).values(**values))
    write_audit(connection, run, Level.INFO, "PROCESSING_RESUMED", f"attempt {run.attempt}")
    return run


def finish(
    connection: "Connection", run: Run, *, reject_url: str | None, inconsistencies: int | None, seconds: float
) -> Mapping[str, Any]:
    """Close the run and remove its staging; returns its row."""
    import sqlalchemy as sa

    from data_platform.ledger.user_statistics import processing_metadata as table

    statement = (
        sa.update(table)
        .where(table.c.run_id == run.run_id)
        .values(
            status=sa.case((table.c.refusal.is_(None), "DONE"), else_="REFUSED"),
            failure=None,
            reject_url=reject_url,
            inconsistencies=inconsistencies,
            finished_at=sa.func.clock_timestamp(),
            duration_s=seconds,
        )
        .returning(table)
    )
    row: dict[str, Any] = dict(connection.execute(statement).mappings().one())
    write_audit(connection, run, *verdict_of(row))
    drop_staging(connection, run)
    return row


def state(connection: "Connection", run: Run) -> Mapping[str, Any]:
    """The run's row as it is now."""
    import sqlalchemy as sa

    from data_platform.ledger.user_statistics import processing_metadata as table

    return {**connection.execute(sa.select(table).where(table.c.run_id == run.run_id)).mappings().one()}


def verdict_of(row: Mapping[str, Any]) -> tuple[Level, str, str]:
    """Level, event and sentence of a finished run."""
    counts = (
        f"records={row['records']} inserted={row['inserted']} updated={row['updated']} unchanged={row['unchanged']}"
        f" rejected={row['rejected']}"
    )
    if row["status"] == "REFUSED":
        return Level.ERROR, "FILE_REFUSED", f"nothing was applied: {row['refusal']}; {counts}"
    if row["inconsistencies"]:
        differing = f"{row['inconsistencies']} rows differ between table and file"
        return Level.ERROR, "TABLE_DIFFERS", f"{differing}; {counts}"
    if row["rejected"]:
        message = f"the good rows are applied; {counts}; rejects: {row['reject_url']}"
        return Level.WARN, "PROCESSED_WITH_REJECTS", message
    return Level.INFO, EVENT_PROCESSED_SUCCESSFULLY, f"{COMPLETED}; {counts}"


def fail(connection: "Connection", run: Run, *, level: Level, reason: str, rule: str) -> None:
    """Say that the run stopped; what it has committed stays, and the next run of the file takes it up."""
    import sqlalchemy as sa

    from data_platform.ledger.user_statistics import processing_metadata as table

    connection.execute(
        sa.update(table)
        .where(table.c.run_id == run.run_id, table.c.status == "RUNNING")
        .values(status="FAILED", failure=reason, finished_at=sa.func.clock_timestamp())
    )
    write_audit(connection, run, level, "PROCESSING_FAILED", reason, error_class=ErrorClass.PROCESSING.value, rule=rule)


def write_audit(connection: "Connection", run: Run, level: Level, event: str, message: str, **columns: Any) -> None:
    """One row of audit_logs."""
    import sqlalchemy as sa

    from data_platform.ledger.user_statistics import audit_logs

    values = {"run_id": run.run_id, "level": level.value, "event": event, "file": run.file.url, "message": message}
    connection.execute(sa.insert(audit_logs).values(**values, **columns))


def drop_staging(connection: "Connection", run: Run) -> None:
    """Remove the tables of a run. Names are ours and hexadecimal."""
    connection.exec_driver_sql(f"DROP TABLE IF EXISTS {run.rows_table}, {run.rejects_table}")


def drop_forgotten(connection: "Connection") -> None:
    """Remove the staging of runs that began more than a week ago: nobody took them up, and none is alive so long."""
    import sqlalchemy as sa

    from data_platform.ledger.user_statistics import processing_metadata as table

    names = connection.execute(
        sa.text("SELECT relname FROM pg_class WHERE relkind = 'r' AND pg_table_is_visible(oid) AND relname ^@ :prefix"),
        {"prefix": STAGING_PREFIX},
    ).scalars()
    tables = {name: uuid.UUID(name.removeprefix(STAGING_PREFIX)[:32]) for name in names}
    since = sa.func.clock_timestamp() - sa.text(f"interval '{KEPT_DAYS} days'")
    young = sa.select(table.c.run_id).where(table.c.run_id.in_(tables.values()), table.c.started_at >= since)
    kept = set(connection.execute(young).scalars())
    for name in sorted(name for name, run_id in tables.items() if run_id not in kept):
        connection.exec_driver_sql(f"DROP TABLE IF EXISTS {name}")


def history(connection: "Connection", *, limit: int = 50, status: str | None = None) -> list[dict[str, Any]]:
    """The newest runs, newest first."""
    import sqlalchemy as sa

    from data_platform.ledger.user_statistics import processing_metadata as table

    query = sa.select(table).order_by(table.c.started_at.desc()).limit(limit)
    if status is not None:
        query = query.where(table.c.status == status)
    return [{**row} for row in connection.execute(query).mappings()]


def audit(connection: "Connection", file: str, *, limit: int = 1000) -> list[dict[str, Any]]:
    """Every word about a file, oldest first: `file` is its S3 address, its key, its name or a run's id."""
    import sqlalchemy as sa

    from data_platform.ledger.user_statistics import audit_logs, processing_metadata

    wanted = sa.or_(
        audit_logs.c.file == file,
        processing_metadata.c.key == file,
        sa.func.split_part(processing_metadata.c.key, "/", -1) == file,
        sa.cast(audit_logs.c.run_id, sa.Text) == file,
    )
    query = (
        sa.select(audit_logs)
        .join(processing_metadata, processing_metadata.c.run_id == audit_logs.c.run_id)
        .where(wanted)
        .order_by(audit_logs.c.id)
        .limit(limit)
    )
    return [{**row} for row in connection.execute(query).mappings()]


def finished(connection: "Connection", file_ids: Iterable[str]) -> set[str]:
    """Of these files the ones whose work is over, well or not, so that nobody has to be told again."""
    import sqlalchemy as sa

    from data_platform.ledger.user_statistics import processing_metadata as table

    wanted: Sequence[str] = list(file_ids)
    query = sa.select(table.c.file_id).where(table.c.file_id.in_(wanted), table.c.status.in_(FINAL))
    return set(connection.execute(query).scalars())
