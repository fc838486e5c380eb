"""The loader against the bare statement, against one INSERT an object, and against a plain Python loader. Ratios.

All sides load the same objects on the same engines in the same run, by turns, so that a busy machine slows all.
"""

import io
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_platform.catalog.ddl import qualified, table_ddl
from data_platform.catalog.keys import CuratedKey
from data_platform.catalog.models import Column, Dataset, RedshiftSource
from data_platform.clients import aws, clickhouse
from data_platform.loading.admission import Memory
from data_platform.loading.agent import FEWEST_WORKERS
from data_platform.loading.footer import read_footer
from data_platform.loading.loader import LoadResult, load_objects
from data_platform.loading.lock import LINGER_S
from data_platform.loading.message import ObjectEvent
from data_platform.loading.register import ObjectVersion, TablePartition
from data_platform.loading.statement import insert_objects
from data_platform.loading.warehouse import Warehouse, open_warehouse
from data_platform.local.cloud import Cloud
from data_platform.settings import Settings

ROUNDS = 3
LARGE_ROWS, LARGE_OBJECTS = 450_000, 6  # 5 MB each
SMALL_ROWS, SMALL_OBJECTS = 2_000, 100
LIMIT_LARGE, LIMIT_SMALL, LIMIT_PEER = 0.95, 3.0, 3.0
GIB = 2**30
MEMORY = 768 * 2**20  # of the market domain
FIRST_DAY = date(2024, 1, 1)


Load = Callable[[Warehouse, Dataset, list[ObjectEvent]], None]


def dataset(number: int) -> Dataset:
    """A table of its own for every measurement."""
    return Dataset(
        name=f"bench_{number}",
        domain="market",
        description="benchmark",
        owner="team:bench",
        source=RedshiftSource(table="market.bench", partition_column="day"),
        columns=(
            Column(name="id", type="Int64"),
            Column(name="value", type="Float64"),
            Column(name="name", type="String"),
        ),
        order_by=("id",),
    )


def put(settings: Settings, table: Dataset, rows: int, count: int, *, apart: bool) -> list[ObjectEvent]:
    """Objects of random rows, all of one day or (`apart`) each of its own; their events."""
    s3 = aws.s3(settings)
    dice = np.random.default_rng(1)
    events: list[ObjectEvent] = []
    for number in range(count):
        content = pa.table(
            {
                "id": pa.array(np.arange(number * rows, (number + 1) * rows)),
                "value": dice.random(rows),
                "name": [f"name {each}" for each in dice.integers(0, 1000, rows)],
            },
            schema=pa.schema(
                [
                    pa.field("id", pa.int64(), nullable=False),
                    pa.field("value", pa.float64(), nullable=False),
                    pa.field("name", pa.string(), nullable=False),
                ]
            ),
        )
        sink = io.BytesIO()
        pq.write_table(content, sink)
        ds = FIRST_DAY + timedelta(days=number if apart else 0)
        key = CuratedKey(table.domain, table.name, ds, f"part-{number:05d}.parquet")
        answer = s3.put_object(Bucket=settings.curated_bucket, Key=key.key, Body=sink.getvalue())
        version = ObjectVersion(
            settings.curated_bucket, key.key, answer["ETag"].strip('"'), answer.get("VersionId"),
            bytes=len(sink.getvalue()), event_at=datetime.now(UTC),
        )  # fmt: skip
        events.append(ObjectEvent(key, version, "bench"))
    return events


def with_loader(warehouse: Warehouse, table: Dataset, events: Sequence[ObjectEvent]) -> None:
    """As the agent does with what waits for one partition: one group, the domain's memory."""
    memory = Memory(MEMORY)
    told = load_objects(warehouse, table, events, memory=MEMORY, admit=memory.admitted)
    assert all(isinstance(each, LoadResult) for each in told), told


def with_workers(warehouse: Warehouse, table: Dataset, events: Sequence[ObjectEvent]) -> None:
    """As the agent does with objects of different partitions: alone each, by its workers side by side."""
    memory = Memory(MEMORY)

    def load(event: ObjectEvent) -> None:
        told = load_objects(warehouse, table, [event], memory=MEMORY, admit=memory.admitted)
        assert all(isinstance(each, LoadResult) for each in told), told

    with ThreadPoolExecutor(FEWEST_WORKERS) as pool:
        list(pool.map(load, events))
    warehouse.locks.free_now()


