"""The tables of the building blocks as a refresh handles them: staging, swapping days, telling statements which days.

Belongs here: everything that names a table or sends a statement. Does not: which days and what they are made of.
"""

import secrets
import threading
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from data_platform.analytics.sql_files import schema_ddl
from data_platform.catalog.ddl import on_cluster

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client
    from clickhouse_connect.driver.external import ExternalData

DATABASE = "analytics_blocks"
LAYOUT = "layout 5"  # of schema.sql; blocks of another one are made anew
MONTHLY = frozenset({"event_days", "session_days", "day_users"})  # the others have a partition a day
SWAPS_AT_ONCE = 100
AT_ONCE = 4  # statements side by side
SETTINGS: Mapping[str, Any] = {"max_partitions_per_insert_block": 0, "join_use_nulls": 0}
# Tables that travel with a statement, gone when it ends: no list of days is too long, nothing is left behind.
TRAVELLING = {
    "targets": "service String, day Date",
    "piece": "service String, day Date",
    "near": "service String, day Date",
    "days": "day Date",
    "cleared": "day Date",
    "stretches": "start Int64, day Date",
}
# Those of one refresh alone; in memory unless they grow with the days that are built.
ON_DISK = {"day_ids": "MergeTree ORDER BY (service, day)", "sought": "MergeTree ORDER BY key"}
SCRATCH = {
    "sought": "key UInt64 CODEC(NONE), rest UInt32 CODEC(NONE)",
    "cut": "hash UInt64",
    "repeated": "key UInt64",
    "losers": "source_object String, source_position UInt64",
    "kept": "service LowCardinality(String), day Date, event_time DateTime64(9, 'UTC'), "
    "event_name LowCardinality(String), user_id Nullable(String), session_id Nullable(String), place UInt64",
    "day_ids": "service LowCardinality(String), day Date, user_id String, id UInt32",
    "fresh_ids": "service LowCardinality(String), user_id String, id UInt32",
    "sessions_raw": "service LowCardinality(String), day Date, events UInt64, duration_ns Int64, viewed Bool, "
    "carted Bool, users Array(String)",
}

T = TypeVar("T")
S = TypeVar("S")
Pair = tuple[str, date]  # a service and one of its local days
Rows = Iterable[tuple[object, ...]]


@dataclass(frozen=True)
class Partition:
    """A partition that has rows, and its parts, the largest first."""

    rows: int
    parts: tuple[str, ...]


Partitions = Mapping[str, Partition]  # of a table, by id
Held = Mapping[str, Partitions]  # by table


