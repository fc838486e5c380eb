"""After a run: the file read a second time, by other means (the csv and gzip modules), against the table, all rows.

What belongs here: a second opinion. It shares nothing with records.py, count.py and rules.py, so that a mistake of
theirs shows; what it says never changes a row.
"""

import csv
import gzip
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

from data_platform.catalog.models import UserStatistics
from data_platform.statistics.source import FileVersion, stored_bytes
from data_platform.statistics.staging import statement

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer
    from mypy_boto3_s3 import S3Client
    from sqlalchemy import Connection

SECOND_READING = "pg_temp.user_statistics_second_reading"
BATCH = 20_000
MAX_FIELD = 4 << 20
BIGINT = 2**63 - 1
_ID = re.compile(r"[A-Za-z0-9]{1,64}")
_COUNT = re.compile(r"[0-9]{1,19}")


@dataclass(frozen=True, slots=True)
class Comparison:
    """`records` in the file; `expected` rows that had to be applied; `differing` ones that the table has not so."""

    records: int
    expected: int
    differing: int

    def inconsistencies(self, *, records: int, applied: int) -> int:
        """Rows that differ, rows applied too many or too few, records counted otherwise."""
        return self.differing + abs(self.expected - applied) + abs(self.records - records)


def compare(connection: "Connection", s3: "S3Client", file: FileVersion, options: UserStatistics) -> Comparison:
    """Read the file again and compare. Raises ProcessingError when S3 breaks off; writes to a temporary table only."""
    connection.exec_driver_sql(f"DROP TABLE IF EXISTS {SECOND_READING}")
    connection.exec_driver_sql(
        f"""CREATE TEMP TABLE {SECOND_READING.removeprefix("pg_temp.")}
            (user_id text COLLATE "C", login_count bigint, post_count bigint) ON COMMIT DROP"""
    )
    driver: Any = connection.connection.driver_connection
    records = 0
    with driver.cursor() as cursor, cursor.copy(f"COPY {SECOND_READING} FROM STDIN") as copy:
        for count, lines in _batches(_rows(_opened(stored_bytes(s3, file)), options.encoding)):
            records += count
            copy.write("".join(lines))
    connection.exec_driver_sql(f"ANALYZE {SECOND_READING}")
    refuse = str(options.refuse_inactive_users).lower()
    query = statement("compare", second_reading=SECOND_READING, refuse_inactive=refuse)
    expected, differing = connection.exec_driver_sql(query).one()
    return Comparison(records, expected, differing)


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


def _batches(rows: Iterator[list[str] | None]) -> Iterator[tuple[int, list[str]]]:
    """Records, and the lines COPY gets of them: all of a good one, the user of a bad one that names its user."""
    next(rows, None)  # the header
    count, lines = 0, list[str]()
    for row in rows:
        count += 1
        line = _line(row)
        if line is not None:
            lines.append(line)
        if count >= BATCH:
            yield count, lines
            count, lines = 0, []
    yield count, lines


def _line(row: list[str] | None) -> str | None:
    if not row or not _ID.fullmatch(row[0]):
        return None
    if len(row) == 3 and _COUNT.fullmatch(row[1]) and _COUNT.fullmatch(row[2]):
        login, post = int(row[1]), int(row[2])
        if login <= BIGINT and post <= BIGINT:
            return f"{row[0]}\t{login}\t{post}\n"
    return None if any('"' in field for field in row) else f"{row[0]}\t\\N\t\\N\n"


def _rows(stream: IO[bytes], encoding: str) -> Iterator[list[str] | None]:
    """The records; None for one whose quotes the csv module refuses."""
    csv.field_size_limit(MAX_FIELD)
    name = "utf-8-sig" if encoding.lower().replace("_", "-") in {"utf-8", "utf8"} else encoding
    text = io.TextIOWrapper(stream, name, errors="replace", newline="")
    reader = csv.reader(text, strict=True)
    while True:
        try:
            yield next(reader)
        except csv.Error:
            yield None
        except StopIteration:
            return


def _opened(blocks: Iterator[bytes]) -> IO[bytes]:
    buffered = io.BufferedReader(_Stream(blocks), 1 << 18)
    if buffered.peek(2)[:2] == b"\x1f\x8b":
        return gzip.GzipFile(fileobj=buffered)  # pyright: ignore[reportReturnType] - it is a binary file
    return buffered


class _Stream(io.RawIOBase):
    """Blocks of bytes as a file."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks = blocks
        self._left = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        while not self._left:
            block = next(self._blocks, None)
            if block is None:
                return 0
            self._left = memoryview(block)
        target = memoryview(buffer).cast("B")
        size = min(len(target), len(self._left))
        target[:size] = self._left[:size]
        self._left = self._left[size:]
        return size
