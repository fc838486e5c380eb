"""One file from S3 into user_statistics: lock, stage, reject file, chunks, comparison, verdict. The order is the point.

Each step commits with its ledger rows, so that a run killed anywhere is taken up where it ended by the next one.
"""

import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from data_platform.catalog.models import UserStatistics
from data_platform.clients import postgres
from data_platform.clients.retry import retrying
from data_platform.statistics.chunks import ChunkError, ChunkEvent, apply_chunks, note_failure, open_chunks
from data_platform.statistics.compare import Comparison, compare
from data_platform.statistics.errors import Level, ProcessingError, RowError
from data_platform.statistics.lease import FileLease
from data_platform.statistics.rejects import sample, write_rejects
from data_platform.statistics.runs import (
    Done,
    Run,
    begin,
    begin_dry,
    drop_forgotten,
    fail,
    finish,
    state,
    verdict_of,
)
from data_platform.statistics.source import FileVersion
from data_platform.statistics.staging import stage

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from sqlalchemy import Engine

    from data_platform.ledger.locks import Lock

log = logging.getLogger("data_platform.statistics")

TIMEOUT_S = 15 * 60.0  # the limit of the system this one replaces; now a sign that something hangs
LEASE_S = 30.0
SAMPLE = 20  # rejects that are told in full; all of them stand in the reject file
PYTHON_LEVELS = {
    Level.INFO: logging.INFO,
    Level.WARN: logging.WARNING,
    Level.ERROR: logging.ERROR,
    Level.FATAL: logging.CRITICAL,
}
Tell = Callable[[Level, str], None]


def log_line(level: Level, line: str) -> None:
    """Write to the process's log, with the level's own word in the line."""
    log.log(PYTHON_LEVELS[level], "%s", line)


