"""What the warehouse's own views say of unloads that run or have run, and how one is stopped from another session."""

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from data_platform.settings import Settings

if TYPE_CHECKING:
    from redshift_connector import Connection

RUNNING = frozenset({"running", "queued", "planning", "compiling", "returning"})
COMPLETED = frozenset({"success", "completed"})


@dataclass(frozen=True)
class Statement:
    """An UNLOAD as the views know it; `rows` is what it unloaded, without header lines."""

    query_id: int
    pid: int
    status: str
    rows: int | None
    bytes: int | None

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self.status in RUNNING

    @property
    def completed(self) -> bool:
        """Whether it has ended well."""
        return self.status in COMPLETED and self.rows is not None


@dataclass(frozen=True)
class Totals:
    """How far a running UNLOAD is."""

    query_id: int
    rows: int
    bytes: int


def statement_of(connection: "Connection", prefix_url: str) -> Statement | None:
    """The UNLOAD that writes under `prefix_url` (s3://.../); None when the warehouse knows of none."""
    with connection.cursor() as cursor:
        cursor.execute(_sql("attempt_state"), (prefix_url, prefix_url))
        row = cursor.fetchone()
    if row is None:
        return None
    query_id, pid, status, rows, size = tuple(row)
    return Statement(int(query_id), int(pid), str(status), _number(rows), _number(size))


def running_totals(connection: "Connection") -> dict[str, Totals]:
    """All running UNLOADs by their target."""
    with connection.cursor() as cursor:
        cursor.execute(_sql("running_unloads"))
        rows = [tuple(row) for row in cursor.fetchall()]
    return {str(url).strip(): Totals(int(query), int(count), int(size)) for query, url, count, size in rows}


def stop(connection: "Connection", pid: int) -> None:
    """Cancel what the session `pid` of the same user runs; one that is gone is left alone."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_cancel_backend(%s)", (pid,))


def of_unload(settings: Settings) -> Settings:
    """The settings with the time cap of a request as the session's own."""
    seconds = min(settings.unload_max_seconds, settings.redshift_statement_timeout_s)
    return settings.model_copy(update={"redshift_statement_timeout_s": seconds})


def _number(value: object) -> int | None:
    return None if value is None else int(str(value))


@cache
def _sql(name: str) -> str:
    return (files("data_platform.unload") / "sql" / f"{name}.sql").read_text(encoding="utf-8")
