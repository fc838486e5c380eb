"""What a metric looks like in one picture: rows in, SVG out. For the asset's metadata and the page."""

from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

from data_platform.analytics.metrics import metric_called, table_of
from data_platform.analytics.svg import Series, bands, legend, lines
from data_platform.catalog.ddl import qualified, quote
from data_platform.catalog.models import Service

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

Rows = Sequence[Mapping[str, Any]]
COHORTS = ("new", "recent", "active", "veteran")
GUESSED_LINES = 3
SHOWN_DAYS = 90  # the newest; a phone shows no more


def metric_rows(client: "Client", service: Service, metric: str) -> Rows:
    """The newest days of a metric's table, ascending; empty where there is no table."""
    chosen = metric_called(metric)
    table = qualified("analytics", table_of(service, metric))
    if not int(str(client.command(f"EXISTS TABLE {table}"))):
        return []
    day = quote(chosen.day)
    order = ", ".join(quote(column) for column in (chosen.day, *chosen.key))
    result = client.query(
        f"SELECT * FROM {table} WHERE {day} > (SELECT max({day}) FROM {table}) - {{days:UInt16}} ORDER BY {order}",
        parameters={"days": SHOWN_DAYS},
    )
    return [dict(zip(result.column_names, row, strict=True)) for row in result.result_rows]


def chart(client: "Client", service: Service, metric: str) -> str:
    """The metric's picture as Markdown, the image inside it."""
    svg = picture(metric, metric_rows(client, service, metric))[0]
    return f"![{metric} of {service.name}](data:image/svg+xml;base64,{b64encode(svg.encode()).decode()})"


def picture(metric: str, rows: Rows) -> tuple[str, str]:
    """The metric's picture and its legend; of a metric without one of its own, its first numbers as lines."""
    if metric in PICTURES:
        return PICTURES[metric](rows)
    chosen = metric_called(metric)
    numbers = [
        column
        for column, value in (rows[0].items() if rows and not chosen.key else ())
        if isinstance(value, int | float) and column not in {chosen.day, "execution_date"}
    ]
    return _lines(chosen.day, {column: column.replace("_", " ") for column in numbers[:GUESSED_LINES]})(rows)


def _lines(day: str, columns: Mapping[str, str]) -> Callable[[Rows], tuple[str, str]]:
    def draw(rows: Rows) -> tuple[str, str]:
        days: list[date] = [row[day] for row in rows]
        series = [Series(label, [row[column] for row in rows]) for column, label in columns.items()]
        return lines(days, series), legend(list(columns.values()))

    return draw


def _bands(key: str, value: str, names: Sequence[str] | None = None) -> Callable[[Rows], tuple[str, str]]:
    def draw(rows: Rows) -> tuple[str, str]:
        days = sorted({row["activity_date"] for row in rows})
        chosen = list(names) if names else _largest(rows, key, value)
        by_day = {(row["activity_date"], row[key]): row[value] for row in rows}
        series = [Series(name, [by_day.get((day, name)) for day in days]) for name in chosen]
        return bands(days, series), legend(chosen)

    return draw


def _largest(rows: Rows, key: str, value: str, count: int = 6) -> list[str]:
    totals: dict[str, int] = {}
    for row in rows:
        totals[row[key]] = totals.get(row[key], 0) + row[value]
    return sorted(totals, key=lambda name: (-totals[name], name))[:count]


PICTURES: Mapping[str, Callable[[Rows], tuple[str, str]]] = {
    "dau": _lines("activity_date", {"dau": "DAU", "new_users": "new users"}),
    "mau": _lines("activity_date", {"mau_30": "MAU, 30 days", "mau_month_to_date": "month to date", "dau": "DAU"}),
    "retention": _lines("cohort_date", {"rate_d1": "D+1", "rate_d7": "D+7", "rate_d30": "D+30"}),
    "conversion": _lines(
        "activity_date", {"sessions": "sessions", "sessions_viewed": "viewed", "sessions_carted": "carted"}
    ),
    "user_cohort": _bands("cohort", "users", COHORTS),
    "session_metrics": _lines(
        "activity_date", {"events_p90": "events, P90", "events_median": "median", "events_mean": "mean"}
    ),
    "event_distribution": _bands("event_name", "events"),
}
