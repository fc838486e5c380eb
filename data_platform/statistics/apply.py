"""One file from S3 into user_statistics: lock, stage, reject file, chunks, comparison, verdict. The order is the point.

Each step commits with its ledger rows, so that a run killed anywhere is taken up where it ended by the next one.
"""

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
from data_platform.statistics.chunks import ChunkEvent, apply_chunks, open_chunks
from data_platform.statistics.compare import Comparison, SecondReading
from data_platform.statistics.errors import Level, ProcessingError, RowError
from data_platform.statistics.failures import as_processing_error, note
from data_platform.statistics.lease import FileLease, writing
from data_platform.statistics.outcome import (
    Difference,
    Limits,
    Outcome,
    Progress,
    Tell,
    already_done,
    log_line,
    outcome_of,
)
from data_platform.statistics.rejects import sample, write_rejects
from data_platform.statistics.runs import (
    Done,
    Run,
    begin,
    begin_dry,
    drop_forgotten,
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

SAMPLE = 20  # rejects that are told in full; all of them stand in the reject file


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
    second: SecondReading = field(init=False)
    begun: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.second = SecondReading(self.engine, self.s3, self.file, self.options, check=self.check_time)

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
        with lease, work.second:
            return _locked(work, lease.lock, again=again, dagster_run_id=dagster_run_id)
    except ProcessingError as error:
        tell(error.level, f"{error.level} {error.message} rule={error.rule}")
        raise
    except Exception as error:
        failure = as_processing_error(error, file)
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
        return already_done(found.row, work.file, work.seconds)
    work.tell(Level.INFO, f"INFO PROCESSING_STARTED {work.file.identity} run={found.run_id} attempt={found.attempt}")
    try:
        return _steps(work, found, lock)
    except Exception as error:
        failure = as_processing_error(error, work.file)
        if failure is not None:
            note(work.engine, found, lock, error, failure, lease_s=work.limits.lease_s, tell=work.tell)
        raise


def _begin(work: FileRun, lock: "Lock", *, again: bool, dagster_run_id: str | None) -> Run | Done:
    from data_platform.ledger import locks

    with writing(work.engine, work.limits.lease_s) as connection:
        locks.hold(connection, lock)
        found = begin(connection, work.file, again=again, dagster_run_id=dagster_run_id)
        if isinstance(found, Run):
            drop_forgotten(connection)
        return found


def _table_differs(work: FileRun, row: Mapping[str, Any]) -> bool:
    """Whether the table no longer is what a finished run left: records are claims, the table is the truth."""
    found = _compared(work)
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
    inconsistencies, differing = None, ()
    if row["refusal"] is None:
        _apply(work, run, lock)
        inconsistencies, differing = _inconsistencies(work, run)
    work.check_time()
    reject_url = _rejects(work, run)
    with writing(work.engine, work.limits.lease_s) as connection:
        locks.hold(connection, lock)
        closed = finish(
            connection, run, reject_url=reject_url, inconsistencies=inconsistencies, seconds=round(work.seconds, 3)
        )
        locks.release(connection, lock)
    level, event, sentence = verdict_of(closed)
    work.tell(level, f"{level} {event} {work.file.url} {sentence}")
    work.on_progress(Progress("finished", row["records"], row["records"]))
    return outcome_of(closed, work.file, work.seconds, rejects, differing)


def _stage(work: FileRun, run: Run, lock: "Lock") -> Run:
    from data_platform.ledger import locks

    def once() -> None:
        with writing(work.engine, work.limits.lease_s) as connection:
            stage(
                connection,
                work.s3,
                run,
                work.options,
                on_records=work.reading,
                on_read=work.second.begin,
                prove=lambda: locks.hold(connection, lock, shared=True),
            )
            work.on_progress(Progress("staged"))

    retrying(once, postgres.classify)
    return replace(run, staging=run.rows_table)


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


def _inconsistencies(work: FileRun, run: Run) -> tuple[int, tuple[Difference, ...]]:
    found = _compared(work)
    with work.engine.connect() as connection:
        row = state(connection, run)
    applied = row["inserted"] + row["updated"] + row["unchanged"]
    return found.inconsistencies(records=row["records"], applied=applied), found.sample


def _compared(work: FileRun) -> Comparison:
    work.check_time()
    work.on_progress(Progress("comparing"))
    return work.second.compare()


def _rejects(work: FileRun, run: Run) -> str | None:
    """The reject files, where there is something to reject."""

    def once() -> str | None:
        with writing(work.engine, work.limits.lease_s) as connection:
            return write_rejects(connection, work.s3, run) if sample(connection, run, 1) else None

    return retrying(once, postgres.classify)


def _dry_run(work: FileRun) -> Outcome:
    with work.engine.connect() as connection:  # never committed
        run = begin_dry(connection, work.file)
        staged = stage(
            connection, work.s3, run, work.options, on_records=work.reading, on_read=lambda: None, prove=lambda: None
        )
        rejects = sample(connection, run, SAMPLE)
        connection.rollback()
    withheld = staged.records - staged.rejected
    return Outcome(
        "DRY_RUN", work.file, None, staged.records, 0, 0, 0, staged.rejected, withheld, staged.chunks, None, None,
        staged.refused, round(work.seconds, 3), rejects,
    )  # fmt: skip
