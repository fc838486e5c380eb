"""The tables of the building blocks as a refresh handles them: staging, swapping days, telling statements which days.

Belongs here: everything that names a table or sends a statement. Does not: which days and what they are made of.
"""

import secrets
import threading
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING, Any

from data_platform.analytics.sql_files import schema_ddl

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client
    from clickhouse_connect.driver.external import ExternalData

DATABASE = "analytics_blocks"
SWAPS_AT_ONCE = 100
AT_ONCE = 4  # statements side by side
SETTINGS: Mapping[str, Any] = {"max_partitions_per_insert_block": 0, "join_use_nulls": 0}
# Tables that travel with a statement, gone when it ends: no list of days is too long, nothing is left behind.
TRAVELLING = {
    "targets": "service String, day Date",
    "piece": "service String, day Date",
    "stretches": "start Int64, day Date",
}
# Small ones of one refresh, in memory.
SCRATCH = {
    "repeated": "hash UInt64",
    "losers": "source_object String, source_position UInt64",
    "kept": "service LowCardinality(String), day Date, event_time DateTime64(9, 'UTC'), "
    "event_name LowCardinality(String), user_id Nullable(String), session_id Nullable(String), "
    "source_object LowCardinality(String), source_position UInt64",
    "sessions_raw": "service LowCardinality(String), day Date, events UInt64, duration_ns Int64, viewed Bool, "
    "carted Bool, users Array(String)",
}

Pair = tuple[str, date]  # a service and one of its local days
Rows = Iterable[tuple[object, ...]]


@dataclass
class BlockStore:
    """One refresh's hands on the tables; made under the lock. Counts its statements and the bytes they read."""

    client: "Client"
    services: list[str]
    statements: int = 0
    bytes_read: int = 0
    _token: str = field(default_factory=lambda: secrets.token_hex(4))
    _made: list[str] = field(default_factory=list[str])
    _counting: threading.Lock = field(default_factory=threading.Lock)

    def prepare(self, cluster: str | None) -> None:
        """Make what is missing, drop what a killed refresh staged; nobody else's can be there under the lock."""
        found = self.rows("SELECT name FROM system.tables WHERE database = {database:String}", {"database": DATABASE})
        names = [str(name) for (name,) in found]
        ddl = schema_ddl(cluster)
        if sum("__" not in name for name in names) < len(ddl) - 1:  # the first makes the database
            for statement in ddl:
                self.run(statement)
        self._drop([f"{DATABASE}.`{name}`" for name in names if "__" in name])

    def run(self, sql: str, parameters: Mapping[str, Any] | None = None, **tables: Rows) -> None:
        """Execute a statement; `tables` travel with it under their names."""
        done = self.client.command(
            sql,
            parameters={"services": self.services, **(parameters or {})},
            settings=dict(SETTINGS),
            external_data=_travelling(tables),
        )
        self._count(int(getattr(done, "summary", {}).get("read_bytes", 0)))

    def rows(self, sql: str, parameters: Mapping[str, Any] | None = None, **tables: Rows) -> Sequence[Sequence[Any]]:
        """The rows of a query; `tables` travel with it under their names."""
        found = self.client.query(
            sql, parameters={"services": self.services, **(parameters or {})}, external_data=_travelling(tables)
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
        """An empty table in memory; its full name."""
        return self._make(name, f"({SCRATCH[name]}) ENGINE = Memory")

    def staged(self, block: str) -> str:
        """An empty twin of a block; its full name."""
        return self._make(block, f"AS {DATABASE}.{block}")

    def truncate(self, table: str) -> None:
        """Empty a scratch table for the next piece."""
        self.run(f"TRUNCATE TABLE {table}")

    def days_held(self) -> dict[str, set[date]]:
        """The days that each table has rows of, of whatever service; twins under their full names."""
        held: dict[str, set[date]] = defaultdict(set)
        for table, day in self.rows(
            "SELECT DISTINCT table, toDateOrNull(partition) FROM system.parts "
            "WHERE database = {database:String} AND active AND rows > 0 AND partition LIKE '____-__-__'",
            {"database": DATABASE},
        ):
            held[f"{DATABASE}.`{table}`" if "__" in table else str(table)].add(day)
        return held

    def keep_others(self, twins: Mapping[str, str], pairs: set[Pair]) -> None:
        """Copy into the twins what other services have on the days of `pairs`: days are swapped whole."""
        others = "day IN (SELECT day FROM targets) AND (service, day) NOT IN (SELECT service, day FROM targets)"
        shared = self.rows(
            " UNION ALL ".join(f"(SELECT '{block}' FROM {DATABASE}.{block} WHERE {others} LIMIT 1)" for block in twins),
            targets=sorted(pairs),
        )
        for (block,) in shared:
            self.run(
                f"INSERT INTO {twins[block]} SELECT * FROM {DATABASE}.{block} WHERE {others}", targets=sorted(pairs)
            )

    def swap(self, block: str, twin: str, days: Iterable[date], held: Mapping[str, set[date]]) -> None:
        """Replace days of a block by what its twin holds. Repeating it changes nothing.

        A partition that the twin lacks is dropped: REPLACE PARTITION refuses an empty one.
        """
        steps = [
            f"REPLACE PARTITION '{day}' FROM {twin}" if day in held.get(twin, ()) else f"DROP PARTITION '{day}'"
            for day in sorted(days)
        ]
        for start in range(0, len(steps), SWAPS_AT_ONCE):
            self.run(f"ALTER TABLE {DATABASE}.{block} {', '.join(steps[start : start + SWAPS_AT_ONCE])}")

    def _count(self, read: int) -> None:
        with self._counting:
            self.statements += 1
            self.bytes_read += read

    def _make(self, name: str, definition: str) -> str:
        table = f"{DATABASE}.`{name}__{self._token}`"
        self._made.append(table)
        self.run(f"CREATE TABLE {table} {definition}")
        return table

    def _drop(self, tables: Sequence[str]) -> None:
        if tables:
            self.run(f"DROP TABLE IF EXISTS {', '.join(tables)} SYNC")


def _travelling(tables: Mapping[str, Rows]) -> "ExternalData | None":
    from clickhouse_connect.driver.external import ExternalData

    data = ExternalData()
    for name, rows in tables.items():
        data.add_file(file_name=name, fmt="TSV", structure=TRAVELLING[name], data=_tsv(rows))
    return data if tables else None


def _tsv(rows: Rows) -> bytes:
    return "".join("\t".join(map(str, row)) + "\n" for row in rows).encode()


def together(calls: Sequence[Callable[[], None]]) -> None:
    """Make the calls side by side, for most of a small statement is waiting. Raises an error when all have ended."""
    with ThreadPoolExecutor(max(1, min(len(calls), AT_ONCE))) as pool:
        waiting = [pool.submit(call) for call in calls]
    for each in waiting:
        each.result()
