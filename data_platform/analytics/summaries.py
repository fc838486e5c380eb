"""The summary tables: the rows that may have changed computed anew, the rest taken over, all swapped in one step."""

import hashlib
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import partial
from typing import TYPE_CHECKING, Any

from data_platform.analytics.blocks import DATABASE as BLOCKS
from data_platform.analytics.blocks import LOCK, Locks
from data_platform.analytics.metrics import METRICS, Changes, Metric, metric_called, table_of
from data_platform.analytics.sql_files import statement
from data_platform.analytics.store import both, together
from data_platform.catalog.ddl import literal, on_cluster, qualified, quote
from data_platform.catalog.models import Service

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

__all__ = ["DATABASE", "METRICS", "Summary", "metric_sql", "rebuild_summaries", "table_of"]

DATABASE = "analytics"


@dataclass(frozen=True)
class Summary:
    """A table as it is now: rows, newest day, the date it was executed, days computed anew; seconds and bytes read."""

    table: str
    metric: str
    rows: int
    first_day: date | None
    last_day: date | None
    execution_date: date
    days: int
    seconds: float
    bytes_read: int


def metric_sql(metric: str, service: Service) -> str:
    """The metric's SELECT; its parameters are `services`, `days` and `execution_date`."""
    ages = service.cohorts
    return statement(
        f"metrics/{metric_called(metric).name}",
        recent=str(ages.recent),
        active=str(ages.active),
        veteran=str(ages.veteran),
    )


def rebuild_summaries(
    client: "Client",
    locks: Locks,
    service: Service,
    metrics: Sequence[str],
    execution_date: date,
    *,
    full: bool = False,
    cluster: str | None = None,
    wait_s: float = 600.0,
) -> list[Summary]:
    """Bring the metrics' tables up to date with the building blocks; readers see the old or the new one, never none.

    Under one lock, so all are of the same revision. `full` computes every row anew. Raises ConfigurationError for an
    unknown metric and ClickHouse's errors as they are; the tables not reached then stay as they were.
    """
    chosen = [metric_called(name) for name in metrics]
    with locks.hold(LOCK, wait_s=wait_s) as lease:
        made = _Tables(client, service, execution_date, cluster)
        state = _read_state(client, service, chosen)
        made.drop(state.leftovers)
        plans = [state.plan(service, metric, full=full) for metric in chosen]
        results, replaced = made.rebuild(plans, lambda: locks.check(lease))
        # Behind the swaps: killed in between, the same days are computed again.
        done = [partial(made.drop, replaced), partial(made.note_published, state.newest, chosen)]
        return both(partial(together, done), partial(made.read_back, results))[1]


@dataclass(frozen=True)
class _Plan:
    """What to do for one table: days to compute, whether the rest is taken over; the range of days with events."""

    metric: Metric
    days: frozenset[date]
    bounds: tuple[date, date] | None
    exists: bool
    kept: bool


@dataclass(frozen=True)
class _State:
    """What is there under the lock: the days with events, what changed, the tables and what they were made from."""

    bounds: tuple[date, date] | None
    newest: int
    published: Mapping[str, tuple[int, int]]  # by metric: revision, definition
    changes: Sequence[tuple[str, date, int]]  # what, day, revision
    tables: frozenset[str]
    leftovers: Sequence[str]
    held: Mapping[str, frozenset[date]]  # by metric that has a row for every day: the days it has

    def plan(self, service: Service, metric: Metric, *, full: bool) -> _Plan:
        exists = table_of(service, metric.name) in self.tables
        if self.bounds is None:
            return _Plan(metric, frozenset(), None, exists, kept=False)
        revision, definition = self.published.get(metric.name, (0, 0))
        kept = exists and definition == _definition(service, metric) and not full
        if not kept:
            everything = Changes(frozenset(), frozenset(), *self.bounds)
            return _Plan(metric, frozenset(everything.days), self.bounds, exists, kept=False)
        newer = [(what, day) for what, day, at in self.changes if at > revision]
        changes = Changes(
            frozenset(day for what, day in newer if what == "events"),
            frozenset(day for what, day in newer if what == "sessions"),
            *self.bounds,
        )
        days = metric.affected(changes) if newer else set[date]()
        if metric.every_day:
            days |= set(changes.days) - self.held.get(metric.name, frozenset())
        return _Plan(metric, frozenset(days & set(changes.days)), self.bounds, exists, kept=True)


