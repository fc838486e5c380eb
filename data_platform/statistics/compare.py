"""After a run: the file, read a second time, against the table, all rows; and the table against the users.

What belongs here: the comparison, which never changes a row. What the second reading is, is in second_reading.py.
"""

import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from data_platform.catalog.models import UserStatistics
from data_platform.clients import postgres
from data_platform.clients.retry import retrying
from data_platform.statistics.outcome import Difference
from data_platform.statistics.second_reading import records_again
from data_platform.statistics.source import FileVersion, stored_bytes
from data_platform.statistics.staging import SORT_MEMORY, statement

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from sqlalchemy import Connection, Engine

AS_READ = "pg_temp.user_statistics_as_read"
WANTED = "pg_temp.user_statistics_wanted"
SHOWN = 3  # rows that differ, told with both sides; the comparison counts them all


@dataclass(frozen=True, slots=True)
class Comparison:
    """`records` in the file; `expected` rows that had to be applied; `differing` ones that the table has not so, the
    first SHOWN of them in `sample`."""

    records: int
    expected: int
    differing: int
    sample: tuple[Difference, ...] = ()

    def inconsistencies(self, *, records: int, applied: int) -> int:
        """Rows that differ, rows applied too many or too few, records counted otherwise."""
        return self.differing + abs(self.expected - applied) + abs(self.records - records)


class SecondReading:
    """The file in a temporary table of a connection of its own; a context manager, since both have to end.

    `begin` reads in a thread, on the processor that is idle while PostgreSQL sorts what was read first.
    """

    def __init__(
        self,
        engine: "Engine",
        s3: "S3Client",
        file: FileVersion,
        options: UserStatistics,
        *,
        check: Callable[[], None],
    ) -> None:
        """`check` is called now and then and raises when the run has to stop."""
        self._engine = engine
        self._s3 = s3
        self._file = file
        self._options = options
        self._check = check
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="second-reading")
        self._reading: Future[tuple[Connection, int]] | None = None
        self._ended = threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Break a reading off that nobody waits for."""
        self._ended.set()
        self._pool.shutdown()
        if self._reading is not None and self._reading.exception() is None:
            self._reading.result()[0].close()

    def begin(self) -> None:
        """Begin to read, unless that was done."""
        self._reading = self._reading or self._pool.submit(self._read)

    def compare(self) -> Comparison:
        """Compare with the table as it is now. Raises ProcessingError when S3 breaks off, and the driver's errors."""

        def once() -> Comparison:
            reading, self._reading = self._reading or self._pool.submit(self._read), None
            connection, records = reading.result()
            with connection:
                return self._compared(connection, records)

        return retrying(once, postgres.classify)

    def _read(self) -> "tuple[Connection, int]":
        connection = self._engine.connect()
        connection.detach()  # closed at the end, not pooled: its temporary tables end with it
        try:
            return connection, self._copied(connection)
        except BaseException:
            connection.close()
            raise

    def _copied(self, connection: "Connection") -> int:
        """The rows that had to be applied if their users are there, in WANTED; returns the records."""
        connection.exec_driver_sql(f"SET work_mem = '{SORT_MEMORY}'")
        connection.exec_driver_sql(
            f"""CREATE TEMP TABLE {AS_READ.removeprefix("pg_temp.")}
                (user_id text COLLATE "C", login_count bigint, post_count bigint) ON COMMIT DROP"""
        )
        driver: Any = connection.connection.dbapi_connection
        records = 0
        with driver.cursor() as cursor, cursor.copy(f"COPY {AS_READ} FROM STDIN (FORMAT csv)") as copy:
            for count, lines in records_again(stored_bytes(self._s3, self._file), self._options.encoding):
                if self._ended.is_set():
                    raise CancelledError
                self._check()
                records += count
                copy.write(lines)
        wanted = WANTED.removeprefix("pg_temp.")
        connection.exec_driver_sql(statement("wanted_rows", as_read=AS_READ, wanted=wanted))
        connection.exec_driver_sql(f"ANALYZE {WANTED}")
        connection.commit()
        return records

    def _compared(self, connection: "Connection", records: int) -> Comparison:
        refuse = str(self._options.refuse_inactive_users).lower()
        compared = statement("compared_rows", wanted=WANTED, refuse_inactive=refuse)
        expected, differing = connection.exec_driver_sql(statement("compare", compared=compared)).one()
        sample: list[Difference] = []
        if differing:
            query = statement("differing_rows", compared=compared, limit=SHOWN)
            sample = [self._difference(*row) for row in connection.exec_driver_sql(query)]
        return Comparison(records, expected, differing, tuple(sample))

    def _difference(
        self, user_id: str, login: int, post: int, found_login: int | None, found_post: int | None, at: Any,
        file_id: str | None, url: str | None,
    ) -> Difference:  # fmt: skip
        found = None if found_login is None or found_post is None else (found_login, found_post)
        if url is None or file_id == self._file.file_id:  # what this file wrote, it wrote as it stands in it
            return Difference(user_id, (login, post), found)
        return Difference(user_id, (login, post), found, url, at)


@dataclass(frozen=True, slots=True)
class Orphans:
    """Rows of user_statistics without a user, and whether the database itself forbids them."""

    rows: int
    enforced: bool


def orphans(connection: "Connection") -> Orphans:
    """Look for them in all of the table."""
    rows = connection.exec_driver_sql(
        """SELECT count(*) FROM user_statistics AS s
           WHERE NOT EXISTS (SELECT FROM users AS u WHERE u.user_id = s.user_id)"""
    ).scalar_one()
    enforced = connection.exec_driver_sql(
        """SELECT coalesce(bool_or(convalidated), false) FROM pg_constraint
           WHERE contype = 'f' AND conrelid = 'user_statistics'::regclass AND confrelid = 'users'::regclass"""
    ).scalar_one()
    return Orphans(rows, enforced)
