"""A partition made anew from curated S3: exact, empty where the source is, as before where it fails, one at a time."""

import threading
import time
from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from io import BytesIO

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_platform.curation.manifest import PartitionSource, StoredManifest
from data_platform.curation.partition import curate_partition
from data_platform.errors import PlatformError
from data_platform.loading.lock import LockHeldError
from data_platform.loading.rebuild import Rebuilt, Warehouse, rebuild_partition, verify_partition
from data_platform.loading.register import State, TablePartition
from data_platform.loading.warehouse import open_warehouse
from data_platform.local.cloud import Cloud
from tests.flow import LEASE_S, Flow, day, open_flow

pytestmark = pytest.mark.integration
SCHEMA = pa.schema([("day", pa.date32()), ("id", pa.int64()), ("name", pa.string()), ("amount", pa.decimal128(18, 2))])


@pytest.fixture(scope="module")
def flow(cloud: Cloud, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flow]:
    with open_flow(cloud, tmp_path_factory.mktemp("catalog"), "items") as flow:
        yield flow


@pytest.fixture
def warehouse(flow: Flow) -> Iterator[Warehouse]:
    warehouse = open_warehouse(flow.settings)
    yield warehouse
    warehouse.client.close()


def curate(flow: Flow, when: date, *counts: int) -> StoredManifest:
    """A partition of so many rows a batch."""
    batches: list[pa.RecordBatch] = []
    for number, count in enumerate(counts):
        rows = [{"day": when, "id": 1000 * number + n, "name": f"n{n}", "amount": Decimal(n)} for n in range(count)]
        batches.append(pa.RecordBatch.from_pylist(rows, schema=SCHEMA))
    source = PartitionSource(kind="unload", reference="s3://u/x/", version="attempt 1", rows=sum(counts))
    return curate_partition(flow.s3, flow.settings.curated_bucket, flow["items"], when, batches, lambda: source)


def names_of(stored: StoredManifest) -> list[str]:
    return [file.key.rpartition("/")[2] for file in stored.manifest.files]


def states(warehouse: Warehouse, flow: Flow, when: date) -> dict[str, State]:
    known = warehouse.register.objects(TablePartition(flow.domain, "items", when))
    return {record.version.key.rpartition("/")[2]: record.state for record in known.values()}


def test_a_partition_is_what_its_manifest_says(flow: Flow, warehouse: Warehouse) -> None:
    first = curate(flow, day(0), 10)
    rebuilt = rebuild_partition(warehouse, flow["items"], day(0))
    assert (rebuilt.rows, rebuilt.objects, rebuilt.generation, rebuilt.curated_generation) == (10, 1, 1, 1)
    second = curate(flow, day(0), 7, 8)
    again = rebuild_partition(warehouse, flow["items"], day(0))
    assert (again.rows, again.generation, again.curated_generation) == (15, 2, 2)
    assert flow.counts("items")[str(day(0))] == 15
    names = {
        manifest: {file.key.rpartition("/")[2] for file in manifest.manifest.files} for manifest in (first, second)
    }
    assert states(warehouse, flow, day(0)) == {
        **dict.fromkeys(names[first], State.REMOVED),
        **dict.fromkeys(names[second], State.LOADED),
    }
    assert sum(verify_partition(warehouse, flow["items"], day(0)).values()) == 15


def test_an_empty_day_ends_empty(flow: Flow, warehouse: Warehouse) -> None:
    curate(flow, day(1), 10)
    rebuild_partition(warehouse, flow["items"], day(1))
    curate(flow, day(1))
    rebuilt = rebuild_partition(warehouse, flow["items"], day(1))
    assert (rebuilt.rows, rebuilt.objects, rebuilt.generation) == (0, 0, 2)
    assert str(day(1)) not in flow.counts("items")
    assert set(states(warehouse, flow, day(1)).values()) == {State.REMOVED}


def test_a_day_that_never_was_is_empty(flow: Flow, warehouse: Warehouse) -> None:
    assert rebuild_partition(warehouse, flow["items"], day(2)).rows == 0


