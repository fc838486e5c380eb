"""Looking at and changing the rows of a target partition: counts by object, staging, swap."""

import secrets
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

from data_platform.catalog.ddl import OBJECT, qualified, staging_ddl
from data_platform.catalog.models import Dataset

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

    def rows_by_object(self, ds: date, *, table: str | None = None) -> dict[str, int]:
        """Rows of a partition by object identity: the last word on what is loaded."""
        rows = self.client.query(
            f"SELECT {OBJECT}, count() FROM {table or self.table} WHERE _ds = {{ds:Date}} GROUP BY {OBJECT}",
            parameters={"ds": ds},
        ).result_rows
        return {str(identity): int(count) for identity, count in rows}

    def rows_of(self, ds: date, identity: str) -> int:
        """Rows of one object in its partition."""
        return int(
            self.client.command(
                f"SELECT count() FROM {self.table} WHERE _ds = {{ds:Date}} AND {OBJECT} = {{object:String}}",
                parameters={"ds": ds, "object": identity},
            )  # pyright: ignore[reportArgumentType]
        )

    @contextmanager
    def staging(self, ds: date) -> Generator[str]:
        """An empty twin of the table, for one swap; dropped at the end. Yields its quoted name."""
        name = f"{self.dataset.storage_name}__staging_{ds:%Y%m%d}_{secrets.token_hex(4)}"
        self.client.command(staging_ddl(self.dataset, name))
        staged = qualified(self.dataset.domain, name)
        try:
            yield staged
        finally:
            self.client.command(f"DROP TABLE IF EXISTS {staged} SYNC")

    def swap(self, ds: date, staged: str, *, empty: bool) -> None:
        """Make the partition what `staged` holds, in one step. An empty partition cannot REPLACE: it is dropped."""
        partition = f"'{ds.isoformat()}'"
        if empty:
            self.client.command(f"ALTER TABLE {self.table} DROP PARTITION {partition}")
        else:
            self.client.command(f"ALTER TABLE {self.table} REPLACE PARTITION {partition} FROM {staged}")
