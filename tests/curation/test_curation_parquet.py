"""Curated files: sorted, above the event rule's size, bounded, with the facts their footer tells."""

import random
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_platform.curation.parquet import MIN_OBJECT_BYTES, PADDING_KEY, write_sorted

pytestmark = pytest.mark.unit
SCHEMA = pa.schema(
    [pa.field("k", pa.int32()), pa.field("name", pa.string()), pa.field("v", pa.int64(), nullable=False)]
)


def batches(rows: int, size: int = 1000) -> list[pa.RecordBatch]:
    numbers = list(range(rows))
    random.Random(7).shuffle(numbers)
    made = []
    for start in range(0, rows, size):
        part = numbers[start : start + size]
        keys = [None if n % 50 == 0 else n % 97 for n in part]
        columns = [pa.array(keys, pa.int32()), pa.array([f"n{n}" for n in part]), pa.array(part)]
        made.append(pa.RecordBatch.from_arrays(columns, schema=SCHEMA))
    return made


def test_rows_are_sorted_with_nulls_last(tmp_path: Path) -> None:
    (file,) = write_sorted(batches(5000), SCHEMA, ["k", "v"], tmp_path)
    rows = pq.read_table(file.path).to_pylist()
    assert len(rows) == file.rows == 5000
    order = [(row["k"] is None, row["k"] or 0, row["v"]) for row in rows]
    assert order == sorted(order)
    assert pq.read_schema(file.path).remove_metadata().equals(SCHEMA)


def test_the_facts_are_the_footers(tmp_path: Path) -> None:
    (file,) = write_sorted(batches(5000), SCHEMA, ["v"], tmp_path)
    metadata = pq.read_metadata(file.path)
    assert file.bytes == file.path.stat().st_size
    assert file.uncompressed_bytes == sum(metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups))
    assert metadata.row_group(0).column(0).compression == "ZSTD"


@pytest.mark.parametrize("rows", [1, 2, 10])
def test_the_smallest_file_passes_the_event_rule(tmp_path: Path, rows: int) -> None:
    narrow = pa.schema([pa.field("v", pa.int8())])
    source = [pa.RecordBatch.from_arrays([pa.array(range(rows), pa.int8())], schema=narrow)]
    plain = tmp_path / "plain.parquet"
    pq.write_table(pa.Table.from_batches(source), plain, compression="zstd")
    assert plain.stat().st_size < MIN_OBJECT_BYTES  # without the padding it would not
    (file,) = write_sorted(source, narrow, ["v"], tmp_path)
    assert file.bytes > 1024
    assert pq.read_table(file.path).column("v").to_pylist() == list(range(rows))
    assert PADDING_KEY in (pq.read_schema(file.path).metadata or {})


def test_no_rows_make_no_file(tmp_path: Path) -> None:
    assert list(write_sorted([], SCHEMA, ["v"], tmp_path)) == []
    nothing = pa.RecordBatch.from_pylist([], schema=SCHEMA)
    assert list(write_sorted([nothing, nothing], SCHEMA, ["v"], tmp_path)) == []
    assert list(tmp_path.iterdir()) == []


def test_a_large_partition_is_several_files_each_sorted_and_none_lost(tmp_path: Path) -> None:
    source = batches(20_000)
    limit = sum(batch.nbytes for batch in source) // 4
    files = list(write_sorted(iter(source), SCHEMA, ["v"], tmp_path, max_arrow_bytes=limit))
    assert len(files) in {4, 5}
    values = [pq.read_table(file.path).column("v").to_pylist() for file in files]
    assert all(part == sorted(part) for part in values)
    assert sorted(v for part in values for v in part) == list(range(20_000))


def test_a_file_is_handed_on_before_the_next_is_read(tmp_path: Path) -> None:
    read = 0

    def counted() -> Iterator[pa.RecordBatch]:
        nonlocal read
        for batch in batches(10_000):
            read += 1
            yield batch

    files = write_sorted(counted(), SCHEMA, ["v"], tmp_path, max_arrow_bytes=1)
    next(files)
    assert read == 1
