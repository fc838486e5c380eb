"""What a caller of the batch sees: its limits, the progress, the lines it tells, how a file ended.

What belongs here: those shapes. What does not: deciding any of it.
"""

import logging
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from data_platform.statistics.errors import Level, RowError
from data_platform.statistics.source import FileVersion

log = logging.getLogger("data_platform.statistics")

TIMEOUT_S = 15 * 60.0  # the limit of the system this one replaces; now a sign that something hangs
LEASE_S = 30.0
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
class Difference:
    """A row as the file has it and as the table has it: (login_count, post_count), None where it has no such row.

    `written_by`: the other file that wrote the table's row last, at `written_at`; None where no other file did.
    """

    user_id: str
    in_file: tuple[int, int]
    in_table: tuple[int, int] | None
    written_by: str | None = None
    written_at: datetime | None = None

    def __str__(self) -> str:
        login, post = self.in_file
        file = f"{self.user_id} has login_count {login}, post_count {post} in the file and "
        if self.in_table is None:
            return f"{file}no row in the table (deleted by hand)"
        login, post = self.in_table
        if self.written_by is None or self.written_at is None:
            return f"{file}{login}, {post} in the table (changed by hand)"
        return f"{file}{login}, {post} in the table (by {self.written_by}, {self.written_at.astimezone(UTC):%F %T} UTC)"


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
    differing: tuple[Difference, ...] = ()

    @property
    def applied(self) -> int:
        """Rows the table has as the file says."""
        return self.inserted + self.updated + self.unchanged

    @property
    def conserved(self) -> bool:
        """Whether every record went somewhere."""
        return self.records == self.applied + self.rejected + self.withheld

    @property
    def breach(self) -> str:
        """How table and file differ, with the first rows; empty where they do not."""
        if not self.inconsistencies:
            return ""
        first = "" if not self.differing else f" The first: {'; '.join(map(str, self.differing))}."
        return (
            f"{self.inconsistencies:,} of {self.applied:,} rows of {self.file.url} are not in the table as the file "
            f"has them.{first}"
        )

    @property
    def breach_step(self) -> str:
        """What a person does about `breach`."""
        return (
            "Rows that another file wrote: do nothing, the newer file counts (all files with their times: "
            "data-platform statistics history). Rows changed or deleted by hand: ask who works on the table "
            "user_statistics in PostgreSQL, whose own log alone may tell who it was; where the file is right, write "
            f"its values again: data-platform statistics apply {self.file.url}. That writes all rows of the file, also "
            "over what newer files wrote: where there are any, apply them after it in the same way, the oldest first"
        )


def outcome_of(
    row: Mapping[str, Any],
    file: FileVersion,
    seconds: float,
    rejects: tuple[RowError, ...] = (),
    differing: tuple[Difference, ...] = (),
) -> Outcome:
    """As the run's row in processing_metadata tells; `rejects` and `differing` are samples."""
    return Outcome(
        row["status"], file, row["run_id"], row["records"], row["inserted"], row["updated"], row["unchanged"],
        row["rejected"], row["withheld"], row["chunks"], row["inconsistencies"], row["reject_url"], row["refusal"],
        round(seconds, 3), rejects, differing,
    )  # fmt: skip


def already_done(row: Mapping[str, Any], file: FileVersion, seconds: float) -> Outcome:
    """A file that was finished before: this time nothing was changed."""
    applied = row["inserted"] + row["updated"] + row["unchanged"]
    unchanged = {**row, "inserted": 0, "updated": 0, "unchanged": applied}
    return replace(outcome_of(unchanged, file, seconds), status="ALREADY_DONE")
