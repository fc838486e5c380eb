"""The chunks of a run, applied at most five at a time, each in one transaction with its ledger rows.

A chunk is a range of user ids, so that it walks the table's index in order. Its transaction proves that the chunk is
not done yet and that the lock is still ours: a woken holder commits nothing, and nothing is applied twice.
"""

import threading
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from data_platform.clients import postgres
from data_platform.clients.retry import retrying
from data_platform.statistics.errors import Level
from data_platform.statistics.lease import writing
from data_platform.statistics.runs import Run
from data_platform.statistics.staging import statement

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

    from data_platform.ledger.locks import Lock

ATTEMPTS = 3
SURPRISES = 5  # users removed or inserted by others between two statements; each of them costs the chunk once more


@dataclass(frozen=True, slots=True)
class Chunk:
    """A range of user ids, both ends included."""

    number: int
    first: str
    last: str
    rows: int


@dataclass(frozen=True, slots=True)
class ChunkEvent:
    """`state`: `upserted` and (with the lock proven, the ledger written) `written` in the transaction, `committed`."""

    chunk: Chunk
    state: str


class ChunkError(Exception):
    """A chunk that could not be applied; the cause says why."""

    def __init__(self, chunk: Chunk) -> None:
        super().__init__(f"chunk {chunk.number}")
        self.chunk = chunk


def open_chunks(connection: "Connection", run: Run) -> list[Chunk]:
    """The chunks that are not applied yet, in order."""
    import sqlalchemy as sa

    from data_platform.ledger.user_statistics import batch_jobs as jobs

    query = (
        sa.select(jobs.c.chunk, jobs.c.first_user_id, jobs.c.last_user_id, jobs.c.rows)
        .where(jobs.c.run_id == run.run_id, jobs.c.status != "DONE")
        .order_by(jobs.c.chunk)
    )
    return [Chunk(*row) for row in connection.execute(query)]


def apply_chunks(
    engine: "Engine",
    run: Run,
    todo: list[Chunk],
    *,
    lock: "Lock",
    lease_s: float,
    parallel: int,
    check: Callable[[], None],
    on_event: Callable[[ChunkEvent], None],
) -> None:
    """Apply `todo`; after the first failure nothing new is begun. `check` raises when the run has to stop.

    Raises ChunkError around the cause, once no chunk is being written any more.
    """
    stop = threading.Event()

    def work(chunk: Chunk) -> None:
        if stop.is_set():
            return
        try:
            check()
            retrying(
                lambda: _apply(engine, run, chunk, lock, lease_s, on_event),
                postgres.classify,
                attempts=ATTEMPTS,
                base_s=0.2,
                cap_s=3.0,
            )
        except BaseException as error:
            stop.set()
            raise ChunkError(chunk) from error
        on_event(ChunkEvent(chunk, "committed"))

    with ThreadPoolExecutor(max_workers=parallel, thread_name_prefix="chunk") as pool:
        futures: list[Future[None]] = [pool.submit(work, chunk) for chunk in todo]
        done, _ = wait(futures, return_when=FIRST_EXCEPTION)
        for future in futures:
            future.cancel()
    for future in done:
        future.result()


def _apply(
    engine: "Engine", run: Run, chunk: Chunk, lock: "Lock", lease_s: float, on_event: Callable[[ChunkEvent], None]
) -> None:
    from psycopg.errors import ForeignKeyViolation, UniqueViolation

    vanished, insert = False, "insert_new"
    for left in reversed(range(SURPRISES)):
        try:
            _transaction(engine, run, chunk, lock, lease_s, on_event, vanished=vanished, insert=insert)
        except ForeignKeyViolation:
            if not left:
                raise
            # A user was removed after the file was classified: its row is a reject now, told in the same transaction.
            vanished = True
        except UniqueViolation:
            if not left:
                raise
            # A run of another file inserted one of these users meanwhile.
            insert = "insert_contended"
        else:
            return


