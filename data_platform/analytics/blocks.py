"""The building blocks in ClickHouse brought up to date: the changed days rebuilt and swapped, what changed noted down.

One refresh at a time, under one lock. Killed anywhere, the next one does the same days again: what a refresh is about
to change is written ahead, what it was built from behind. Days are replaced, never added to, so replays change nothing.
"""

import secrets
import time
from collections import defaultdict
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING, Any, Protocol

from data_platform.analytics.days import DAY, LocalDays, local_days
from data_platform.analytics.plan import Built, Profile, ServicePlan, chunks, config_of, plan_service
from data_platform.analytics.sql_files import schema_ddl, statement
from data_platform.catalog.models import Service
from data_platform.errors import PlatformError

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

DATABASE = "analytics_blocks"
LOCK = "analytics.blocks"
CHUNK_ROWS = 1_500_000  # held in memory while its blocks are computed: about 250 MB
SESSION_DAYS = 31  # whose sessions are put together at once
SWAPS_AT_ONCE = 100
NEVER = date(1970, 1, 1)  # the row of `built` that marks a finished refresh
# Of the parts of a user's events without session.id only one this long can carry a session over a whole day; the
# shortest local day has 22 hours or so.
WHOLE_DAY_NS = 20 * 3600 * 10**9
SETTINGS: Mapping[str, Any] = {"max_partitions_per_insert_block": 0, "join_use_nulls": 0}

Pair = tuple[str, date]
_SCRATCH = {
    "targets": "service String, day Date",
    "stretches": "start Int64, day Date",
    "repeated": "hash UInt64",
    "losers": "source_object String, source_position UInt64",
    "kept": "service LowCardinality(String), day Date, event_time DateTime64(9, 'UTC'), "
    "event_name LowCardinality(String), user_id Nullable(String), session_id Nullable(String), "
    "source_object LowCardinality(String), source_position UInt64",
    "sessions_raw": "service LowCardinality(String), day Date, events UInt64, duration_ns Int64, viewed Bool, "
    "carted Bool, users Array(String)",
}
_COLUMNS = {
    "event_days": ("service", "day", "event_name", "events", "users"),
    "user_days": ("service", "day", "user_id"),
    "session_parts": (
        *("service", "day", "kind", "hash", "key", "started", "ended", "events"),
        *("viewed", "carts", "first_view", "last_cart", "carted", "users"),
    ),
}


class Locks(Protocol):
    """Leases by name; loading.lock.PartitionLocks is one."""

    def hold(self, name: str, *, wait_s: float = ...) -> AbstractContextManager[Any]:
        """Hold the lease of `name`."""
        ...

    def check(self, lease: Any) -> None:
        """Raise unless the lease is still held."""
        ...


@dataclass(frozen=True)
class Refreshed:
    """What a refresh rebuilt: days by service, and the rows of the events it read."""

    days: Mapping[str, frozenset[date]]
    revision: int
    seconds: float


def refresh_blocks(
    client: "Client", locks: Locks, services: Sequence[Service], *, cluster: str | None = None, wait_s: float = 600.0
) -> Refreshed:
    """Rebuild the days of `services` whose events changed since their blocks were built; nothing changed, nothing done.

    Raises LockHeldError after `wait_s` seconds, PlatformError when the dense ids are not one-to-one.
    """
    started = time.monotonic()
    with locks.hold(LOCK, wait_s=wait_s) as lease:
        _make_tables(client, cluster)
        refresh = _Refresh(client, list(services), lambda: locks.check(lease))
        refresh.drop_leftovers()
        days = refresh.run()
    return Refreshed(days, refresh.revision, time.monotonic() - started)


def _make_tables(client: "Client", cluster: str | None) -> None:
    """Make the blocks' tables where one is missing; looking costs one statement instead of a dozen a day."""
    statements = schema_ddl(cluster)
    known = client.command(
        f"SELECT count() FROM system.tables WHERE database = '{DATABASE}' AND position(name, '__') = 0"
    )
    if int(str(known)) < len(statements) - 1:  # the first makes the database
        for ddl in statements:
            client.command(ddl)


