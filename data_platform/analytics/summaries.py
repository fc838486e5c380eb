"""The product metrics of a service in ClickHouse: one SQL file a metric over shared blocks, replaced atomically."""

import secrets
import time
from dataclasses import dataclass
from datetime import date
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from data_platform.catalog.ddl import literal, qualified, quote
from data_platform.catalog.models import Service
from data_platform.errors import PlatformError

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

DATABASE = "analytics"
METRICS = ("dau", "mau")
# Every metric may use the blocks before it, by name.
BLOCKS = ("events", "user_days", "sessions")
FIRST_DATE = date(1970, 1, 2)  # without MIN_DATA_DATE; one day is subtracted when partitions are pruned


@dataclass(frozen=True)
class Summary:
    """A rebuilt table: its rows, its newest day, the seconds it took."""

    table: str
    rows: int
    first_day: date | None
    last_day: date | None
    seconds: float


def table_of(service: Service, metric: str) -> str:
    """Name of a metric's table in the analytics database: `<prefix>_<metric>_summary`."""
    return f"{service.prefix}_{metric}_summary"


def metric_sql(metric: str) -> str:
    """The metric's SELECT with its building blocks in front, as ClickHouse runs it."""
    blocks = ",\n".join(f"{name} AS\n(\n{_read(name)}\n)" for name in BLOCKS)
    text = _read(metric)
    body = text.removeprefix("WITH").lstrip() if text.startswith("WITH") else None
    return f"WITH\n{blocks},\n{body}" if body is not None else f"WITH\n{blocks}\n{text}"


def rebuild_summary(client: "Client", service: Service, metric: str, execution_date: date) -> Summary:
    """Replace the metric's table by one computed now; readers see the old or the new one, never none.

    Raises PlatformError for an unknown metric and ClickHouse's errors as they are; the old table then stays.
    """
    if metric not in METRICS:
        raise PlatformError(f"no metric {metric!r}", hint=f"known: {', '.join(METRICS)}")
    started = time.monotonic()
    table = table_of(service, metric)
    staged = f"{table}__{secrets.token_hex(4)}"
    parameters = {
        "service": service.name,
        "time_zone": service.time_zone,
        "min_date": service.min_data_date or FIRST_DATE,
        "execution_date": execution_date,
    }
    client.command(
        f"CREATE TABLE {qualified(DATABASE, staged)} ENGINE = MergeTree ORDER BY {quote('activity_date')} "
        f"COMMENT {literal(f'{metric} of {service.name}')} EMPTY AS\n{metric_sql(metric)}",
        parameters=parameters,
    )
    try:
        client.command(f"INSERT INTO {qualified(DATABASE, staged)}\n{metric_sql(metric)}", parameters=parameters)
        client.command(f"CREATE TABLE IF NOT EXISTS {qualified(DATABASE, table)} AS {qualified(DATABASE, staged)}")
        client.command(f"EXCHANGE TABLES {qualified(DATABASE, staged)} AND {qualified(DATABASE, table)}")
    finally:
        client.command(f"DROP TABLE IF EXISTS {qualified(DATABASE, staged)} SYNC")
    rows = client.query(
        f"SELECT count(), minOrNull(activity_date), maxOrNull(activity_date) FROM {qualified(DATABASE, table)}"
    ).result_rows
    count, first, last = rows[0]
    return Summary(f"{DATABASE}.{table}", int(count), first, last, time.monotonic() - started)


@cache
def _read(name: str) -> str:
    """A SQL file without its leading comment."""
    text = files("data_platform.analytics").joinpath(f"sql/{name}.sql").read_text(encoding="utf-8")
    lines = text.splitlines()
    while lines and lines[0].startswith("--"):
        lines.pop(0)
    return "\n".join(lines)
