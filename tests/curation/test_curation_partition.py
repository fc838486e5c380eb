"""One curated partition: what is committed, what stays when it fails, how much memory it takes."""

import threading
from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from io import BytesIO
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_platform.curation import partition
from data_platform.curation.contract import ContractError
from data_platform.curation.manifest import (
    ConflictError,
    PartitionSource,
    StoredManifest,
    UncertainCommitError,
    generation_of,
    manifest_key,
    read_manifest,
)
from data_platform.curation.partition import SourceFile, curate_partition, read_batches
from data_platform.errors import PlatformError
from data_platform.local.cloud import Cloud
from tests.flow import Flow, day, open_flow

pytestmark = pytest.mark.integration
SCHEMA = pa.schema([("day", pa.date32()), ("id", pa.int64()), ("name", pa.string()), ("amount", pa.decimal128(18, 2))])


@pytest.fixture(scope="module")
def flow(cloud: Cloud, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flow]:
    with open_flow(cloud, tmp_path_factory.mktemp("catalog"), "items") as flow:
        yield flow


def rows(when: date, count: int, *, first: int = 0) -> pa.RecordBatch:
    ids = list(range(first + count - 1, first - 1, -1))
    amounts = pa.array([Decimal(i) for i in ids], pa.decimal128(18, 2))
    columns = [pa.array([when] * count), pa.array(ids), pa.array([f"n{i}" for i in ids]), amounts]
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)


def curate(flow: Flow, when: date, batches: Any, *, announced: int | None = None) -> StoredManifest:
    batches = list(batches) if isinstance(batches, list) else batches
    count = announced if announced is not None else sum(batch.num_rows for batch in batches)
    source = PartitionSource(kind="unload", reference="s3://u/x/", version="attempt 1", rows=count)
    return curate_partition(flow.s3, flow.settings.curated_bucket, flow["items"], when, batches, lambda: source)


def current(flow: Flow, when: date) -> StoredManifest | None:
    return read_manifest(flow.s3, flow.settings.curated_bucket, flow.domain, "items", when)


def content(flow: Flow, stored: StoredManifest) -> list[int]:
    bucket = flow.settings.curated_bucket
    bodies = [flow.s3.get_object(Bucket=bucket, Key=file.key)["Body"].read() for file in stored.manifest.files]
    return [i for body in bodies for i in pq.read_table(BytesIO(body)).column("id").to_pylist()]


def test_generations_follow_each_other_and_the_older_files_go(flow: Flow) -> None:
    first = curate(flow, day(0), [rows(day(0), 10)])
    second = curate(flow, day(0), [rows(day(0), 7), rows(day(0), 5, first=100)])
    assert (first.manifest.generation, second.manifest.generation) == (1, 2)
    assert content(flow, second) == [*range(7), *range(100, 105)]
    files = {file.key.rpartition("/")[2] for file in second.manifest.files}
    assert set(flow.curated("items", day(0))) == {"_manifest.json", *files}
    assert {generation_of(name) for name in files} == {2}
    head = flow.s3.head_object(Bucket=flow.settings.curated_bucket, Key=second.manifest.files[0].key)
    (file,) = second.manifest.files
    assert (head["ContentLength"], head["ETag"].strip('"'), head["VersionId"]) == (
        file.bytes,
        file.etag,
        file.version_id,
    )
    assert file.bytes > 1024


def test_an_empty_source_makes_an_empty_generation(flow: Flow) -> None:
    curate(flow, day(1), [rows(day(1), 10)])
    empty = curate(flow, day(1), [])
    assert (empty.manifest.generation, empty.manifest.files) == (2, ())
    assert flow.curated("items", day(1)) == ["_manifest.json"]


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (rows(day(2), 3).drop_columns(["amount"]), "missing column amount"),
        (rows(day(2), 3).append_column("more", pa.array([1, 2, 3])), "extra column more"),
        (rows(day(2), 3).set_column(1, "id", pa.array([1, None, 3])), "column id: 1 nulls"),
        (rows(day(2), 3).set_column(3, "amount", pa.array([1.5, 2.0, 2.125])), "column amount"),
    ],
)
def test_a_breach_of_the_contract_leaves_the_partition_as_it_was(
    flow: Flow, broken: pa.RecordBatch, reason: str
) -> None:
    before = curate(flow, day(2), [rows(day(2), 4)])
    names = flow.curated("items", day(2))
    with pytest.raises(ContractError, match=reason):
        curate(flow, day(2), [rows(day(2), 2), broken], announced=5)
    assert current(flow, day(2)) == before
    assert flow.curated("items", day(2)) == names


def test_rows_that_were_not_announced_are_not_committed(flow: Flow) -> None:
    with pytest.raises(PlatformError, match="4 rows were read where 5 were announced"):
        curate(flow, day(3), [rows(day(3), 4)], announced=5)
    assert flow.curated("items", day(3)) == []