@dataclass
class _Refresh:
    client: "Client"
    services: list[Service]
    check: Any
    revision: int = 0
    token: str = field(default_factory=lambda: secrets.token_hex(4))

    @property
    def names(self) -> list[str]:
        return [service.name for service in self.services]

    def run(self) -> Mapping[str, frozenset[date]]:
        rows, found = self._signatures()
        plans = self._plans(found)
        self.revision = self._next_revision()
        dirty = {name: plan for name, plan in plans.items() if plan.clear}
        if dirty:
            dirty = self._build(dirty, rows)
        self._write_built(plans, found)
        return {name: plan.clear for name, plan in dirty.items()}

    # What is there, what was built

    def _signatures(self) -> tuple[dict[date, int], dict[date, int]]:
        """Rows and signature (rows, registered objects) of every partition of analytics.events."""
        result = self.client.query(
            "SELECT parts.ds, rows, cityHash64(rows, objects.digest) FROM ("
            " SELECT toDate(partition) AS ds, sum(rows) AS rows FROM system.parts"
            " WHERE database = 'analytics' AND table = 'events' AND active GROUP BY partition) AS parts "
            "LEFT JOIN (SELECT ds, cityHash64(arraySort(groupArray(object))) AS digest FROM ("
            "  SELECT ds, object, state FROM platform.objects WHERE domain = 'analytics' AND table = 'events'"
            "  ORDER BY generation DESC, revision DESC LIMIT 1 BY ds, object)"
            " WHERE state = 'loaded' GROUP BY ds) AS objects ON objects.ds = parts.ds "
            "WHERE rows > 0"
        ).result_rows
        return {row[0]: int(row[1]) for row in result}, {row[0]: int(row[2]) for row in result}

    def _plans(self, found: Mapping[date, int]) -> dict[str, ServicePlan]:
        where = {"services": self.names}
        built: dict[str, dict[date, int]] = defaultdict(dict)
        configs: dict[str, int] = {}
        for name, ds, signature, config in self.client.query(
            f"SELECT service, ds, signature, config FROM {DATABASE}.built FINAL "
            "WHERE service IN {services:Array(String)}",
            parameters=where,
        ).result_rows:
            if ds == NEVER:
                configs[name] = int(config)
            elif signature:
                built[name][ds] = int(signature)
        existing = self._days_by_service(
            f"SELECT service, groupUniqArray(day) FROM {DATABASE}.event_days "
            "WHERE service IN {services:Array(String)} GROUP BY service"
        )
        pending = self._days_by_service(
            f"SELECT service, groupUniqArray(day) FROM {DATABASE}.changes AS changes FINAL LEFT JOIN ("
            f" SELECT service, max(revision) AS done FROM {DATABASE}.built WHERE ds = '1970-01-01' GROUP BY service"
            ") AS built ON built.service = toString(changes.service) "
            "WHERE changes.service IN {services:Array(String)} AND changes.revision > built.done GROUP BY service"
        )
        return {
            service.name: plan_service(
                service,
                found,
                Built(built[service.name], configs.get(service.name)),
                existing.get(service.name, []),
                pending.get(service.name, []),
            )
            for service in self.services
        }

    def _days_by_service(self, sql: str) -> dict[str, list[date]]:
        return {
            str(name): days for name, days in self.client.query(sql, parameters={"services": self.names}).result_rows
        }

    def _next_revision(self) -> int:
        newest = self.client.command(
            f"SELECT greatest((SELECT max(revision) FROM {DATABASE}.changes), "
            f"(SELECT max(revision) FROM {DATABASE}.built))"
        )
        return max(time.time_ns(), int(str(newest)) + 1)

    def _write_built(self, plans: Mapping[str, ServicePlan], found: Mapping[date, int]) -> None:
        """What the blocks are built from now: one row a service and UTC day that differs, and the mark of the end."""
        changed = [name for name, plan in plans.items() if plan.clear]
        unmarked = {
            str(row[0])
            for row in self.client.query(f"SELECT service FROM {DATABASE}.built WHERE ds = '1970-01-01'").result_rows
        }
        configs = {service.name: config_of(service) for service in self.services}
        rows: list[tuple[object, ...]] = []
        for name in changed:
            before = {
                row[0]
                for row in self.client.query(
                    f"SELECT ds FROM {DATABASE}.built FINAL WHERE service = {{name:String}} AND signature != 0",
                    parameters={"name": name},
                ).result_rows
            }
            rows += [
                (name, ds, found.get(ds, 0), configs[name], self.revision)
                for ds in sorted((found.keys() | before) - {NEVER})
            ]
        rows += [
            (name, NEVER, 0, configs[name], self.revision) for name in plans if name in changed or name not in unmarked
        ]
        self._insert(f"{DATABASE}.built", ("service", "ds", "signature", "config", "revision"), rows)

    # Building

    def _build(self, plans: Mapping[str, ServicePlan], rows: Mapping[date, int]) -> dict[str, ServicePlan]:
        with self._scratch(), self._staged("record_uids") as uids:
            plans = self._with_copies(plans, rows, uids)
            cleared = {(name, day) for name, plan in plans.items() for day in plan.clear}
            self._note("events", cleared)
            linked = cleared | self._linked(cleared)
            self._note("sessions", linked)
            self._find_losers(plans, uids)
            with (
                self._staged("event_days") as events,
                self._staged("user_days") as users,
                self._staged("session_parts") as parts,
            ):
                self._fill(plans, rows, {"event_days": events, "user_days": users, "session_parts": parts})
                bitmaps_of = self._new_ids(users)
                self.check()
                for block, staged in (
                    ("event_days", events), ("user_days", users), ("session_parts", parts), ("record_uids", uids)
                ):  # fmt: skip
                    if block == "user_days":
                        self._bitmaps(bitmaps_of, cleared)
                    self._swap(block, staged, cleared)
            self._sessions(linked | self._linked(cleared))
        return dict(plans)

    def _with_copies(
        self, plans: Mapping[str, ServicePlan], rows: Mapping[date, int], uids: str
    ) -> Mapping[str, ServicePlan]:
        """The plans, and every other day that has a copy of one of their records: which one counts may change there."""
        wanted = dict(plans)
        fresh = wanted
        while True:
            for group, days in _by_profile(self.services, {name: plan.build for name, plan in fresh.items()}):
                self._set_targets(days)
                for piece in chunks(_all_days(days), rows, 4 * CHUNK_ROWS):
                    parameters = self._event_parameters(group, days, piece)
                    sql = self._of_events("record_uids")
                    self._run(f"INSERT INTO {uids} (service, day, hash) {sql}", parameters)
            self._set_targets({name: plan.clear for name, plan in wanted.items()})
            targets = self._scratch_table("targets")
            copies = self.client.query(
                f"SELECT DISTINCT service, day FROM {DATABASE}.record_uids WHERE hash IN ("
                f" SELECT hash FROM {uids} UNION ALL SELECT hash FROM {DATABASE}.record_uids"
                f" WHERE (service, day) IN (SELECT service, day FROM {targets})"
                f") AND (service, day) NOT IN (SELECT service, day FROM {targets})"
                " AND service IN {services:Array(String)}",
                parameters={"services": self.names},
            ).result_rows
            if not copies:
                return wanted
            more: dict[str, set[date]] = defaultdict(set)
            for name, day in copies:
                more[str(name)].add(day)
            fresh = {name: ServicePlan(frozenset(days), frozenset(days)) for name, days in more.items()}
            for name, plan in fresh.items():
                old = wanted.get(name, ServicePlan(frozenset(), frozenset()))
                wanted[name] = ServicePlan(old.clear | plan.clear, old.build | plan.build)

    def _find_losers(self, plans: Mapping[str, ServicePlan], uids: str) -> None:
        repeated, losers = self._scratch_table("repeated"), self._scratch_table("losers")
        self._run(f"INSERT INTO {repeated} SELECT hash FROM {uids} GROUP BY hash HAVING count() > 1", {})
        if not int(str(self.client.command(f"SELECT count() FROM {repeated}"))):
            return
        for group, days in _by_profile(self.services, {name: plan.build for name, plan in plans.items()}):
            self._set_targets(days)
            parameters = self._event_parameters(group, days, _all_days(days))
            self._run(f"INSERT INTO {losers} {self._of_events('losers')}", parameters)

    def _fill(self, plans: Mapping[str, ServicePlan], rows: Mapping[date, int], blocks: Mapping[str, str]) -> None:
        kept = self._scratch_table("kept")
        for group, days in _by_profile(self.services, {name: plan.build for name, plan in plans.items()}):
            for piece in chunks(_all_days(days), rows, CHUNK_ROWS):
                within = set(piece)
                self._set_targets({name: [day for day in each if day in within] for name, each in days.items()})
                self._run(f"TRUNCATE TABLE {kept}", {})
                parameters = self._event_parameters(group, days, piece)
                self._run(f"INSERT INTO {kept} {self._of_events('kept')}", parameters)
                for block, staged in blocks.items():
                    sql = statement(f"blocks/{block}", kept=kept)
                    columns = _COLUMNS[block]
                    self._run(
                        f"INSERT INTO {staged} ({', '.join(columns)}) SELECT {', '.join(columns)} FROM ({sql})",
                        {"view": group.view, "cart": group.cart},
                    )

    def _new_ids(self, users: str) -> str:
        """Give users without one an id, and prove that ids and users correspond one to one. Returns `users`."""
        sql = statement("blocks/new_ids", user_days=users)
        self._run(f"INSERT INTO {DATABASE}.user_ids (service, user_id, id) {sql}", {"services": self.names})
        wrong = self.client.query(
            f"SELECT service, count(), max(id), uniqExact(id), uniqExact(user_id) FROM {DATABASE}.user_ids "
            "WHERE service IN {services:Array(String)} GROUP BY service "
            "HAVING count() != max(id) OR count() != uniqExact(id) OR count() != uniqExact(user_id)",
            parameters={"services": self.names},
        ).result_rows
        if wrong:
            name, count, highest, ids, people = wrong[0]
            raise PlatformError(
                f"{DATABASE}.user_ids is not one-to-one for {name}: "
                f"{count} rows, {ids} ids up to {highest}, {people} users",
                hint="truncate user_ids, day_users and built in analytics_blocks and run again: they are derived",
            )
        return users

    def _bitmaps(self, users: str, cleared: set[Pair]) -> None:
        with self._staged("day_users") as staged:
            sql = statement("blocks/day_users", user_days=users)
            self._run(f"INSERT INTO {staged} (service, day, users) {sql}", {"services": self.names})
            self._swap("day_users", staged, cleared)

    # Sessions

    def _linked(self, pairs: set[Pair]) -> set[Pair]:
        """Days whose sessions have parts in `pairs`: by session.id, or by a gap of 30 minutes at most over midnight."""
        parts = f"{DATABASE}.session_parts"
        targets = self._scratch_table("targets")
        self._set_targets(_grouped(pairs))
        found = {
            (str(name), day)
            for name, day in self.client.query(
                f"SELECT DISTINCT service, day FROM {parts} "
                f"WHERE kind = 'id' AND service IN {{services:Array(String)}} "
                f"AND hash IN (SELECT hash FROM {parts} WHERE kind = 'id' AND service IN {{services:Array(String)}} "
                f"AND (service, day) IN (SELECT service, day FROM {targets}))",
                parameters={"services": self.names},
            ).result_rows
        }
        seen = set(pairs)
        frontier = set(pairs)
        while frontier:
            self._set_targets(_grouped(frontier))
            rows = self.client.query(
                statement("blocks/gap_links", targets=targets, whole_day_ns=str(WHOLE_DAY_NS)),
                parameters={"services": self.names, "near": _near(day for _, day in frontier)},
            ).result_rows
            found |= {(str(name), day) for name, day, _ in rows}
            # Only a part that fills its day carries a session further; its whole day is followed, which costs little.
            frontier = {(str(name), day) for name, day, long in rows if long} - seen
            seen |= frontier
        return found

    def _sessions(self, pairs: set[Pair]) -> None:
        """Put the sessions that started on the days of `pairs` together again."""
        self._note("sessions", pairs)
        raw = self._scratch_table("sessions_raw")
        with self._staged("sessions") as sessions, self._staged("session_days") as days:
            for piece in chunks([*{day for _, day in pairs}], defaultdict(lambda: 1), SESSION_DAYS):
                within = set(piece)
                self._set_targets(_grouped(pair for pair in pairs if pair[1] in within))
                self._run(f"TRUNCATE TABLE {raw}", {})
                sql = statement("blocks/sessions", targets=self._scratch_table("targets"))
                self._run(f"INSERT INTO {raw} {sql}", {"services": self.names, "gap_days": self._gap_days(within)})
                self._run(
                    f"INSERT INTO {sessions} SELECT service, day, events, duration_ns, viewed, carted FROM {raw}", {}
                )
                self._run(
                    f"INSERT INTO {days} SELECT service, day, count(), uniqExactArray(users) FROM {raw} "
                    "GROUP BY service, day",
                    {},
                )
            self.check()
            self._swap("sessions", sessions, pairs)
            self._swap("session_days", days, pairs)

    def _gap_days(self, days: Iterable[date]) -> list[date]:
        """The days whose parts can belong to a session that started on `days`, or show that it started before."""
        wanted = set(_near(days))
        while True:
            edges = [day for day in wanted if {day - DAY, day + DAY} - wanted]
            long = {
                row[0]
                for row in self.client.query(
                    f"SELECT DISTINCT day FROM {DATABASE}.session_parts WHERE kind = 'gap' "
                    "AND service IN {services:Array(String)} AND day IN {edges:Array(Date)} "
                    f"AND toUnixTimestamp64Nano(ended) - toUnixTimestamp64Nano(started) >= {WHOLE_DAY_NS}",
                    parameters={"services": self.names, "edges": edges},
                ).result_rows
            }
            more = set(_near(long)) - wanted
            if not more:
                return sorted(wanted)
            wanted |= more

    # Tables

    @contextmanager
    def _scratch(self) -> Generator[None]:
        """The small tables of one refresh, in memory."""
        for name, columns in _SCRATCH.items():
            self.client.command(f"CREATE TABLE {self._scratch_table(name)} ({columns}) ENGINE = Memory")
        try:
            yield
        finally:
            for name in _SCRATCH:
                self.client.command(f"DROP TABLE IF EXISTS {self._scratch_table(name)} SYNC")

    def _scratch_table(self, name: str) -> str:
        return f"{DATABASE}.`{name}__{self.token}`"

    @contextmanager
    def _staged(self, block: str) -> Generator[str]:
        """An empty twin of a block; dropped at the end."""
        name = f"{DATABASE}.`{block}__{self.token}`"
        self.client.command(f"CREATE TABLE {name} AS {DATABASE}.{block}")
        try:
            yield name
        finally:
            self.client.command(f"DROP TABLE IF EXISTS {name} SYNC")

    def _swap(self, block: str, staged: str, pairs: set[Pair]) -> None:
        """Replace the days of `pairs` by what is staged, keeping the rows other services have on these days."""
        self._set_targets(_grouped(pairs))
        days = sorted({day for _, day in pairs})
        self._run(
            f"INSERT INTO {staged} SELECT * FROM {DATABASE}.{block} WHERE day IN {{days:Array(Date)}} "
            f"AND (service, day) NOT IN (SELECT service, day FROM {self._scratch_table('targets')})",
            {"days": days},
        )
        held = {
            row[0]
            for row in self.client.query(
                "SELECT DISTINCT toDate(partition) FROM system.parts WHERE database = {database:String} "
                "AND table = {table:String} AND active AND rows > 0",
                parameters={"database": DATABASE, "table": staged.split("`")[1]},
            ).result_rows
        }
        steps = [
            f"REPLACE PARTITION '{day}' FROM {staged}" if day in held else f"DROP PARTITION '{day}'" for day in days
        ]
        for start in range(0, len(steps), SWAPS_AT_ONCE):
            self.client.command(f"ALTER TABLE {DATABASE}.{block} {', '.join(steps[start : start + SWAPS_AT_ONCE])}")

    def _note(self, what: str, pairs: Iterable[Pair]) -> None:
        rows = [(name, what, day, self.revision) for name, day in sorted(pairs)]
        self._insert(f"{DATABASE}.changes", ("service", "what", "day", "revision"), rows)

    def _set_targets(self, days: Mapping[str, Iterable[date]]) -> None:
        table = self._scratch_table("targets")
        self.client.command(f"TRUNCATE TABLE {table}")
        self._insert(table, ("service", "day"), [(name, day) for name, each in days.items() for day in each])

    def _insert(self, table: str, columns: Sequence[str], rows: Sequence[tuple[object, ...]]) -> None:
        if not rows:
            return
        body = "\n".join("\t".join(map(str, row)) for row in rows).encode()
        self.client.raw_insert(
            table, column_names=list(columns), insert_block=body, fmt="TSV", settings={"async_insert": 0, **SETTINGS}
        )

    def _run(self, sql: str, parameters: Mapping[str, Any]) -> None:
        self.client.command(sql, parameters=dict(parameters), settings=dict(SETTINGS))

    # Statements over the events

    def _of_events(self, name: str) -> str:
        return statement(f"blocks/{name}", **{table: self._scratch_table(table) for table in _SCRATCH})

    def _event_parameters(
        self, profile: Profile, days: Mapping[str, Iterable[date]], piece: Sequence[date]
    ) -> dict[str, Any]:
        """Parameters of a statement that reads the local days `piece` of the services that agree in `profile`.

        Fills `stretches`, by which it tells the days.
        """
        if not piece:
            raise AssertionError("no days, no statement")
        stretches: LocalDays = local_days(profile.time_zone, min(piece), max(piece))
        first_ds, last_ds = stretches.utc_days(set(piece))
        table = self._scratch_table("stretches")
        self.client.command(f"TRUNCATE TABLE {table}")
        self._insert(table, ("start", "day"), list(zip(stretches.starts, stretches.labels, strict=True)))
        return {
            "services": sorted(days),
            "first_ds": first_ds,
            "last_ds": last_ds,
        }

    def drop_leftovers(self) -> None:
        """Drop what a killed refresh staged; nobody else's can be there while the lock is held."""
        for (name,) in self.client.query(
            "SELECT name FROM system.tables WHERE database = {database:String} AND position(name, '__') > 0",
            parameters={"database": DATABASE},
        ).result_rows:
            self.client.command(f"DROP TABLE IF EXISTS {DATABASE}.`{name}` SYNC")


def _by_profile(
    services: Sequence[Service], days: Mapping[str, Iterable[date]]
) -> list[tuple[Profile, dict[str, list[date]]]]:
    """The days by service, for each profile on its own."""
    groups: dict[Profile, dict[str, list[date]]] = defaultdict(dict)
    for service in services:
        if each := sorted(days.get(service.name, ())):
            groups[Profile.of(service)][service.name] = each
    return list(groups.items())


def _all_days(days: Mapping[str, Iterable[date]]) -> list[date]:
    return sorted({day for each in days.values() for day in each})


def _grouped(pairs: Iterable[Pair]) -> dict[str, list[date]]:
    grouped: dict[str, list[date]] = defaultdict(list)
    for name, day in pairs:
        grouped[name].append(day)
    return grouped


def _near(days: Iterable[date]) -> list[date]:
    """The days and two on either side: a zone that crosses the date line leaves a day out."""
    return sorted({day + DAY * step for day in days for step in range(-2, 3)})
