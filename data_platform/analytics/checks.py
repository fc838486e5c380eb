"""What must hold of a service's tables after a run: not empty, not stale, equal to the events and to each other.

Every comparison has tolerance 0. Tables of different revisions are not compared: a run of a subset leaves the others
behind on purpose.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

from data_platform.analytics.blocks import DATABASE as BLOCKS
from data_platform.analytics.days import DAY, local_days
from data_platform.analytics.metrics import METRICS, table_of
from data_platform.analytics.sql_files import statement
from data_platform.catalog.ddl import qualified
from data_platform.catalog.models import Service

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

RECONCILED_DAYS = 3  # the newest days are counted again from the raw events; more in the test suite


@dataclass(frozen=True)
class Check:
    """The outcome of one check of one metric's table."""

    metric: str
    name: str
    passed: bool
    detail: str


# name: metric it belongs to, the other metric, what each side sums by day. Both sides must be equal on every day.
IDENTITIES: Mapping[str, tuple[str, str, str, str]] = {
    "cohorts_add_up_to_dau": (
        "user_cohort",
        "dau",
        "SELECT activity_date AS day, sum(users) AS n FROM {mine} GROUP BY day",
        "SELECT activity_date AS day, dau AS n FROM {other} WHERE dau > 0",
    ),
    "cohort_sizes_are_new_users": (
        "retention",
        "dau",
        "SELECT cohort_date AS day, cohort_size AS n FROM {mine}",
        "SELECT activity_date AS day, new_users AS n FROM {other} WHERE new_users > 0",
    ),
    "mau_shows_the_dau": (
        "mau",
        "dau",
        "SELECT activity_date AS day, dau AS n FROM {mine} WHERE dau > 0",
        "SELECT activity_date AS day, dau AS n FROM {other} WHERE dau > 0",
    ),
    "sessions_agree_with_dau": (
        "session_metrics",
        "dau",
        "SELECT activity_date AS day, sessions AS n FROM {mine}",
        "SELECT activity_date AS day, sessions AS n FROM {other} WHERE sessions > 0",
    ),
    "funnel_starts_with_all_sessions": (
        "conversion",
        "session_metrics",
        "SELECT activity_date AS day, sessions AS n FROM {mine}",
        "SELECT activity_date AS day, sessions AS n FROM {other}",
    ),
    "events_add_up": (
        "event_distribution",
        "dau",
        "SELECT activity_date AS day, sum(events) AS n FROM {mine} GROUP BY day",
        "SELECT activity_date AS day, events AS n FROM {other}",
    ),
}


def check_names(metric: str) -> list[str]:
    """The checks of a metric's table."""
    own = [name for name, (mine, *_) in IDENTITIES.items() if mine == metric]
    extra = {"dau": ["equals_raw_events"], "mau": ["equals_interval_algorithm"]}
    return ["not_empty", "not_stale", *own, *extra.get(metric, [])]


def check_summary(client: "Client", service: Service, metric: str, run_date: date) -> list[Check]:
    """All checks of one metric's table, read back from ClickHouse."""
    found = [*_read_back(client, service, metric, run_date)]
    found += [_identity(client, service, name) for name, (mine, *_) in IDENTITIES.items() if mine == metric]
    if metric == "dau":
        found.append(_raw(client, service))
    if metric == "mau":
        found.append(_intervals(client, service))
    return found


def _read_back(client: "Client", service: Service, metric: str, run_date: date) -> list[Check]:
    count, last = client.query(
        f"SELECT count() AS record_count, maxOrNull(execution_date) AS last_execution FROM {_table(service, metric)}"
    ).result_rows[0]
    fresh = last is not None and last >= run_date
    return [
        Check(metric, "not_empty", count > 0, f"record_count {count}"),
        Check(metric, "not_stale", fresh, f"last_execution {last}, run of {run_date}"),
    ]


