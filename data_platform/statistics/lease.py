"""The lock on one file while it is worked on: waited for, renewed as long as the process lives, given back.

What belongs here: keeping the lease. That a lost lock writes nothing is ensured where it is written (locks.hold).
"""

import logging
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Self

from data_platform.clients import postgres
from data_platform.statistics.errors import FileLockedError

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

    from data_platform.ledger.locks import Lock

log = logging.getLogger(__name__)
LOCK_TIMEOUT_S = 2
POLL_S = 0.5


@contextmanager
def writing(engine: "Engine", lease_s: float) -> "Generator[Connection]":
    """A transaction under the lock. A holder that is paused inside it must not keep the next one waiting for longer
    than its lease: the server ends it then."""
    with engine.begin() as connection:
        connection.exec_driver_sql(f"SET LOCAL idle_in_transaction_session_timeout = {int(lease_s * 1000)}")
        yield connection


class FileLease:
    """A context manager that holds the lock called `name` for `owner`, renewing its lease every third of it."""

    def __init__(self, engine: "Engine", name: str, owner: str, *, lease_s: float, wait_s: float) -> None:
        self._engine = engine
        self._name = name
        self._owner = owner
        self._lease = timedelta(seconds=lease_s)
        self._wait_s = wait_s
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._lock: Lock | None = None

    @property
    def lock(self) -> "Lock":
        """The lock; only inside the `with`."""
        if self._lock is None:
            raise AssertionError("the lease is not held")
        return self._lock

    def __enter__(self) -> Self:
        """Wait for the lock. Raises FileLockedError when another owner keeps it longer than `wait_s` seconds."""
        deadline = time.monotonic() + self._wait_s
        while (lock := self._try()) is None:
            if time.monotonic() > deadline:
                raise FileLockedError(
                    f"another run works on this file ({self._holder()})",
                    hint="let it finish; if it is dead, its lease ends by itself",
                )
            time.sleep(POLL_S)
        self._lock = lock
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop renewing and give the lock back, if it is still ours and the database can be reached."""
        from sqlalchemy.exc import DBAPIError

        from data_platform.ledger import locks

        self._ended.set()
        self._thread.join()
        try:
            with self._alone() as connection:
                locks.release(connection, self.lock)
        except DBAPIError as failure:
            log.info("the lock of %s could not be given back; its lease ends by itself: %s", self._name, failure.orig)

    def _try(self) -> "Lock | None":
        from sqlalchemy.exc import DBAPIError

        from data_platform.ledger import locks

        try:
            with writing(self._engine, self._lease.total_seconds()) as connection:
                connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT_S}s'")
                return locks.acquire(connection, self._name, self._owner, self._lease)
        except DBAPIError as error:
            if postgres.sqlstate(error) == "55P03":  # its holder is writing at this moment
                return None
            raise

    def _alone(self) -> "Connection":
        """For a single statement, which the server commits by itself: a pause here leaves no transaction open."""
        return self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")

    def _holder(self) -> str:
        import sqlalchemy as sa

        from data_platform.ledger.locks import job_locks

        with self._engine.connect() as connection:
            row = connection.execute(sa.select(job_locks).where(job_locks.c.name == self._name)).one_or_none()
        if row is None or row.owner is None:
            return "nobody any more"
        return f"{row.owner}, until {row.lease_until:%H:%M:%S}"

    def _renew(self) -> None:
        from sqlalchemy.exc import DBAPIError

        from data_platform.ledger import locks

        while not self._ended.wait(self._lease.total_seconds() / 3):
            try:
                with self._alone() as connection:
                    locks.renew(connection, self.lock, self._lease)
            except locks.LockLostError:
                return  # whoever writes next finds out and stops
            except DBAPIError as error:
                # A chunk is being written under the lock (time-out), or the database is away: the next round tells.
                log.info("the lease of %s was not renewed this time: %s", self._name, error.orig)
