"""Rows -> sorted Parquet files of bounded size, one at a time, in bounded memory."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

# One file is sorted in memory and later loaded as one block. Peak of a process beyond its imports (6 M rows):
# 460 MB at 64 MiB a file, 540 MB at 96, 810 MB at 160; the block fits the smallest domain's loader memory (512 MB).
MAX_FILE_ARROW_BYTES = 64 * 2**20
ROW_GROUP_ROWS = 128 * 1024
# The domain's event rule passes objects above 1,024 bytes only.
MIN_OBJECT_BYTES = 1025
PADDING_KEY = b"data_platform.padding"


@dataclass(frozen=True)
class LocalFile:
    """A written file: where, its rows, bytes and the uncompressed size its footer declares."""

    path: Path
    rows: int
    bytes: int
    uncompressed_bytes: int


def write_sorted(
    batches: Iterable["pa.RecordBatch"],
    schema: "pa.Schema",
    order_by: Sequence[str],
    folder: Path,
    *,
    max_arrow_bytes: int = MAX_FILE_ARROW_BYTES,
) -> Iterator[LocalFile]:
    """Write the rows as files, each sorted by `order_by` (nulls last), each yielded as soon as it is whole.

    Memory: one file's rows and their sorted copy. No rows, no file.
    """
    pending: list[pa.RecordBatch] = []
    size = 0
    number = 0
    for batch in batches:
        if not batch.num_rows:
            continue
        pending.append(batch)
        size += batch.nbytes
        if size >= max_arrow_bytes:
            yield _write(pending, schema, order_by, folder / f"{number:05d}.parquet")
            pending, size, number = [], 0, number + 1
    if pending:
        yield _write(pending, schema, order_by, folder / f"{number:05d}.parquet")


def _write(batches: list["pa.RecordBatch"], schema: "pa.Schema", order_by: Sequence[str], path: Path) -> LocalFile:
    import pyarrow as pa

    table = pa.Table.from_batches(batches, schema=schema)
    batches.clear()
    table = table.sort_by([(name, "ascending") for name in order_by])
    _write_table(table, path)
    if path.stat().st_size < MIN_OBJECT_BYTES:
        metadata = {**(schema.metadata or {}), PADDING_KEY: b" " * MIN_OBJECT_BYTES}
        _write_table(table.replace_schema_metadata(metadata), path)
    return describe(path)


def _write_table(table: "pa.Table", path: Path) -> None:
    import pyarrow.parquet as pq

    pq.write_table(table, path, compression="zstd", row_group_size=ROW_GROUP_ROWS, coerce_timestamps=None)


def describe(path: Path) -> LocalFile:
    """Facts of a local Parquet file, from its footer."""
    import pyarrow.parquet as pq

    metadata = pq.read_metadata(path)
    uncompressed = sum(metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups))
    return LocalFile(path, metadata.num_rows, path.stat().st_size, uncompressed)
