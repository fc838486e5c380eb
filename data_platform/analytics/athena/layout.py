"""Names and places on Athena: Glue tables and their columns, S3 prefixes, the texts of literals and filters. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import pairwise

from data_platform.analytics.days import DAY, LocalDays, local_days
from data_platform.analytics.sql_files import statement
from data_platform.catalog.models import Service

EVENTS = "analytics_events"  # the Glue table of the curated events
LONGEST_GAP = 10  # days without events whose boundaries are told all the same; runs so far apart do not overlap
PARTITION_KEYS = ("year", "month", "day")
KEYS_OF_DAY = (
    "date_format(local_day, '%Y') AS year, date_format(local_day, '%m') AS month, date_format(local_day, '%d') AS day"
)
# Hive's types; `local_day` is the calendar day of the service.
BLOCKS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "event_days": (("event_name", "string"), ("events", "bigint"), ("users", "bigint"), ("local_day", "date")),
    "user_days": (("user_id", "string"), ("local_day", "date")),
    "sessions": (
        *(("events", "bigint"), ("duration_ns", "bigint"), ("viewed", "boolean"), ("carted", "boolean")),
        *(("users", "array<string>"), ("local_day", "date")),
    ),
    "links": (("kind", "string"), ("key", "string"), ("local_day", "date")),
}


@dataclass(frozen=True)
class Places:
    """Where things of one service lie below the output location; URLs end with a slash."""

    output: str
    service: str

    def block(self, block: str, run: str) -> str:
        """A CTAS of a block; `run` makes it unique."""
        return f"{self.blocks(block)}{run}/"

    def blocks(self, block: str) -> str:
        """All of a block's data of the service."""
        return f"{self.output}/athena/blocks/{block}/{self.service}/"

    def table(self, metric: str, run: str) -> str:
        """A CTAS of a metric's table; `run` makes it unique."""
        return f"{self.tables(metric)}{run}/"

    def tables(self, metric: str) -> str:
        """All of a metric's data of the service."""
        return f"{self.output}/athena/tables/{self.service}/{metric}/"

    @property
    def state(self) -> str:
        """The object that says what is built."""
        return f"{self.output}/athena/state/{self.service}.json"

    @property
    def lease(self) -> str:
        """The object that says who works on the service."""
        return f"{self.output}/athena/state/{self.service}.lease"


def split_url(url: str) -> tuple[str, str]:
    """Bucket and key of `s3://bucket/key`."""
    bucket, _, key = url.removeprefix("s3://").partition("/")
    return bucket, key


def block_table(block: str) -> str:
    """Glue name of a block's table."""
    return f"blocks_{block}"


def text(value: str) -> str:
    """A varchar literal."""
    return "'" + value.replace("'", "''") + "'"


def day(value: date) -> str:
    """A date literal."""
    return f"DATE '{value.isoformat()}'"


def days(values: Iterable[date]) -> str:
    """A list of dates for IN."""
    return f"({', '.join(day(each) for each in sorted(values))})"


def partitions(first: date, last: date, *, prefix: str = "") -> str:
    """The filter on year, month and day that leaves the partitions from `first` to `last`."""
    year, month, day_ = (f"{prefix}{key}" for key in PARTITION_KEYS)
    a, b = (each.isoformat().split("-") for each in (first, last))
    if a[:2] == b[:2]:
        return f"{year} = '{a[0]}' AND {month} = '{a[1]}' AND {day_} BETWEEN '{a[2]}' AND '{b[2]}'"
    return (
        f"{year} BETWEEN '{a[0]}' AND '{b[0]}'"
        f" AND ({year} > '{a[0]}' OR {month} > '{a[1]}' OR ({month} = '{a[1]}' AND {day_} >= '{a[2]}'))"
        f" AND ({year} < '{b[0]}' OR {month} < '{b[1]}' OR ({month} = '{b[1]}' AND {day_} <= '{b[2]}'))"
    )


def kept(
    database: str, service: Service, stretches: LocalDays, ds: Iterable[date], paths: Iterable[str], min_data_date: date
) -> str:
    """The CTEs raw, numbered and kept over the curated events of the UTC days `ds`, of the files `paths` only."""
    wanted = sorted(ds)
    return statement(
        "athena/kept",
        labels=f"ARRAY[{', '.join(day(label) for label in stretches.labels)}]",
        starts=f"ARRAY[{', '.join(f'{start}e0' for start in stretches.starts)}]",
        events=f'"{database}"."{EVENTS}"',
        partitions=partitions(wanted[0], wanted[-1]),
        paths=f"({', '.join(text(path) for path in sorted(paths))})",
        service=text(service.name),
        min_data_date=day(min_data_date),
    ).strip()


def stretches_of(service: Service, wanted: Iterable[date]) -> LocalDays:
    """The service's days around the UTC days `wanted`; years without events in between cost nothing."""
    around = [local_days(service.time_zone, first, last) for first, last in _runs(sorted(wanted))]
    return LocalDays(
        tuple(start for run in around for start in run.starts), tuple(label for run in around for label in run.labels)
    )


def _runs(days: Sequence[date]) -> list[tuple[date, date]]:
    """The ascending days as runs from first to last, cut where LONGEST_GAP days or more are missing."""
    cuts = [n for n, (day, after) in enumerate(pairwise(days), start=1) if after - day > LONGEST_GAP * DAY]
    return [(days[start], days[end - 1]) for start, end in pairwise([0, *cuts, len(days)])]


def block_source(database: str, block: str, service: Service, first: date, last: date, min_data_date: date) -> str:
    """A block of one service as a subquery with its day as `day`, filtered on partitions and MIN_DATA_DATE."""
    if block == "session_days":
        sessions = block_source(database, "sessions", service, first, last, min_data_date)
        return f"({statement('athena/session_days', sessions=sessions).strip()})"
    columns = ", ".join(f'"{name}"' for name, _ in BLOCKS[block] if name != "local_day")
    return (
        f'(SELECT service, local_day AS day, {columns} FROM "{database}"."{block_table(block)}" '
        f"WHERE service = {text(service.name)} AND {partitions(first, last)} AND local_day >= {day(min_data_date)})"
    )
