"""What the benchmarks of the running loader share: a catalogue of one table a domain, objects of a size, the process.

The loader is the command people run, in a process of its own, so that its CPU and memory are its own, too.
"""

import io
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from data_platform.catalog.keys import CuratedKey
from data_platform.clients import aws, clickhouse
from data_platform.local.cloud import Cloud
from data_platform.settings import Settings

TABLE = "bench"
DAY = date(2024, 1, 1)
ROWS_PER_MB = 90_000
_CATALOG = Path(__file__).resolve().parents[1] / "catalog"
_DATASET = """name: bench
domain: {domain}
description: Rows of a benchmark.
owner: team:bench
source: {{kind: redshift, table: {domain}.bench, partition_column: day}}
columns:
  - {{name: id, type: Int64, description: Number.}}
  - {{name: value, type: Float64, description: Random.}}
  - {{name: name, type: String, description: One of a thousand.}}
order_by: [id]
start: 2024-01-01
"""


def make_catalog(folder: Path, domains: Sequence[str]) -> Path:
    """The shipped domains, each with the table `bench` alone; cloud and loader find it in the environment."""
    made = folder / "catalog"
    shutil.copytree(_CATALOG, made, ignore=shutil.ignore_patterns("datasets"))
    for domain in domains:
        path = made / "datasets" / domain / "bench.yaml"
        path.parent.mkdir(parents=True)
        path.write_text(_DATASET.format(domain=domain))
    os.environ["DATA_PLATFORM_CATALOG"] = str(made)
    return made


def parquet(rows: int) -> bytes:
    """A file of `rows` rows."""
    dice = np.random.default_rng(rows)
    types = {"id": pa.int64(), "value": pa.float64(), "name": pa.string()}
    names = pa.array([f"name {each}" for each in range(1000)])
    table = pa.table(
        {
            "id": pa.array(np.arange(rows)),
            "value": pa.array(dice.random(rows)),
            "name": names.take(pa.array(dice.integers(0, 1000, rows))),
        },
        schema=pa.schema([pa.field(name, kind, nullable=False) for name, kind in types.items()]),
    )
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


@dataclass
class Producer:
    """Puts objects on time, from threads of its own; remembers when each put began."""

    settings: Settings
    prefix: str = "part"
    began: dict[str, datetime] = field(default_factory=dict[str, datetime])
    late_s: float = 0.0

    def run(self, planned: Sequence[tuple[float, str, bytes]]) -> None:
        """`planned`: seconds from now, domain, body. Returns when all are put."""
        s3 = aws.s3(self.settings)
        started = time.monotonic()

        def put(number: int, domain: str, body: bytes) -> None:
            key = CuratedKey(domain, TABLE, DAY, f"{self.prefix}-{number:06d}.parquet").key
            self.began[key] = datetime.now(UTC)
            s3.put_object(Bucket=self.settings.curated_bucket, Key=key, Body=body)

        with ThreadPoolExecutor(8) as pool:
            puts: list[Future[None]] = []
            for number, (due, domain, body) in enumerate(sorted(planned, key=lambda each: each[0])):
                ahead = due - (time.monotonic() - started)
                self.late_s = max(self.late_s, -ahead)
                time.sleep(max(ahead, 0))
                puts.append(pool.submit(put, number, domain, body))
            for each in puts:
                each.result()


@dataclass
class LoaderProcess:
    """The running loader, as the operating system sees it."""

    process: psutil.Popen
    most_rss: int = 0

    def cpu_s(self) -> float:
        """CPU it has used."""
        times = self.process.cpu_times()
        return times.user + times.system

    def rss(self) -> int:
        """Bytes of memory now."""
        now = self.process.memory_info().rss
        self.most_rss = max(self.most_rss, now)
        return now


@contextmanager
def running_loader(cloud: Cloud) -> Generator[LoaderProcess]:
    """`data-platform loader`, ended gently at the end."""
    environment = {**cloud.process_env, "DATA_PLATFORM_LOADER_METRICS_PORT": "0", "DATA_PLATFORM_LOG_LEVEL": "WARNING"}
    command = [sys.executable, "-W", "ignore", "-m", "data_platform.cli.main", "loader", "--no-report"]
    process = psutil.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    try:
        yield LoaderProcess(process)
    finally:
        process.terminate()
        process.wait(60)


def finished(settings: Settings) -> dict[str, datetime]:
    """When each key's rows were proven to be in their table."""
    with clickhouse.connect(settings) as client:
        rows = client.query(
            "SELECT key, min(finished_at) FROM platform.objects WHERE state = 'loaded' GROUP BY key"
        ).result_rows
    return {str(key): at if at.tzinfo else at.replace(tzinfo=UTC) for key, at in rows}


def wait_loaded(settings: Settings, keys: Mapping[str, object], timeout_s: float) -> dict[str, datetime]:
    """Wait until all keys are loaded; when each was. Raises TimeoutError."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        found = finished(settings)
        if keys.keys() <= found.keys():
            return found
        time.sleep(1)
    raise TimeoutError(f"not all of {len(keys)} objects were loaded within {timeout_s:.0f} s")


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of them are."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]
