"""Looking at and changing the rows of a target partition: counts by object, staging, swap."""

from collections.abc import Collection, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

from data_platform.catalog.ddl import DS, OBJECT, literal, qualified, quote, staging_ddl
from data_platform.catalog.models import Dataset
from data_platform.loading.lock import Lease

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client


@dataclass(frozen=True)
class Target:
    """The stored table of a dataset."""

    client: "Client"
    dataset: Dataset

    @property
    def table(self) -> str:
        """Quoted name of the stored table."""
        return qualified(self.dataset.domain, self.dataset.storage_name)

    def rows_by_object(
        self, ds: date, *, table: str | None = None, identities: Collection[str] | None = None
    ) -> dict[str, int]:
        """Rows of a partition by object identity, of all objects or of `identities`: the last word on what is loaded.

        Objects without rows are not in the answer.
        """
        chosen, parameters = "", dict[str, Any](ds=ds)
        if identities is not None:
            if not identities:
                return {}
            if len(identities) == 1:
                (identity,) = identities
                rows = self._rows_of(ds, identity, table or self.table)
                return {identity: rows} if rows else {}
            # As a parameter: a hundred literals cost more to parse than a million rows to count.
            chosen = f"AND {OBJECT} IN {{identities:Array(String)}} "
            parameters["identities"] = sorted(identities)
        rows = self.client.query(
            f"SELECT {OBJECT}, count() FROM {table or self.table} WHERE _ds = {{ds:Date}} {chosen}GROUP BY {OBJECT}",
            parameters=parameters,
        ).result_rows
        return {str(identity): int(count) for identity, count in rows}

    def _rows_of(self, ds: date, identity: str, table: str) -> int:
        """Of one object: half of what grouping takes (4.5 ms against 9 where the object is 450,000 rows)."""
        found = self.client.query(
            f"SELECT countIf({OBJECT} = {{identity:String}}) FROM {table} WHERE _ds = {{ds:Date}}",
            parameters={"ds": ds, "identity": identity},
        ).result_rows
        return int(found[0][0])

    @contextmanager
    def staging(self, ds: date, lease: Lease) -> Generator[str]:
        """An empty twin of the table, for one swap; dropped at the end. Yields its quoted name.

        The name holds the lease's epoch: whoever takes the lease over drops it (`drop_stagings`), and a holder that
        was only paused has nothing left to swap.
        """
        name = f"{_staging_prefix(self.dataset, ds)}{lease.epoch}"
        staged = qualified(self.dataset.domain, name)
        self.client.command(f"DROP TABLE IF EXISTS {staged} SYNC")
        self.client.command(staging_ddl(self.dataset, name))
        try:
            yield staged
        finally:
            self.client.command(f"DROP TABLE IF EXISTS {staged} SYNC")

    def drop_stagings(self, ds: date) -> int:
        """Drop what earlier holders of the partition's lease staged; returns how many tables there were."""
        names = self.client.query(
            "SELECT name FROM system.tables WHERE database = {database:String} AND startsWith(name, {prefix:String})",
            parameters={"database": self.dataset.domain, "prefix": _staging_prefix(self.dataset, ds)},
        ).result_rows
        for (name,) in names:
            self.client.command(f"DROP TABLE IF EXISTS {qualified(self.dataset.domain, str(name))} SYNC")
        return len(names)

    def copy(self, ds: date, staged: str, *, without: Collection[str]) -> None:
        """Copy the partition's rows into `staged`, all but those of the objects `without`."""
        names = ", ".join([*(quote(column.name) for column in self.dataset.columns), DS, OBJECT])
        chosen = f" AND {OBJECT} NOT IN ({', '.join(map(literal, sorted(without)))})" if without else ""
        self.client.command(
            f"INSERT INTO {staged} ({names}) SELECT {names} FROM {self.table} WHERE _ds = {{ds:Date}}{chosen}",
            parameters={"ds": ds},
            settings={"insert_deduplicate": 0},
        )

    def swap(self, ds: date, staged: str, *, empty: bool) -> None:
        """Make the partition what `staged` holds, in one step.

        An empty partition cannot REPLACE: the rows move out instead, into `staged`, which also has to exist for it.
        """
        partition = f"'{ds.isoformat()}'"
        if empty:
            self.client.command(f"ALTER TABLE {self.table} MOVE PARTITION {partition} TO TABLE {staged}")
        else:
            self.client.command(f"ALTER TABLE {self.table} REPLACE PARTITION {partition} FROM {staged}")

    def move_in(self, ds: date, staged: str) -> None:
        """Add what `staged` holds to the partition, in one step; repeated, it moves nothing."""
        self.client.command(f"ALTER TABLE {staged} MOVE PARTITION '{ds.isoformat()}' TO TABLE {self.table}")


def _staging_prefix(dataset: Dataset, ds: date) -> str:
    return f"{dataset.storage_name}__staging_{ds:%Y%m%d}_"