def _identity(client: "Client", service: Service, name: str) -> Check:
    metric, other, mine_sql, other_sql = IDENTITIES[name]
    revisions = _revisions(client, service)
    if other not in revisions or revisions.get(metric) != revisions[other]:
        return Check(metric, name, passed=True, detail=f"not compared: {other} is of another revision")
    tables = {"mine": _table(service, metric), "other": _table(service, other)}
    rows = client.query(
        f"SELECT day, sum(a), sum(b) FROM ("
        f"SELECT day, toInt64(n) AS a, 0 AS b FROM ({mine_sql.format(**tables)}) "
        f"UNION ALL SELECT day, 0 AS a, toInt64(n) AS b FROM ({other_sql.format(**tables)})"
        ") GROUP BY day HAVING sum(a) != sum(b) ORDER BY day LIMIT 5"
    ).result_rows
    return _compared(metric, name, rows, other)


def _raw(client: "Client", service: Service) -> Check:
    """The newest days counted again from analytics.events, with all days that have copies of their records."""
    table = _table(service, "dau")
    rows = client.query(
        f"SELECT activity_date, events, dau FROM {table} ORDER BY activity_date DESC LIMIT {RECONCILED_DAYS}"
    )
    shown = {row[0]: (int(row[1]), int(row[2])) for row in rows.result_rows}
    if not shown:
        return Check("dau", "equals_raw_events", passed=True, detail="no days")
    asked = {"service": service.name, "days": sorted(shown)}
    copied = client.query(statement("checks/copied_days"), parameters=asked).result_rows
    read = {row[0] for row in copied} | shown.keys()
    stretches = local_days(service.time_zone, min(read), max(read))
    ends = [stretches.utc_days({day}) for day in read]
    ds = {first + DAY * n for first, last in ends for n in range((last - first).days + 1)}
    raw = client.query(
        statement("checks/raw_days"),
        parameters={
            **asked, "ds": sorted(ds), "min_data_date": service.min_data_date or date(1970, 1, 1),
            "starts": list(stretches.starts), "labels": list(stretches.labels),
        },
    ).result_rows  # fmt: skip
    counted = {row[0]: (int(row[1]), int(row[2])) for row in raw}
    wrong = [
        (day, _told(shown[day]), _told(counted.get(day))) for day in sorted(shown) if shown[day] != counted.get(day)
    ]
    return _compared("dau", "equals_raw_events", wrong, "the raw events")


def _told(counts: tuple[int, int] | None) -> str:
    return "nothing" if counts is None else f"{counts[0]} events of {counts[1]} users"


def _intervals(client: "Client", service: Service) -> Check:
    rows = client.query(
        f"SELECT activity_date, mau_30, other.mau_30 FROM {_table(service, 'mau')} AS mine "
        f"INNER JOIN ({statement('checks/mau_by_intervals')}) AS other ON other.day = mine.activity_date "
        "WHERE mine.mau_30 != other.mau_30 ORDER BY activity_date LIMIT 5",
        parameters={"service": service.name},
    ).result_rows
    return _compared("mau", "equals_interval_algorithm", rows, "the interval algorithm on user-days")


def _compared(metric: str, name: str, rows: Sequence[Sequence[Any]], other: str) -> Check:
    if not rows:
        return Check(metric, name, passed=True, detail=f"equal to {other} on every day compared")
    day, mine, theirs = rows[0]
    more = "" if len(rows) == 1 else f"; {len(rows)} days or more differ"
    detail = f"{day}: {mine} in the table of {metric}, {theirs} in {other}{more}"
    return Check(metric, name, passed=False, detail=detail)


def _revisions(client: "Client", service: Service) -> dict[str, int]:
    return {
        str(metric): int(revision)
        for metric, revision in client.query(
            f"SELECT metric, max(revision) FROM {BLOCKS}.published WHERE service = {{service:String}} GROUP BY metric",
            parameters={"service": service.name},
        ).result_rows
        if metric in METRICS
    }


def _table(service: Service, metric: str) -> str:
    return qualified("analytics", table_of(service, metric))