def _read_state(client: "Client", service: Service, metrics: Sequence[Metric]) -> _State:
    where = {"service": service.name, "database": DATABASE, "prefix": f"{service.prefix}_"}
    [(first, last, newest)], published, changes, tables = together(
        [
            partial(
                _rows,
                client,
                "SELECT minOrNull(day), maxOrNull(day), "
                f"(SELECT max(revision) FROM {BLOCKS}.changes WHERE service = {{service:String}}) "
                f"FROM {BLOCKS}.event_days WHERE service = {{service:String}}",
                where,
            ),
            partial(
                _rows,
                client,
                f"SELECT metric, revision, definition FROM {BLOCKS}.published WHERE service = {{service:String}} "
                "ORDER BY revision DESC, made_at DESC LIMIT 1 BY metric",
                where,
            ),
            partial(
                _rows,
                client,
                f"SELECT what, day, revision FROM {BLOCKS}.changes FINAL WHERE service = {{service:String}}",
                where,
            ),
            partial(
                _rows,
                client,
                "SELECT name FROM system.tables "
                "WHERE database = {database:String} AND startsWith(name, {prefix:String})",
                where,
            ),
        ]
    )
    wanted = {table_of(service, metric.name) for metric in metrics}
    names = [str(name) for (name,) in tables]
    every_day = [metric for metric in metrics if metric.every_day and table_of(service, metric.name) in names]
    held = together(
        [
            partial(_rows, client, f"SELECT {quote(each.day)} FROM {qualified(DATABASE, table_of(service, each.name))}")
            for each in every_day
        ]
    )
    return _State(
        None if first is None or last is None else (first, last),
        int(newest or 0),
        {str(metric): (int(revision), int(definition)) for metric, revision, definition in published},
        [(str(what), day, int(revision)) for what, day, revision in changes],
        frozenset(names),
        [name for name in names if name.rpartition("__")[0] in wanted],
        {metric.name: frozenset(row[0] for row in rows) for metric, rows in zip(every_day, held, strict=True)},
    )


def _rows(client: "Client", sql: str, parameters: Mapping[str, Any] | None = None) -> Sequence[Sequence[Any]]:
    return client.query(sql, parameters=dict(parameters or {})).result_rows