@dataclass(frozen=True, slots=True)
class Progress:
    """What is being done, and rows so far of how many.

    Steps: `reading`, `staged` (in the transaction), `planned`, `upserted` and `written` (a chunk, in its transaction),
    `committed`, `comparing`, `finished`.
    """

    step: str
    done: int = 0
    total: int | None = None
    chunk: int | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds: the longest a run may take, the lease of its lock, how long to wait for another run's lock."""

    timeout_s: float = TIMEOUT_S
    lease_s: float = LEASE_S
    wait_s: float = LEASE_S * 1.5


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a file ended. `status`: DONE, REFUSED, ALREADY_DONE, DRY_RUN. Rows without the header."""

    status: str
    file: FileVersion
    run_id: uuid.UUID | None
    records: int
    inserted: int
    updated: int
    unchanged: int
    rejected: int
    withheld: int
    chunks: int
    inconsistencies: int | None
    reject_url: str | None
    reason: str | None
    seconds: float
    rejects: tuple[RowError, ...] = ()

    @property
    def applied(self) -> int:
        """Rows the table has as the file says."""
        return self.inserted + self.updated + self.unchanged

    @property
    def conserved(self) -> bool:
        """Whether every record went somewhere."""
        return self.records == self.applied + self.rejected + self.withheld


@dataclass
class FileRun:
    """What one call works with."""

    engine: "Engine"
    s3: "S3Client"
    file: FileVersion
    options: UserStatistics
    limits: Limits
    tell: Tell
    on_progress: Callable[[Progress], None]
    begun: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """Seconds since the begin."""
        return time.monotonic() - self.begun

    def check_time(self) -> None:
        """Raises ProcessingError once the run has had all its time."""
        if self.seconds > self.limits.timeout_s:
            raise ProcessingError(
                f"time-out after {self.limits.timeout_s:g} s",
                file=self.file.url,
                rule="timeout",
                level=Level.FATAL,
                hint="is the database slow or locked? a rerun goes on where this one ended",
            )

    def reading(self, records: int) -> None:
        """Progress of the reading, and the clock."""
        self.check_time()
        self.on_progress(Progress("reading", records))


def apply_file(
    engine: "Engine",
    s3: "S3Client",
    file: FileVersion,
    options: UserStatistics,
    *,
    again: bool = False,
    dry_run: bool = False,
    owner: str | None = None,
    dagster_run_id: str | None = None,
    limits: Limits | None = None,
    tell: Tell = log_line,
    on_progress: Callable[[Progress], None] = lambda _progress: None,
) -> Outcome:
    """Apply one file, or take up its unfinished run; a finished file is left alone.

    `again`: a person asks. A finished file is compared with the table first, and applied anew where they differ.
    `dry_run`: validate, classify, count; nothing is written anywhere.
    Raises ProcessingError (database, S3, time-out; what is committed stays), FileLockedError.
    """
    work = FileRun(engine, s3, file, options, limits or Limits(), tell, on_progress)
    try:
        if dry_run:
            return _dry_run(work)
        name = f"user_statistics:{file.file_id}"
        lease = FileLease(
            engine,
            name,
            owner or f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}",
            lease_s=work.limits.lease_s,
            wait_s=work.limits.wait_s,
        )
        with lease:
            return _locked(work, lease.lock, again=again, dagster_run_id=dagster_run_id)
    except ProcessingError as error:
        tell(error.level, f"{error.level} {error.message} rule={error.rule}")
        raise
    except Exception as error:
        failure = _as_processing_error(error, file)
        if failure is None:
            raise
        tell(failure.level, f"{failure.level} {failure.message} rule={failure.rule}")
        raise failure from error


def _locked(work: FileRun, lock: "Lock", *, again: bool, dagster_run_id: str | None) -> Outcome:
    found = _begin(work, lock, again=False, dagster_run_id=dagster_run_id)
    if isinstance(found, Done) and again and (found.row["status"] == "REFUSED" or _table_differs(work, found.row)):
        found = _begin(work, lock, again=True, dagster_run_id=dagster_run_id)
    if isinstance(found, Done):
        work.tell(Level.INFO, f"INFO ALREADY_DONE {work.file.identity} finished at {found.row['finished_at']}")
        return _already(found.row, work)
    work.tell(Level.INFO, f"INFO PROCESSING_STARTED {work.file.identity} run={found.run_id} attempt={found.attempt}")
    try:
        return _steps(work, found, lock)
    except Exception as error:
        failure = _as_processing_error(error, work.file)
        if failure is not None:
            _note(work, found, lock, error, failure)
        raise


def _begin(work: FileRun, lock: "Lock", *, again: bool, dagster_run_id: str | None) -> Run | Done:
    from data_platform.ledger import locks

    with work.engine.begin() as connection:
        locks.hold(connection, lock)
        found = begin(connection, work.file, again=again, dagster_run_id=dagster_run_id)
        if isinstance(found, Run):
            drop_forgotten(connection)
        return found


def _table_differs(work: FileRun, row: Mapping[str, Any]) -> bool:
    """Whether the table no longer is what a finished run left: records are claims, the table is the truth."""
    found = _compare(work)
    applied = row["inserted"] + row["updated"] + row["unchanged"]
    return found.inconsistencies(records=row["records"], applied=applied) > 0


def _steps(work: FileRun, run: Run, lock: "Lock") -> Outcome:
    """Everything between begin and end of a run."""
    from data_platform.ledger import locks

    if run.staging is None:
        run = _stage(work, run, lock)
    with work.engine.connect() as connection:
        row = state(connection, run)
        rejects = sample(connection, run, SAMPLE)
    work.on_progress(Progress("planned", 0, row["records"]))
    _tell_rejects(work, row, rejects)
    inconsistencies = None
    if row["refusal"] is None:
        _apply(work, run, lock)
        inconsistencies = _inconsistencies(work, run)
    work.check_time()
    reject_url = _rejects(work, run)
    with work.engine.begin() as connection:
        locks.hold(connection, lock)
        closed = finish(
            connection, run, reject_url=reject_url, inconsistencies=inconsistencies, seconds=round(work.seconds, 3)
        )
        locks.release(connection, lock)
    level, event, sentence = verdict_of(closed)
    work.tell(level, f"{level} {event} {work.file.url} {sentence}")
    work.on_progress(Progress("finished", row["records"], row["records"]))
    return _outcome(closed, work, rejects)


def _stage(work: FileRun, run: Run, lock: "Lock") -> Run:
    from data_platform.ledger import locks

    def once() -> None:
        with work.engine.begin() as connection:
            connection.exec_driver_sql(_idle_limit(work))
            stage(
                connection,
                work.s3,
                run,
                work.options,
                on_records=work.reading,
                prove=lambda: locks.hold(connection, lock, shared=True),
            )
            work.on_progress(Progress("staged"))

    retrying(once, postgres.classify)
    return replace(run, staging=run.rows_table)


def _idle_limit(work: FileRun) -> str:
    """A holder that is paused inside a transaction must not keep the next one waiting beyond its lease."""
    return f"SET LOCAL idle_in_transaction_session_timeout = {int(work.limits.lease_s * 1000)}"


def _tell_rejects(work: FileRun, row: Mapping[str, Any], rejects: Sequence[RowError]) -> None:
    for reject in rejects:
        work.tell(Level.WARN, f"WARN {reject}")
    more = row["rejected"] - len(rejects)
    if more > 0:
        work.tell(Level.WARN, f"WARN {more} more rejected records stand in the reject file")


def _apply(work: FileRun, run: Run, lock: "Lock") -> None:
    with work.engine.connect() as connection:
        todo = open_chunks(connection, run)
    total, done, counting = sum(chunk.rows for chunk in todo), 0, threading.Lock()

    def on_event(event: ChunkEvent) -> None:
        nonlocal done
        with counting:
            done += event.chunk.rows if event.state == "committed" else 0
            progress = Progress(event.state, done, total, event.chunk.number)
        work.on_progress(progress)

    apply_chunks(
        work.engine,
        run,
        todo,
        lock=lock,
        lease_s=work.limits.lease_s,
        parallel=work.options.parallel_chunks,
        check=work.check_time,
        on_event=on_event,
    )


def _inconsistencies(work: FileRun, run: Run) -> int:
    found = _compare(work)
    with work.engine.connect() as connection:
        row = state(connection, run)
    return found.inconsistencies(records=row["records"], applied=row["inserted"] + row["updated"] + row["unchanged"])


def _compare(work: FileRun) -> Comparison:
    work.check_time()
    work.on_progress(Progress("comparing"))

    def once() -> Comparison:
        with work.engine.begin() as connection:
            return compare(connection, work.s3, work.file, work.options)

    return retrying(once, postgres.classify)


def _rejects(work: FileRun, run: Run) -> str | None:
    """The reject files, where there is something to reject."""

    def once() -> str | None:
        with work.engine.begin() as connection:
            return write_rejects(connection, work.s3, run) if sample(connection, run, 1) else None

    return retrying(once, postgres.classify)


def _dry_run(work: FileRun) -> Outcome:
    with work.engine.connect() as connection:  # never committed
        run = begin_dry(connection, work.file)
        staged = stage(connection, work.s3, run, work.options, on_records=work.reading, prove=lambda: None)
        rejects = sample(connection, run, SAMPLE)
        connection.rollback()
    withheld = staged.records - staged.rejected
    return Outcome(
        "DRY_RUN", work.file, None, staged.records, 0, 0, 0, staged.rejected, withheld, staged.chunks, None, None,
        staged.refused, round(work.seconds, 3), rejects,
    )  # fmt: skip


def _outcome(row: Mapping[str, Any], work: FileRun, rejects: tuple[RowError, ...]) -> Outcome:
    return Outcome(
        row["status"], work.file, row["run_id"], row["records"], row["inserted"], row["updated"], row["unchanged"],
        row["rejected"], row["withheld"], row["chunks"], row["inconsistencies"], row["reject_url"], row["refusal"],
        round(work.seconds, 3), rejects,
    )  # fmt: skip


def _already(row: Mapping[str, Any], work: FileRun) -> Outcome:
    """A finished file: this time nothing was changed."""
    applied = row["inserted"] + row["updated"] + row["unchanged"]
    unchanged = {**row, "inserted": 0, "updated": 0, "unchanged": applied}
    return replace(_outcome(unchanged, work, ()), status="ALREADY_DONE")


def _as_processing_error(error: BaseException, file: FileVersion) -> ProcessingError | None:
    """What an operator is told; None for what is no failure of database, S3 or lock: that is told as it is."""
    import psycopg
    from sqlalchemy.exc import SQLAlchemyError

    from data_platform.ledger.locks import LockLostError

    where = f"{error}: " if isinstance(error, ChunkError) else ""
    cause = error.__cause__ if isinstance(error, ChunkError) and error.__cause__ is not None else error
    if isinstance(cause, ProcessingError):
        return cause
    if isinstance(cause, LockLostError):
        return ProcessingError(where + cause.message, file=file.url, rule="lock", level=Level.FATAL, hint=cause.hint)
    if isinstance(cause, SQLAlchemyError | psycopg.Error):
        reason = str(getattr(cause, "orig", None) or cause).strip().splitlines()
        return ProcessingError(
            where + (reason[0] if reason else type(cause).__name__),
            file=file.url,
            rule=f"database {postgres.sqlstate(cause) or 'connection'}",
            fault=postgres.classify(cause),
        )
    return None


def _note(work: FileRun, run: Run, lock: "Lock", error: Exception, failure: ProcessingError) -> None:
    """Write the failure into the ledger, if it is still ours to write and the database can be reached."""
    from sqlalchemy.exc import DBAPIError

    from data_platform.ledger import locks

    try:
        if isinstance(error, ChunkError):
            note_failure(work.engine, run, lock, error.chunk, failure.reason)
        with work.engine.begin() as connection:
            locks.hold(connection, lock)
            fail(connection, run, level=failure.level, reason=failure.reason, rule=failure.rule)
    except locks.LockLostError:
        pass  # the run is another's now; what it says counts
    except DBAPIError as unreachable:
        work.tell(Level.ERROR, f"ERROR the failure could not be written to the ledger: {unreachable.orig}")
