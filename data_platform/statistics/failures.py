"""What stopped a run, as a ProcessingError, and its line in the ledger.

What belongs here: errors of database, S3 and lock, told as an operator needs them. What does not: errors of rows.
"""

from typing import TYPE_CHECKING

from data_platform.clients import postgres
from data_platform.statistics.chunks import ChunkError, note_failure
from data_platform.statistics.errors import Level, ProcessingError
from data_platform.statistics.lease import writing
from data_platform.statistics.outcome import Tell
from data_platform.statistics.runs import Run, fail
from data_platform.statistics.source import FileVersion

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from data_platform.ledger.locks import Lock


def as_processing_error(error: BaseException, file: FileVersion) -> ProcessingError | None:
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


def note(
    engine: "Engine", run: Run, lock: "Lock", error: Exception, failure: ProcessingError, *, lease_s: float, tell: Tell
) -> None:
    """Write the failure into the ledger, if it is still ours to write and the database can be reached."""
    from sqlalchemy.exc import DBAPIError

    from data_platform.ledger import locks

    try:
        with writing(engine, lease_s) as connection:
            locks.hold(connection, lock)
            if isinstance(error, ChunkError):
                note_failure(connection, run, error.chunk, failure.reason)
            fail(connection, run, level=failure.level, reason=failure.reason, rule=failure.rule)
    except locks.LockLostError:
        pass  # the run is another's now; what it says counts
    except DBAPIError as unreachable:
        tell(Level.ERROR, f"ERROR the failure could not be written to the ledger: {unreachable.orig}")
