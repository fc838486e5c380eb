"""A small catalogue of its own in the embedded cloud: a domain nobody else uses, its source tables, its layers."""

import secrets
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from data_platform.catalog import Catalog, load_catalog
from data_platform.catalog.ddl import qualified
from data_platform.catalog.models import Dataset
from data_platform.catalog.types import redshift_type
from data_platform.clients import aws, clickhouse, postgres, redshift
from data_platform.ledger.dataset_unloads import dataset_unloads
from data_platform.local.cloud import Cloud
from data_platform.provisioning import provision
from data_platform.settings import Settings

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client
    from mypy_boto3_s3 import S3Client

FIRST_DAY = date(2024, 1, 1)
LEASE_S = 2.0  # what a killed worker held is free soon
ITEMS: dict[str, Any] = {
    "description": "One item.",
    "owner": "team:tests",
    "mode": "daily",
    "start": FIRST_DAY,
    "end": date(2024, 12, 31),
    "columns": [
        {"name": "day", "type": "Date"},
        {"name": "id", "type": "Int64"},
        {"name": "name", "type": "String", "nullable": True},
        {"name": "amount", "type": "Decimal(18, 2)"},
    ],
    "order_by": ["id"],
}


def day(number: int) -> date:
    """The `number`th day of the datasets, from 0."""
    return FIRST_DAY + timedelta(days=number)


def dataset_entry(domain: str, name: str, *, sql: str | None = None, **changes: Any) -> dict[str, Any]:
    """A catalogue entry; a snapshot has neither days nor a column that cuts them. `sql` may name {domain}."""
    source = {"table": f"{domain}.{name}", "partition_column": "day"}
    if sql is not None:
        source = {"sql": sql.format(domain=domain), "partition_column": "day"}
    entry = {**ITEMS, "name": name, "domain": domain, "source": source, **changes}
    if entry["mode"] == "snapshot":
        del entry["start"], entry["end"]
        source.pop("partition_column")
    return entry


def write_catalog(folder: Path, domain: str, entries: Iterable[dict[str, Any]]) -> Catalog:
    """Write a catalogue of one domain and read it."""
    (folder / "datasets" / domain).mkdir(parents=True, exist_ok=True)
    about = {
        "name": domain,
        "description": "A domain of the tests.",
        "owner": "team:tests",
        "priority": "low",
        "batch": {"min": 1, "max": 10},
        "peak_messages_per_hour": 10,
        "mean_file_mb": 1,
        "memory_mb": 512,
    }
    _dump(folder / "domains.yaml", [about])
    for name in ("services.yaml", "topics.yaml"):
        _dump(folder / name, [])
    for entry in entries:
        _dump(folder / "datasets" / domain / f"{entry['name']}.yaml", entry)
    return load_catalog(folder)


def _dump(path: Path, data: object) -> None:
    path.write_text(yaml.safe_dump(data, sort_keys=False), encoding="utf-8")


