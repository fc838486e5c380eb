"""The summary tables: the rows that may have changed computed anew, the rest taken over, all swapped in one step."""

import hashlib
import secrets
import time
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

from data_platform.analytics.blocks import DATABASE as BLOCKS
from data_platform.analytics.blocks import LOCK, Locks
from data_platform.analytics.metrics import METRICS, Changes, Metric, metric_called, table_of
from data_platform.analytics.sql_files import statement
from data_platform.catalog.ddl import literal, on_cluster, qualified, quote
from data_platform.catalog.models import Service

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

__all__ = ["DATABASE", "METRICS", "Summary", "metric_sql", "rebuild_summary", "table_of"]

DATABASE = "analytics"


@dataclass(frozen=True)
class Summary:
    """A table as it is now: rows, newest day, the date it was executed, days computed anew, seconds it took."""

    table: str
    metric: str
    rows: int
    first_day: date | None
    last_day: date | None
    execution_date: date
    days: int
    seconds: float


def metric_sql(metric: str, service: Service) -> str:
    """The metric's SELECT; its parameters are `services`, `days` and `execution_date`."""
    ages = service.cohorts
    return statement(
        f"metrics/{metric_called(metric).name}",
        recent=str(ages.recent),
        active=str(ages.active),
        veteran=str(ages.veteran),
    )


def rebuild_summary(
    client: "Client",
    locks: Locks,
    service: Service,
    metric: str,
    execution_date: date,
    *,
    full: bool = False,
    cluster: str | None = None,
    wait_s: float = 600.0,
) -> Summary:
    """Bring the metric's table up to date with the building blocks; readers see the old or the new one, never none.

    `full` computes every row anew. Raises ConfigurationError for an unknown metric and ClickHouse's errors as they are;
    the old table then stays.
    """
    chosen = metric_called(metric)
    started = time.monotonic()
    with locks.hold(LOCK, wait_s=wait_s) as lease:
        table = table_of(service, metric)
        definition = _definition(service, chosen)
        revision, days, bounds = _to_do(client, service, chosen, definition, full=full)
        staged = f"{table}__{secrets.token_hex(4)}"
        # a refresh is a matter of seconds: nobody else's staging can be there while the lock is held
        _drop_leftovers(client, table)
        _create(client, staged, service, chosen, cluster)
        try:
            if days and bounds:
                client.command(
                    f"INSERT INTO {qualified(DATABASE, staged)} SELECT * EXCEPT service FROM (\n"
                    f"{metric_sql(metric, service)}\n)",
                    parameters=_parameters(service, days, execution_date),
                )
            if bounds and revision.kept:
                client.command(
                    f"INSERT INTO {qualified(DATABASE, staged)} "
                    f"SELECT * REPLACE ({{execution_date:Date}} AS execution_date) FROM {qualified(DATABASE, table)} "
                    f"WHERE {quote(chosen.day)} BETWEEN {{first:Date}} AND {{last:Date}} "
                    f"AND {quote(chosen.day)} NOT IN {{days:Array(Date)}}",
                    parameters={
                        "execution_date": execution_date, "first": bounds[0], "last": bounds[1], "days": sorted(days)
                    },
                )  # fmt: skip
            locks.check(lease)
            client.command(f"CREATE TABLE IF NOT EXISTS {qualified(DATABASE, table)} AS {qualified(DATABASE, staged)}")
            client.command(f"EXCHANGE TABLES {qualified(DATABASE, staged)} AND {qualified(DATABASE, table)}")
        finally:
            client.command(f"DROP TABLE IF EXISTS {qualified(DATABASE, staged)} SYNC")
        # Behind the swap: killed in between, the same days are computed again.
        client.command(
            f"INSERT INTO {BLOCKS}.published (service, metric, revision, definition) VALUES "
            "({service:String}, {metric:String}, {revision:UInt64}, {definition:UInt64})",
            parameters={
                "service": service.name, "metric": metric, "revision": revision.newest, "definition": definition
            },
        )  # fmt: skip
    rows = client.query(
        f"SELECT count(), minOrNull({quote(chosen.day)}), maxOrNull({quote(chosen.day)}) "
        f"FROM {qualified(DATABASE, table)}"
    ).result_rows
    count, first, last = rows[0]
    return Summary(
        f"{DATABASE}.{table}",
        metric,
        int(count),
        first,
        last,
        execution_date,
        len(days),
        time.monotonic() - started,
    )