def test_of_two_writers_at_once_one_wins_and_the_other_leaves_nothing(flow: Flow) -> None:
    barrier = threading.Barrier(2)
    outcomes: list[StoredManifest | Exception] = []

    def write(first: int) -> None:
        def source() -> Iterator[pa.RecordBatch]:
            yield rows(day(4), 6, first=first)
            barrier.wait(10)  # both have read the same generation

        try:
            outcomes.append(curate(flow, day(4), source(), announced=6))
        except ConflictError as error:
            outcomes.append(error)

    threads = [threading.Thread(target=write, args=(first,)) for first in (0, 100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (won,) = [each for each in outcomes if isinstance(each, StoredManifest)]
    assert len(outcomes) == 2
    assert current(flow, day(4)) == won
    assert len(content(flow, won)) == 6
    assert len(flow.curated("items", day(4))) == 2


def test_a_commit_that_may_have_happened_keeps_its_files(flow: Flow) -> None:
    """Deleting them would empty a partition whose manifest lists them."""
    faults = flow.cloud.faults("aws")
    key = manifest_key(flow.domain, "items", day(5))
    # The first look, before anything is written, passes.
    fault = faults.arm("s3.error", match={"key": key}, times=None, skip=1, status=500, when="after")
    with pytest.raises(UncertainCommitError):
        curate(flow, day(5), [rows(day(5), 8)])
    assert faults.struck(fault) >= 2
    faults.clear()
    stored = current(flow, day(5))
    assert stored is not None
    assert sorted(content(flow, stored)) == list(range(8))
    again = curate(flow, day(5), [rows(day(5), 8)])
    assert again.manifest.generation == 2
    assert len(flow.curated("items", day(5))) == 2


def test_an_upload_that_fails_for_good_leaves_nothing(flow: Flow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partition, "write_sorted", _small_files(partition.write_sorted))
    faults = flow.cloud.faults("aws")
    fault = faults.arm(
        "s3.error", match={"method": "PUT", "key": f"{flow.domain}/*-00001.parquet"}, times=None, status=403
    )
    with pytest.raises(Exception, match="AccessDenied"):
        curate(flow, day(6), [rows(day(6), 50), rows(day(6), 50, first=50)])
    assert faults.struck(fault) >= 1
    assert flow.curated("items", day(6)) == []


def _small_files(write: Any) -> Any:
    return lambda *args: write(*args, max_arrow_bytes=1)


def test_sources_are_read_whole_or_not_at_all(flow: Flow) -> None:
    bucket = flow.settings.unload_bucket
    body = BytesIO()
    pq.write_table(pa.Table.from_batches([rows(day(0), 20)]), body)
    key = f"tests/{flow.domain}/file.parquet"
    flow.s3.put_object(Bucket=bucket, Key=key, Body=body.getvalue())
    size = len(body.getvalue())
    assert sum(batch.num_rows for batch in read_batches(flow.s3, [SourceFile(bucket, key, 20, size)] * 2)) == 40
    with pytest.raises(PlatformError, match="holds 20 rows, its manifest says 21"):
        list(read_batches(flow.s3, [SourceFile(bucket, key, 21, size)]))
    flow.s3.put_object(Bucket=bucket, Key=key, Body=body.getvalue()[:-20])
    with pytest.raises(PlatformError, match="is not a whole Parquet file"):
        list(read_batches(flow.s3, [SourceFile(bucket, key, 20, size)]))


def test_memory_stays_bounded_whatever_the_partition_holds(flow: Flow, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty times the bytes of a file, most of them incompressible, on top of what one run takes: six files' worth."""
    limit = 8 * 2**20
    monkeypatch.setattr(
        partition, "write_sorted", lambda *args, write=partition.write_sorted: write(*args, max_arrow_bytes=limit)
    )
    process = psutil.Process()
    peak = 0
    files = 24
    each = 20_000

    def source() -> Iterator[pa.RecordBatch]:
        nonlocal peak
        for number in range(files):
            batch = rows(day(7), each, first=number * each)
            names = pa.array([f"{i:x}-{hash((i, number)):x}" * 16 for i in range(each)])
            yield batch.set_column(2, "name", names)
            peak = max(peak, process.memory_info().rss)

    curate(flow, day(8), source(), announced=files * each)  # warms allocators and clients
    warm, peak = process.memory_info().rss, 0
    stored = curate(flow, day(7), source(), announced=files * each)
    arrow = sum(file.uncompressed_bytes for file in stored.manifest.files)
    assert stored.manifest.rows == files * each
    assert len(stored.manifest.files) >= 8
    assert arrow > 16 * limit
    assert peak - warm < 6 * limit