def test_a_breach_of_the_contract_leaves_the_partition_as_it_was(flow: Flow, warehouse: Warehouse) -> None:
    curate(flow, day(3), 10)
    before = rebuild_partition(warehouse, flow["items"], day(3))
    body = BytesIO()
    pq.write_table(pa.table({"day": [day(3)], "id": ["x"], "name": ["n"]}), body)
    key = f"{flow.domain}/items/ds={day(3)}/producer.parquet"
    flow.s3.put_object(Bucket=flow.settings.curated_bucket, Key=key, Body=body.getvalue())
    with pytest.raises(PlatformError, match="missing column amount") as caught:
        rebuild_partition(warehouse, flow["items"], day(3))
    assert "producer.parquet" in str(caught.value)
    assert "column id" in str(caught.value)
    partition = TablePartition(flow.domain, "items", day(3))
    assert warehouse.register.partition(partition).generation == before.generation
    assert flow.counts("items")[str(day(3))] == 10
    assert flow.staging_tables() == []
    flow.s3.delete_object(Bucket=flow.settings.curated_bucket, Key=key)
    assert rebuild_partition(warehouse, flow["items"], day(3)).rows == 10


def test_a_producers_own_file_counts_beside_the_platforms(flow: Flow, warehouse: Warehouse) -> None:
    curate(flow, day(4), 10)
    body = BytesIO()
    row = {"day": day(4), "id": 99_999, "name": None, "amount": Decimal("0.25")}
    pq.write_table(pa.Table.from_pylist([row], schema=SCHEMA), body)
    key = f"{flow.domain}/items/ds={day(4)}/producer.parquet"
    flow.s3.put_object(Bucket=flow.settings.curated_bucket, Key=key, Body=body.getvalue())
    assert rebuild_partition(warehouse, flow["items"], day(4)).rows == 11
    assert flow.table("items", "max(id)")[str(day(4))] == (99_999,)


def test_two_rebuilds_at_once_follow_each_other(flow: Flow) -> None:
    curate(flow, day(5), 200)
    results: list[Rebuilt] = []

    def rebuild() -> None:
        mine = open_warehouse(flow.settings)
        results.append(rebuild_partition(mine, flow["items"], day(5)))
        mine.client.close()

    threads = [threading.Thread(target=rebuild) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(each.generation for each in results) == [1, 2, 3]
    assert {each.rows for each in results} == {200}
    assert flow.table("items", "count(), uniqExact(id)")[str(day(5))] == (200, 200)
    assert flow.staging_tables() == []


def test_what_a_killed_holder_locked_is_free_after_its_lease(flow: Flow, warehouse: Warehouse) -> None:
    """A holder that is gone neither renews nor frees: its lease is made here as its last insert left it."""
    curate(flow, day(6), 20)
    name = TablePartition(flow.domain, "items", day(6)).name
    flow.clickhouse.command(
        "INSERT INTO platform.locks (name, epoch, owner, kind, expires_at) "
        f"SELECT '{name}', 1, 'killed', 'take', now64(3) + toIntervalMillisecond({int(LEASE_S * 1000)})"
    )
    started = time.monotonic()
    with pytest.raises(LockHeldError, match="killed"):
        rebuild_partition(warehouse, flow["items"], day(6), wait_s=0.1)
    assert rebuild_partition(warehouse, flow["items"], day(6)).rows == 20
    assert time.monotonic() - started >= LEASE_S - 0.5


def test_objects_that_went_while_they_were_read_are_no_permanent_failure(flow: Flow, warehouse: Warehouse) -> None:
    stored = curate(flow, day(7), 10)
    flow.s3.delete_object(Bucket=flow.settings.curated_bucket, Key=stored.manifest.files[0].key)
    with pytest.raises(PlatformError) as caught:
        rebuild_partition(warehouse, flow["items"], day(7))
    assert caught.value.fault.value == "transient"
    assert str(day(7)) not in flow.counts("items")
