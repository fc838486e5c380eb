"""What curating a partition costs beyond Arrow: contract, sort, files and manifest, against reading, sorting, writing.

Both sides handle the same 3 M rows, by turns; both write zstd Parquet to the local disk. The peak of the resident set
is that of a process of its own, on a partition and on one four times as large.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from data_platform.curation.contract import conform
from data_platform.curation.parquet import write_sorted

ROWS = 3_000_000
BATCH_ROWS = 64 * 1024
ROUNDS = 3
LIMIT_TIME = 1.5
LIMIT_MEMORY = 1.35
SCHEMA = pa.schema([pa.field("day", pa.date32()), pa.field("id", pa.int64()), pa.field("name", pa.string()),
                    pa.field("amount", pa.float64())])  # fmt: skip
ORDER = ["name", "id"]


def batches(rows: int) -> Iterator[pa.RecordBatch]:
    """Rows in no order, as a warehouse gives them: ids wider than the contract's, names of 40 characters."""
    for start in range(0, rows, BATCH_ROWS):
        ids = [(n * 2_654_435_761) % 4_294_967_296 for n in range(start, min(rows, start + BATCH_ROWS))]
        columns = [pa.array([19_000] * len(ids), pa.int32()).cast(pa.date32()), pa.array(ids),
                   pa.array([f"name {n % 1000:08} {n:026}" for n in ids]), pa.array([n / 7 for n in ids])]  # fmt: skip
        yield pa.RecordBatch.from_arrays(columns, names=SCHEMA.names)


def curate(source: Path, folder: Path) -> int:
    """The rows of `source` as curated files; returns their rows."""
    with pq.ParquetFile(source) as parquet:
        conforming = (conform(batch, SCHEMA, where="bench") for batch in parquet.iter_batches(BATCH_ROWS))
        rows = 0
        for file in write_sorted(conforming, SCHEMA, ORDER, folder):
            rows += file.rows
            file.path.unlink()
    return rows


def bare(source: Path, folder: Path) -> int:
    """Arrow alone: everything read, sorted and written at once."""
    table = pq.read_table(source).sort_by([(name, "ascending") for name in ORDER])
    pq.write_table(table, folder / "bare.parquet", compression="zstd")
    return table.num_rows


def peak_mb(source: Path) -> float:
    """The highest resident set of a process that curates `source`, in MB."""
    code = (
        "import resource, sys, tempfile; from pathlib import Path; from benchmarks.curation import curate\n"
        "with tempfile.TemporaryDirectory() as f: curate(Path(sys.argv[1]), Path(f))\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(source)], check=True, capture_output=True, text=True,
        cwd=Path(__file__).resolve().parents[1],
    )  # fmt: skip
    return float(done.stdout)


def write_source(path: Path, rows: int) -> Path:
    """The unsorted rows as one Parquet file."""
    with pq.ParquetWriter(path, next(batches(1)).schema) as writer:
        for batch in batches(rows):
            writer.write_batch(batch)
    return path


def main() -> int:
    """Print the ratios; 1 when a limit is broken."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = write_source(folder / "source.parquet", ROWS)
        times: dict[str, list[float]] = {"bare": [], "curated": []}
        for number in range(ROUNDS):
            sides = [("bare", bare), ("curated", curate)]
            for side, call in sides if number % 2 else reversed(sides):
                started = time.perf_counter()
                if call(source, folder) != ROWS:
                    print(f"rows differ: {side}")
                    return 1
                times[side].append(time.perf_counter() - started)
        small = peak_mb(source)
        large = peak_mb(write_source(folder / "large.parquet", 4 * ROWS))
    ratio = statistics.median(c / b for c, b in zip(times["curated"], times["bare"], strict=True))
    print(f"{ROWS:,} rows: Arrow {min(times['bare']):.2f} s, curated {min(times['curated']):.2f} s")
    print(f"ratio of curating to Arrow alone: {ratio:.2f} (limit {LIMIT_TIME})")
    memory = large / small
    print(f"ratio of peak memory, 4 x the rows: {memory:.2f} (limit {LIMIT_MEMORY}; {small:.0f} and {large:.0f} MB)")
    return 0 if ratio <= LIMIT_TIME and memory <= LIMIT_MEMORY else 1


if __name__ == "__main__":
    sys.exit(main())
