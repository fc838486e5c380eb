"""What a caller of the batch sees: its limits, the progress, the lines it tells, how a file ended.

What belongs here: those shapes. What does not: deciding any of it.
"""

import logging
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
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


def outcome_of(
    row: Mapping[str, Any], file: FileVersion, seconds: float, rejects: tuple[RowError, ...] = ()
) -> Outcome:
    """As the run's row in processing_metadata tells; `rejects` is a sample of them."""
    return Outcome(
        row["status"], file, row["run_id"], row["records"], row["inserted"], row["updated"], row["unchanged"],
        row["rejected"], row["withheld"], row["chunks"], row["inconsistencies"], row["reject_url"], row["refusal"],
        round(seconds, 3), rejects,
    )  # fmt: skip


def already_done(row: Mapping[str, Any], file: FileVersion, seconds: float) -> Outcome:
    """A file that was finished before: this time nothing was changed."""
    applied = row["inserted"] + row["updated"] + row["unchanged"]
    unchanged = {**row, "inserted": 0, "updated": 0, "unchanged": applied}
    return replace(outcome_of(unchanged, file, seconds), status="ALREADY_DONE")