@dataclass
class _Tables:
    """The statements that make one service's tables."""

    client: "Client"
    service: Service
    execution_date: date
    cluster: str | None

    def rebuild(self, plans: Sequence[_Plan], check: Callable[[], None]) -> tuple[list[Summary], list[str]]:
        """Make the tables, side by side; returns them and the replaced ones, which are to be dropped.

        Raises the first error when all have ended; then the others are in place, and nothing is left to drop.
        """
        token = secrets.token_hex(4)
        twins = {plan.metric.name: f"{table_of(self.service, plan.metric.name)}__{token}" for plan in plans}
        made: dict[str, Summary] = {}

        def one(plan: _Plan) -> None:
            made[plan.metric.name] = self._rebuild(plan, twins[plan.metric.name], check)

        try:
            together([partial(one, plan) for plan in plans])
        except BaseException:
            self.drop(list(twins.values()))
            raise
        return [made[plan.metric.name] for plan in plans], list(twins.values())

    def _rebuild(self, plan: _Plan, twin: str, check: Callable[[], None]) -> Summary:
        """Compute the days of the plan into a twin, take the rest over, exchange the two."""
        started = time.monotonic()
        metric, table = plan.metric, table_of(self.service, plan.metric.name)
        bytes_read = 0
        self._create(twin, plan)
        if plan.bounds:
            done = self.client.command(
                f"INSERT INTO {qualified(DATABASE, twin)} {self._rows(plan)}",
                parameters=self._parameters(sorted(plan.days)) | {"first": plan.bounds[0], "last": plan.bounds[1]},
                # Little is computed, and several tables at once.
                settings={"max_threads": 1} if plan.kept else {},
            )
            bytes_read = int(getattr(done, "summary", {}).get("read_bytes", 0))
        check()
        # A pair each: databases of the engine Replicated take no more in a statement.
        verb = "EXCHANGE TABLES {} AND {}" if plan.exists else "RENAME TABLE {} TO {}"
        self.client.command(
            verb.format(qualified(DATABASE, twin), qualified(DATABASE, table)) + on_cluster(self.cluster)
        )
        seconds = time.monotonic() - started
        return Summary(
            f"{DATABASE}.{table}", metric.name, 0, None, None, self.execution_date, len(plan.days), seconds, bytes_read
        )

    def drop(self, tables: Sequence[str]) -> None:
        """Drop staged tables; while the lock is held they are nobody else's."""
        if tables:
            names = ", ".join(qualified(DATABASE, name) for name in tables)
            self.client.command(f"DROP TABLE IF EXISTS {names}{on_cluster(self.cluster)} SYNC")

    def note_published(self, revision: int, metrics: Sequence[Metric]) -> None:
        """Write down from which revision and by which definition the tables are made."""
        rows = [
            f"({{service:String}}, {{m{n}:String}}, {{revision:UInt64}}, {{d{n}:UInt64}})" for n in range(len(metrics))
        ]
        self.client.command(
            f"INSERT INTO {BLOCKS}.published (service, metric, revision, definition) VALUES {', '.join(rows)}",
            parameters={"service": self.service.name, "revision": revision}
            | {f"m{n}": metric.name for n, metric in enumerate(metrics)}
            | {f"d{n}": _definition(self.service, metric) for n, metric in enumerate(metrics)},
        )

    def read_back(self, made: Sequence[Summary]) -> list[Summary]:
        """The summaries with what the tables hold now."""
        found = self.client.query(
            " UNION ALL ".join(
                f"SELECT {number} AS number, count(), minOrNull({day}), maxOrNull({day}) FROM {summary.table}"
                for number, summary in enumerate(made)
                for day in [quote(metric_called(summary.metric).day)]
            )
        ).result_rows
        of = {int(number): (int(rows), first, last) for number, rows, first, last in found}
        return [
            replace(summary, rows=of[number][0], first_day=of[number][1], last_day=of[number][2])
            for number, summary in enumerate(made)
        ]

    def _create(self, name: str, plan: _Plan) -> None:
        metric = plan.metric
        head = f"CREATE TABLE {qualified(DATABASE, name)}{on_cluster(self.cluster)} "
        if plan.kept:  # the definition is the same: so are the columns
            self.client.command(f"{head}AS {qualified(DATABASE, table_of(self.service, metric.name))}")
            return
        order = ", ".join(quote(column) for column in (metric.day, *metric.key))
        self.client.command(
            f"{head}ENGINE = {'ReplicatedMergeTree' if self.cluster else 'MergeTree'} ORDER BY ({order}) "
            f"COMMENT {literal(f'{metric.name} of {self.service.name}: {metric.description}')} "
            f"EMPTY AS SELECT * EXCEPT service FROM (\n{metric_sql(metric.name, self.service)}\n)",
            parameters=self._parameters([date(2000, 1, 1)]),
        )

    def _rows(self, plan: _Plan) -> str:
        """The SELECT of all rows: the days of the plan computed, those of the old table taken over."""
        metric = plan.metric
        parts: list[str] = []
        if plan.days:
            parts.append(f"SELECT * EXCEPT service FROM (\n{metric_sql(metric.name, self.service)}\n)")
        if plan.kept:
            day = quote(metric.day)
            parts.append(
                "SELECT * REPLACE ({execution_date:Date} AS execution_date) "
                f"FROM {qualified(DATABASE, table_of(self.service, metric.name))} "
                f"WHERE {day} BETWEEN {{first:Date}} AND {{last:Date}} AND {day} NOT IN {{days:Array(Date)}}"
            )
        return "\nUNION ALL\n".join(parts)

    def _parameters(self, days: Sequence[date]) -> dict[str, Any]:
        return {"services": [self.service.name], "days": days, "execution_date": self.execution_date}


def _definition(service: Service, metric: Metric) -> int:
    """A digest of what decides the table's content besides the blocks: SQL, catalogue entry."""
    text = f"{metric_sql(metric.name, service)}\n{metric.day} {metric.key}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
