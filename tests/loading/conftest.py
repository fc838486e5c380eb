"""A table of its own for every test, objects written to S3 as producers write them, and the files' own content."""

import io
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_platform.catalog.ddl import qualified, table_ddl
from data_platform.catalog.keys import CuratedKey
from data_platform.catalog.models import Column, Dataset, Overwrite, RedshiftSource
from data_platform.clients import aws, clickhouse
from data_platform.loading.message import ObjectEvent
from data_platform.loading.register import ObjectVersion, TablePartition
from data_platform.loading.warehouse import Warehouse, open_warehouse
from data_platform.local.cloud import Cloud
from data_platform.settings import Settings

DS = date(2024, 5, 17)
NUMBERS = itertools.count(1)
SCHEMA = pa.schema([pa.field("id", pa.int64(), nullable=False), pa.field("name", pa.string())])
HASH = "SELECT count(), uniqExact(id), sum(cityHash64(toString((id, name)))) FROM"


def parquet(table: pa.Table) -> bytes:
    """The file of a table."""
    sink = io.BytesIO()
    pq.write_table(table, sink, store_schema=False)
    return sink.getvalue()


def rows(start: int, count: int, *, tag: str = "n") -> pa.Table:
    """`count` rows with ids from `start`."""
    return pa.table(
        {"id": list(range(start, start + count)), "name": [f"{tag}{i}" for i in range(count)]}, schema=SCHEMA
    )


@dataclass
class Bench:
    """One table, its producer, and its reader."""

    settings: Settings
    dataset: Dataset
    warehouse: Warehouse
    content: dict[str, pa.Table] = field(default_factory=dict[str, pa.Table])
    ds: date = DS
    sequence: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    @property
    def partition(self) -> TablePartition:
        return TablePartition(self.dataset.domain, self.dataset.name, self.ds)

    def put(self, file: str, table: pa.Table | None = None, *, body: bytes | None = None) -> ObjectEvent:
        """Write an object; the event S3 sends for it."""
        key = CuratedKey(self.dataset.domain, self.dataset.name, self.ds, file)
        data = body if body is not None else parquet(table if table is not None else rows(0, 3))
        answer = self.warehouse.s3.put_object(Bucket=self.settings.curated_bucket, Key=key.key, Body=data)
        if table is not None:
            self.content[file] = table
        version = ObjectVersion(
            self.settings.curated_bucket,
            key.key,
            answer["ETag"].strip('"'),
            answer.get("VersionId"),
            sequencer=f"{next(self.sequence):016X}",
            bytes=len(data),
            event_at=datetime.now(UTC),
        )
        return ObjectEvent(key, version, "test")

    def delete(self, event: ObjectEvent) -> None:
        self.warehouse.s3.delete_object(Bucket=event.version.bucket, Key=event.version.key)
        self.content.pop(event.key.file, None)

    def found(self) -> tuple[int, int, int]:
        """Count, distinct ids and hash sum of the table."""
        return tuple(int(value or 0) for value in self.warehouse.client.query(f"{HASH} {self.table}").result_rows[0])  # type: ignore[return-value]

    def expected(self, content: Mapping[str, pa.Table] | None = None) -> tuple[int, int, int]:
        """The same of the files' own content, computed by the engine from what was written, not what was loaded."""
        tables = [table for table in (self.content if content is None else content).values() if table.num_rows]
        if not tables:
            return 0, 0, 0
        name = f"default.expected_{next(NUMBERS)}"
        client = self.warehouse.client
        client.command(f"CREATE TABLE {name} (id Int64, name Nullable(String)) ENGINE = Memory")
        try:
            for table in tables:
                client.insert_arrow(name, table)
            return tuple(int(value or 0) for value in client.query(f"{HASH} {name}").result_rows[0])  # type: ignore[return-value]
        finally:
            client.command(f"DROP TABLE {name}")

    @property
    def table(self) -> str:
        return qualified(self.dataset.domain, self.dataset.storage_name)

    def again(self, **changes: Any) -> Warehouse:
        """The handles of another worker; `changes` replace settings."""
        return open_warehouse(self.settings.model_copy(update=changes))


def make_bench(settings: Settings, overwrite: Overwrite = Overwrite.REPLACE) -> Bench:
    """A bench on a new table in the market domain."""
    dataset = Dataset(
        name=f"ticks_{next(NUMBERS)}",
        domain="market",
        description="test",
        owner="team:test",
        source=RedshiftSource(table="market.ticks", partition_column="day"),
        columns=(Column(name="id", type="Int64"), Column(name="name", type="String", nullable=True)),
        order_by=("id",),
        overwrite=overwrite,
    )
    warehouse = open_warehouse(settings)
    warehouse.client.command(f"DROP TABLE IF EXISTS {qualified(dataset.domain, dataset.storage_name)} SYNC")
    warehouse.client.command(table_ddl(dataset))
    return Bench(settings, dataset, warehouse)


@pytest.fixture
def short_lease(cloud: Cloud) -> Settings:
    """Settings under which a killed worker's partition is free soon."""
    return cloud.settings.model_copy(update={"loader_lease_s": 1.0})


@pytest.fixture
def bench(short_lease: Settings) -> Iterator[Bench]:
    """A table of this test's own that replaces overwritten objects."""
    made = make_bench(short_lease)
    yield made
    _clear(made)


@pytest.fixture(params=list(Overwrite), ids=str)
def each_policy(short_lease: Settings, request: pytest.FixtureRequest) -> Iterator[Bench]:
    """The same under every overwrite policy."""
    made = make_bench(short_lease, request.param)
    yield made
    _clear(made)


def _clear(made: Bench) -> None:
    s3 = aws.s3(made.settings)
    prefix = f"{made.dataset.domain}/{made.dataset.name}/"
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=made.settings.curated_bucket, Prefix=prefix):
        for item in page.get("Contents", []):
            s3.delete_object(Bucket=made.settings.curated_bucket, Key=item["Key"])
    with clickhouse.connect(made.settings) as client:
        client.command(f"DROP TABLE IF EXISTS {made.table} SYNC")


def without_sequencer(event: ObjectEvent) -> ObjectEvent:
    """The event as an envelope tells it that knows no sequencers."""
    return replace(event, version=replace(event.version, sequencer=""))