@dataclass(frozen=True)
class _Revision:
    newest: int
    kept: bool  # rows of the old table may be taken over


def _parameters(service: Service, days: set[date], execution_date: date) -> dict[str, Any]:
    return {"services": [service.name], "days": sorted(days), "execution_date": execution_date}


def _to_do(
    client: "Client", service: Service, metric: Metric, definition: int, *, full: bool
) -> tuple[_Revision, set[date], tuple[date, date] | None]:
    """Which days to compute, from what changed since the table was made; the first and last day with events."""
    where = {"service": service.name, "metric": metric.name}
    first, last = client.query(
        f"SELECT minOrNull(day), maxOrNull(day) FROM {BLOCKS}.event_days WHERE service = {{service:String}}",
        parameters=where,
    ).result_rows[0]
    known = client.query(
        f"SELECT revision, definition FROM {BLOCKS}.published "
        "WHERE service = {service:String} AND metric = {metric:String} ORDER BY revision DESC, made_at DESC LIMIT 1",
        parameters=where,
    ).result_rows
    newest = int(
        str(
            client.command(
                f"SELECT max(revision) FROM {BLOCKS}.changes WHERE service = {{service:String}}", parameters=where
            )
        )
    )
    if first is None or last is None:
        return _Revision(newest, kept=False), set(), None
    exists = bool(int(str(client.command(f"EXISTS TABLE {qualified(DATABASE, table_of(service, metric.name))}"))))
    keep = exists and bool(known) and int(known[0][1]) == definition and not full
    if not keep:
        everything = Changes(frozenset(), frozenset(), first, last)
        return _Revision(newest, kept=False), set(everything.days), (first, last)
    changed: dict[str, set[date]] = {"events": set(), "sessions": set()}
    for what, day in client.query(
        f"SELECT what, day FROM {BLOCKS}.changes FINAL "
        "WHERE service = {service:String} AND revision > {revision:UInt64}",
        parameters={**where, "revision": int(known[0][0])},
    ).result_rows:
        changed[str(what)].add(day)
    changes = Changes(frozenset(changed["events"]), frozenset(changed["sessions"]), first, last)
    days = metric.affected(changes) if changed["events"] or changed["sessions"] else set[date]()
    if metric.every_day:
        held = client.query(f"SELECT {metric.day} FROM {qualified(DATABASE, table_of(service, metric.name))}")
        days |= set(changes.days) - {row[0] for row in held.result_rows}
    return _Revision(newest, kept=True), days & set(changes.days), (first, last)


def _create(client: "Client", name: str, service: Service, metric: Metric, cluster: str | None) -> None:
    order = ", ".join(quote(column) for column in (metric.day, *metric.key))
    client.command(
        f"CREATE TABLE {qualified(DATABASE, name)}{on_cluster(cluster)} "
        f"ENGINE = {'ReplicatedMergeTree' if cluster else 'MergeTree'} ORDER BY ({order}) "
        f"COMMENT {literal(f'{metric.name} of {service.name}: {metric.description}')} "
        f"EMPTY AS SELECT * EXCEPT service FROM (\n{metric_sql(metric.name, service)}\n)",
        parameters=_parameters(service, {date(2000, 1, 1)}, date(2000, 1, 1)),
    )


def _drop_leftovers(client: "Client", table: str) -> None:
    for (name,) in client.query(
        "SELECT name FROM system.tables WHERE database = {database:String} AND startsWith(name, {prefix:String})",
        parameters={"database": DATABASE, "prefix": f"{table}__"},
    ).result_rows:
        client.command(f"DROP TABLE IF EXISTS {qualified(DATABASE, str(name))} SYNC")


def _definition(service: Service, metric: Metric) -> int:
    """A digest of what decides the table's content besides the blocks: SQL, catalogue entry."""
    text = f"{metric_sql(metric.name, service)}\n{metric.day} {metric.key}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