@dataclass
class Flow:
    """A catalogue, provisioned, and the hands to look into every layer of it."""

    cloud: Cloud
    folder: Path
    domain: str
    catalog: Catalog
    settings: Settings
    s3: "S3Client"
    clickhouse: "Client"
    warehouse: Any
    ledger: Any = field(repr=False)

    def __getitem__(self, name: str) -> Dataset:
        return self.catalog.dataset(f"{self.domain}/{name}")

    @property
    def env(self) -> dict[str, str]:
        """The environment of a process that works on this catalogue."""
        return {
            **self.cloud.env,
            "DATA_PLATFORM_CATALOG": str(self.folder),
            "DATA_PLATFORM_SCHEDULES": "none",
            "DATA_PLATFORM_LOADER_LEASE_S": str(self.settings.loader_lease_s),
        }

    def sql(self, statement: str) -> Sequence[Sequence[Any]]:
        """Run one statement in the warehouse."""
        with self.warehouse.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def fill(self, name: str, rows_by_day: dict[date, int], *, first_id: int = 0) -> None:
        """Replace the source table by so many items a day."""
        dataset = self[name]
        columns = ", ".join(f"{column.name} {redshift_type(column.clickhouse_type)}" for column in dataset.columns)
        self.sql(f"CREATE SCHEMA IF NOT EXISTS {self.domain}")
        self.sql(f"DROP TABLE IF EXISTS {self.domain}.{name}")
        self.sql(f"CREATE TABLE {self.domain}.{name} ({columns})")
        for when, rows in rows_by_day.items():
            self.sql(
                f"INSERT INTO {self.domain}.{name} SELECT DATE '{when}', {first_id} + n, "
                f"CASE WHEN n % 3 = 0 THEN NULL ELSE 'item ' || n END, n * 0.25 FROM generate_series(1, {rows}) AS s(n)"
            )

    def table(self, name: str, columns: str = "count(), uniqExact(id), sum(amount)") -> dict[str, tuple[Any, ...]]:
        """Aggregates of the stored table by day."""
        dataset = self[name]
        found = self.clickhouse.query(
            f"SELECT toString(_ds), {columns} FROM {qualified(self.domain, dataset.storage_name)} GROUP BY 1 ORDER BY 1"
        )
        return {row[0]: tuple(row[1:]) for row in found.result_rows}

    def counts(self, name: str) -> dict[str, int]:
        """Rows of the stored table by day."""
        return {when: row[0] for when, row in self.table(name, "count()").items()}

    def objects(self, bucket: str, prefix: str) -> list[str]:
        """Keys under a prefix."""
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        return [item.get("Key", "") for page in pages for item in page.get("Contents", [])]

    def unloaded(self, name: str, when: date) -> list[str]:
        """Keys of every attempt to unload a day."""
        return self.objects(self.settings.unload_bucket, f"unload-results/{self.domain}.{name}.{when}/")

    def curated(self, name: str, when: date) -> list[str]:
        """File names in a curated partition."""
        prefix = f"{self.domain}/{name}/ds={when}/"
        return [key.removeprefix(prefix) for key in self.objects(self.settings.curated_bucket, prefix)]

    def attempts(self, name: str, when: date) -> list[Any]:
        """The ledger's rows of a day, oldest first."""
        query = (
            dataset_unloads.select()
            .where(dataset_unloads.c.dataset == f"{self.domain}/{name}", dataset_unloads.c.partition == str(when))
            .order_by(dataset_unloads.c.attempt)
        )
        with self.ledger.connect() as connection:
            return list(connection.execute(query).mappings())

    def staging_tables(self) -> list[str]:
        """Tables of the domain that are left from a rebuild."""
        query = "SELECT name FROM system.tables WHERE database = {domain:String} AND name LIKE '%staging%'"
        return [row[0] for row in self.clickhouse.query(query, parameters={"domain": self.domain}).result_rows]


@contextmanager
def open_flow(cloud: Cloud, folder: Path, *entries: dict[str, Any] | str, lease_s: float = LEASE_S) -> Generator[Flow]:
    """A flow whose datasets are `entries`: names (of daily items) or changes to one, with its name."""
    domain = f"t{secrets.token_hex(4)}"
    changes: list[dict[str, Any]] = [{"name": entry} if isinstance(entry, str) else entry for entry in entries]
    full = [dataset_entry(domain, **each) for each in changes]
    catalog = write_catalog(folder, domain, full)
    settings = cloud.settings.model_copy(update={"catalog": folder, "loader_lease_s": lease_s})
    provision(settings, catalog=catalog, only=["aws", "clickhouse"])
    ledger = postgres.engine(settings)
    client = clickhouse.connect(settings)
    warehouse = redshift.connect(settings)
    try:
        yield Flow(cloud, folder, domain, catalog, settings, aws.s3(settings), client, warehouse, ledger)
    finally:
        warehouse.close()
        client.close()
        ledger.dispose()