def _transaction(
    engine: "Engine",
    run: Run,
    chunk: Chunk,
    lock: "Lock",
    lease_s: float,
    on_event: Callable[[ChunkEvent], None],
    *,
    vanished: bool,
    insert: str,
) -> None:
    import sqlalchemy as sa

    from data_platform.ledger import locks
    from data_platform.ledger.user_statistics import batch_jobs as jobs
    from data_platform.ledger.user_statistics import processing_metadata as metadata

    mine = sa.and_(jobs.c.run_id == run.run_id, jobs.c.chunk == chunk.number)
    with writing(engine, lease_s) as connection:
        status = connection.execute(sa.select(jobs.c.status).where(mine).with_for_update()).scalar_one()
        counts = {} if status == "DONE" else _write(connection, run, chunk, vanished=vanished, insert=insert)
        on_event(ChunkEvent(chunk, "upserted"))
        # The proof stands after the rows, which are rolled back without it: held from the start it would be held by
        # one chunk or another all the time, and the lease could not be renewed.
        locks.hold(connection, lock, shared=True)
        if status == "DONE":
            return
        connection.execute(
            sa.update(jobs)
            .where(mine)
            .values(status="DONE", token=lock.token, error=None, finished_at=sa.func.clock_timestamp(), **counts)
        )
        # Last, since the other chunks wait for this row until the commit.
        connection.execute(
            sa.update(metadata)
            .where(metadata.c.run_id == run.run_id)
            .values({name: metadata.c[name] + count for name, count in counts.items()})
        )
        on_event(ChunkEvent(chunk, "written"))


def _write(connection: "Connection", run: Run, chunk: Chunk, *, vanished: bool, insert: str) -> dict[str, int]:
    """Apply the rows; what is equal already is not touched. Returns how many were inserted, updated and so on."""
    rejected = _reject_vanished(connection, run, chunk) if vanished else 0
    driver: Any = connection.connection.driver_connection
    bounds = {"first": chunk.first, "last": chunk.last}
    with driver.cursor() as cursor:
        # Never prepared: a generic plan does not know how few of the users are between first and last.
        cursor.execute(statement("update_existing", rows=run.rows_table), bounds, prepare=False)
        updated = cursor.rowcount
        cursor.execute(statement(insert, rows=run.rows_table), bounds, prepare=False)
        inserted, updated_meanwhile = cursor.fetchone() if cursor.description else (cursor.rowcount, 0)
    updated += updated_meanwhile
    unchanged = chunk.rows - rejected - inserted - updated
    return {"inserted": inserted, "updated": updated, "unchanged": unchanged, "rejected": rejected}


def _reject_vanished(connection: "Connection", run: Run, chunk: Chunk) -> int:
    driver: Any = connection.connection.driver_connection
    with driver.cursor() as cursor:
        cursor.execute(
            statement("vanished_users", rows=run.rows_table, rejects=run.rejects_table),
            {"first": chunk.first, "last": chunk.last, "chunk": chunk.number},
            prepare=False,
        )
        count: int = cursor.rowcount
        cursor.execute(
            f"""INSERT INTO audit_logs (run_id, level, event, error_class, file, line, "column", value, rule, message)
                SELECT %s, %s, 'ROW_REJECTED', error_class, %s, line, "column", value, rule, reason
                FROM {run.rejects_table} WHERE chunk = %s ORDER BY line""",
            (run.run_id, Level.WARN.value, run.file.url, chunk.number),
        )
    return count


def note_failure(connection: "Connection", run: Run, chunk: Chunk, reason: str) -> None:
    """Write down why a chunk failed; a later attempt does it all the same."""
    import sqlalchemy as sa

    from data_platform.ledger.user_statistics import batch_jobs as jobs

    connection.execute(
        sa.update(jobs)
        .where(jobs.c.run_id == run.run_id, jobs.c.chunk == chunk.number, jobs.c.status != "DONE")
        .values(status="FAILED", error=reason, finished_at=sa.func.clock_timestamp())
    )