def bare(warehouse: Warehouse, table: Dataset, events: Sequence[ObjectEvent]) -> None:
    """The same INSERT SELECT, one after the other, with nothing around it, on as many threads as the server likes."""
    for event in events:
        version = event.version
        schema = read_schema(warehouse, version)
        partition = TablePartition(table.domain, table.name, event.key.ds)
        statement = insert_objects(
            warehouse.settings, table, partition, [version], schema, generation=0, max_memory=4 * GIB
        )
        warehouse.client.command(statement.sql, settings=statement.settings)


SCHEMAS: dict[str, pa.Schema] = {}


def read_schema(warehouse: Warehouse, version: ObjectVersion) -> pa.Schema:
    """The structure, known beforehand: the bare sequence is not made to look for it."""
    name = version.key.split("/")[1]
    if name not in SCHEMAS:
        SCHEMAS[name] = read_footer(warehouse.objects, version.bucket, version.key, version.etag).schema
    return SCHEMAS[name]


def plain_python(warehouse: Warehouse, table: Dataset, events: Sequence[ObjectEvent]) -> None:
    """boto3 + pyarrow + the client's insert: no identity, no proof."""
    for event in events:
        body = warehouse.s3.get_object(Bucket=event.version.bucket, Key=event.version.key)["Body"].read()
        content = pq.read_table(io.BytesIO(body))
        extra = content.append_column("_ds", pa.array([event.key.ds] * content.num_rows))
        extra = extra.append_column("_object", pa.array([event.version.identity] * content.num_rows))
        warehouse.client.insert_arrow(table.name, extra, database=table.domain)


def seconds(call: Callable[[], object]) -> float:
    """How long a call takes."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def main() -> int:
    """Print the ratios; 1 when a limit is broken."""
    with tempfile.TemporaryDirectory() as folder, Cloud(Path(folder)) as cloud:
        cloud.up(engines=("aws", "clickhouse"))
        settings = cloud.settings
        warehouse = open_warehouse(settings, linger_s=LINGER_S)
        numbers = iter(range(1000))
        times: dict[str, list[float]] = {}

        def measure(
            name: str,
            size: tuple[int, int],
            load: Callable[[Warehouse, Dataset, list[ObjectEvent]], None],
            apart: bool = False,
        ) -> None:
            rows, count = size
            table = dataset(next(numbers))
            with clickhouse.connect(settings) as client:
                client.command(table_ddl(table))
                events = put(settings, table, rows, count, apart=apart)
                SCHEMAS[table.name] = read_schema(warehouse, events[0].version)
                times.setdefault(name, []).append(seconds(lambda: load(warehouse, table, events)))
                found = int(str(client.command(f"SELECT count() FROM {qualified(table.domain, table.name)}")))
                assert found == rows * count, (name, found)
                client.command(f"DROP TABLE {qualified(table.domain, table.name)} SYNC")

        for _ in range(ROUNDS):
            large = (LARGE_ROWS, LARGE_OBJECTS)
            small = (SMALL_ROWS, SMALL_OBJECTS)
            measure("large bare", large, bare)
            measure("large loader", large, with_loader)
            measure("large apart", large, with_workers, apart=True)
            measure("large python", large, plain_python)
            measure("small single", small, bare)
            measure("small loader", small, with_loader)
            measure("small python", small, plain_python)
    best = {name: min(values) for name, values in times.items()}
    median = {name: statistics.median(values) for name, values in times.items()}
    for name, value in median.items():
        print(f"{name:>14}: median {value:6.2f} s, best {best[name]:6.2f} s")
    outcomes = [
        (
            "5 MB objects of one day, of the bare sequence's speed",
            best["large bare"] / best["large loader"],
            LIMIT_LARGE,
        ),
        ("5 MB objects of a day each, of it", best["large bare"] / best["large apart"], LIMIT_LARGE),
        ("5 MB objects, against plain Python", best["large python"] / best["large loader"], LIMIT_PEER),
        ("2,000-row objects, against one INSERT each", best["small single"] / best["small loader"], LIMIT_SMALL),
        ("2,000-row objects, against plain Python", best["small python"] / best["small loader"], LIMIT_PEER),
    ]
    for name, ratio, limit in outcomes:
        print(f"{name}: {ratio:.2f} (limit {limit}) {'ok' if ratio >= limit else 'MISSED'}")
    return int(any(ratio < limit for _, ratio, limit in outcomes))


if __name__ == "__main__":
    sys.exit(main())