@dataclass
class BlockStore:
    """One refresh's hands on the tables; made under the lock. Counts its statements and the bytes they read.

    `threads`: of a statement in the server, when several go side by side; None leaves it to the server.
    """

    client: "Client"
    services: list[str]
    threads: int | None = None
    statements: int = 0
    bytes_read: int = 0
    _made: list[str] = field(default_factory=list[str])
    _counting: threading.Lock = field(default_factory=threading.Lock)

    def prepare(self, cluster: str | None) -> None:
        """Make what is missing, drop what a killed refresh staged; nobody else's can be there under the lock."""
        found = self.rows(
            "SELECT name, (SELECT any(comment) FROM system.databases WHERE name = {database:String}) "
            "FROM system.tables WHERE database = {database:String}",
            {"database": DATABASE},
        )
        names = [str(name) for name, _ in found]
        if any(layout != LAYOUT for _, layout in found):
            self.run(f"DROP DATABASE {DATABASE}{on_cluster(cluster)} SYNC")
            names = []
        ddl = schema_ddl(LAYOUT, cluster)
        if sum("__" not in name for name in names) < len(ddl) - 1:  # the first makes the database
            for statement in ddl:
                self.run(statement)
        self._drop([f"{DATABASE}.`{name}`" for name in names if "__" in name])

    def run(self, sql: str, parameters: Mapping[str, Any] | None = None, **tables: Rows) -> None:
        """Execute a statement; `tables` travel with it under their names."""
        done = self.client.command(
            sql,
            parameters={"services": self.services, **(parameters or {})},
            settings={**SETTINGS, **self._threads()},
            external_data=_travelling(tables),
        )
        self._count(int(getattr(done, "summary", {}).get("read_bytes", 0)))

    def rows(self, sql: str, parameters: Mapping[str, Any] | None = None, **tables: Rows) -> Sequence[Sequence[Any]]:
        """The rows of a query; `tables` travel with it under their names."""
        found = self.client.query(
            sql,
            parameters={"services": self.services, **(parameters or {})},
            settings=self._threads(),
            external_data=_travelling(tables),
        )
        self._count(int(found.summary.get("read_bytes", 0)))
        return found.result_rows

    def insert(self, table: str, columns: Sequence[str], rows: Sequence[tuple[object, ...]]) -> None:
        """Append to one of the small tables."""
        if rows:
            self._count(0)
            self.client.raw_insert(
                f"{DATABASE}.{table}",
                column_names=list(columns),
                insert_block=_tsv(rows),
                fmt="TSV",
                settings={"async_insert": 0, **SETTINGS},
            )

    @contextmanager
    def cleared_up(self) -> Generator[None]:
        """Drop what was staged within, in one statement at the end."""
        try:
            yield
        finally:
            self._drop(self._made)
            self._made.clear()

    def scratch(self, name: str) -> str:
        """An empty table for this refresh alone; its full name."""
        return self._make(name, f"({SCRATCH[name]}) ENGINE = {ON_DISK.get(name, 'Memory')}")

    def staged(self, block: str) -> str:
        """An empty twin of a block; its full name."""
        return self._make(block, f"AS {DATABASE}.{block}")

    def truncate(self, table: str) -> None:
        """Empty a scratch table for the next piece."""
        self.run(f"TRUNCATE TABLE {table}")

    def partitions(self, tables: Iterable[str]) -> dict[str, dict[str, Partition]]:
        """The partitions that each table, a block or a twin by its full name, has rows in, of whatever service."""
        called = {table.removeprefix(f"{DATABASE}.").strip("`"): table for table in tables}
        held: dict[str, dict[str, Partition]] = {table: {} for table in called.values()}
        for table, partition, rows, parts in self.rows(
            "SELECT table, partition_id, sum(rows), arrayReverse(arraySort(groupArray((rows, name)))).2 "
            "FROM system.parts WHERE database = {database:String} AND table IN {tables:Array(String)} "
            "AND active AND rows > 0 GROUP BY table, partition_id",
            {"database": DATABASE, "tables": sorted(called)},
        ):
            held[called[str(table)]][str(partition)] = Partition(int(rows), tuple(map(str, parts)))
        return held

    def keep_others(self, twins: Mapping[str, str], pairs: set[Pair], held: Held) -> None:
        """Copy into the twins what else lies in the partitions of the days: partitions are swapped whole.

        `held`: the partitions that the blocks have rows in.
        """
        where = {
            block: f"{part} IN (SELECT {part} FROM targets) "
            "AND (service, day) NOT IN (SELECT service, day FROM targets)"
            for block in twins
            if held[block].keys() & {partition_of(block, day) for _, day in pairs}
            for part in ["toYYYYMM(day)" if block in MONTHLY else "day"]
        }
        # In a month there are always others, in a day hardly ever: that is asked first.
        daily = [
            f"(SELECT '{block}' FROM {DATABASE}.{block} WHERE {where[block]} LIMIT 1)"
            for block in where
            if block not in MONTHLY
        ]
        shared = self.rows(" UNION ALL ".join(daily), targets=sorted(pairs)) if daily else ()

        def keep(block: str) -> None:
            self.run(
                f"INSERT INTO {twins[block]} SELECT * FROM {DATABASE}.{block} WHERE {where[block]}",
                targets=sorted(pairs),
            )

        together([partial(keep, block) for block in [*MONTHLY & where.keys(), *(str(row[0]) for row in shared)]])

    def replace(self, twins: Mapping[str, str], pairs: set[Pair], held: Held) -> None:
        """Replace the partitions with days of `pairs` in each block by its twin's. Repeating it changes nothing.

        `held`: the partitions that the twins have rows in.
        """
        days = {day for _, day in pairs}
        together([partial(self._swap, block, twin, days, held) for block, twin in twins.items()])

    def _swap(self, block: str, twin: str, days: Iterable[date], held: Held) -> None:
        """A partition that the twin lacks is dropped: REPLACE PARTITION refuses an empty one."""
        steps = [
            f"REPLACE PARTITION ID '{each}' FROM {twin}"
            if each in held.get(twin, ())
            else f"DROP PARTITION ID '{each}'"
            for each in sorted({partition_of(block, day) for day in days})
        ]
        for start in range(0, len(steps), SWAPS_AT_ONCE):
            self.run(f"ALTER TABLE {DATABASE}.{block} {', '.join(steps[start : start + SWAPS_AT_ONCE])}")

    def _threads(self) -> dict[str, Any]:
        return {} if self.threads is None else {"max_threads": self.threads}

    def _count(self, read: int) -> None:
        with self._counting:
            self.statements += 1
            self.bytes_read += read

    def _make(self, name: str, definition: str) -> str:
        table = f"{DATABASE}.`{name}__{secrets.token_hex(4)}`"
        self._made.append(table)
        self.run(f"CREATE TABLE {table} {definition}")
        return table

    def _drop(self, tables: Sequence[str]) -> None:
        if tables:
            self.run(f"DROP TABLE IF EXISTS {', '.join(tables)} SYNC")


def partition_of(block: str, day: date) -> str:
    """Id of the partition of a block that a day lies in."""
    return f"{day:%Y%m}" if block in MONTHLY else f"{day:%Y%m%d}"


def _travelling(tables: Mapping[str, Rows]) -> "ExternalData | None":
    from clickhouse_connect.driver.external import ExternalData

    data = ExternalData()
    for name, rows in tables.items():
        data.add_file(file_name=name, fmt="TSV", structure=TRAVELLING[name], data=_tsv(rows))
    return data if tables else None


def _tsv(rows: Rows) -> bytes:
    return "".join("\t".join(map(str, row)) + "\n" for row in rows).encode()


def together(calls: Sequence[Callable[[], T]]) -> list[T]:
    """Make the calls side by side, for most of a small statement is waiting. Raises an error when all have ended."""
    with ThreadPoolExecutor(max(1, min(len(calls), AT_ONCE))) as pool:
        waiting = [pool.submit(call) for call in calls]
    return [each.result() for each in waiting]


def both(first: Callable[[], S], second: Callable[[], T]) -> tuple[S, T]:
    """Make two calls side by side. Raises an error when both have ended."""
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(first)
        try:
            found = second()
        finally:
            wait([waiting])
    return waiting.result(), found
