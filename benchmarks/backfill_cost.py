"""What a backfill costs beyond its engines: 60 days of market/flights as one run, against the same work done bare.

Bare is what no tool can spare: the UNLOAD statement, reading, sorting and writing the Parquet, INSERT and REPLACE,
one after the other. It is measured before and after the run, on the same days and engines, so that a busy machine slows
both. Memory: the resident set behind the last ten days against the one behind the first ten.
"""

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any, Self

import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from data_platform.assets.keys import Stage
from data_platform.build import build_defs
from data_platform.catalog import Catalog, load_catalog
from data_platform.catalog.ddl import qualified, staging_ddl
from data_platform.catalog.models import Dataset
from data_platform.clients import aws, clickhouse, redshift
from data_platform.clients.clickhouse import s3_source
from data_platform.jobs.backfill import Checkpoint, plan_backfill, require_success, run_backfill
from data_platform.jobs.instance import open_instance
from data_platform.local.demo import demo_cloud
from data_platform.local.sample.load import load_sample
from data_platform.settings import Settings
from data_platform.unload.datasets import partition_select
from data_platform.unload.execution import list_prefix
from data_platform.unload.statement import UnloadOptions, build_unload

DAYS = 60
FIRST_DAY = date(2013, 2, 1)
WARM_UP_DAY = date(2013, 1, 1)
KEY = "market/flights"
LIMIT_COST = 3.0
LIMIT_MEMORY = 1.15


@dataclass
class Bare:
    """The engines' own work on one dataset, with nothing around it but open connections."""

    settings: Settings
    dataset: Dataset
    seconds: dict[str, float] = field(default_factory=dict[str, float])

    def __enter__(self) -> Self:
        self.s3 = aws.s3(self.settings)
        self.redshift = redshift.connect(self.settings)
        self.clickhouse = clickhouse.connect(self.settings)
        for name in ("bare_staging", "bare_target"):
            self.clickhouse.command(f"DROP TABLE IF EXISTS {qualified(self.dataset.domain, name)} SYNC")
            self.clickhouse.command(staging_ddl(self.dataset, name))
        return self

    def __exit__(self, *_: object) -> None:
        self.redshift.close()
        self.clickhouse.close()

    def day(self, ds: date, run: str) -> int:
        """One day through all engines; returns its rows."""
        settings, prefix = self.settings, f"bare/{run}/{ds}/"
        sql = build_unload(
            partition_select(self.dataset, ds),
            f"s3://{settings.unload_bucket}/{prefix}",
            UnloadOptions(),
            iam_role=settings.redshift_unload_role,
        )
        with self.redshift.cursor() as cursor:
            self._timed("UNLOAD", lambda: cursor.execute(sql))
        keys = [key for key in list_prefix(self.s3, settings.unload_bucket, prefix) if key.endswith(".parquet")]
        key = f"bare/{run}/ds={ds}/file.parquet"
        rows = self._timed("Parquet", lambda: self._sort(keys, key))
        staging, target = (qualified(self.dataset.domain, name) for name in ("bare_staging", "bare_target"))
        names = ", ".join(column.name for column in self.dataset.columns)
        source = s3_source(settings, settings.curated_bucket, key)
        insert = f"INSERT INTO {staging} ({names}, _ds, _object) SELECT {names}, toDate('{ds}'), 'bare' FROM {source}"
        replace = f"ALTER TABLE {target} REPLACE PARTITION '{ds}' FROM {staging}"
        self._timed("INSERT", lambda: self.clickhouse.command(insert))
        self._timed("REPLACE", lambda: self.clickhouse.command(replace))
        return rows

    def _sort(self, keys: list[str], key: str) -> int:
        tables = [pq.read_table(BytesIO(self._get(each))) for each in keys]
        table = pa.concat_tables(tables).sort_by([(name, "ascending") for name in self.dataset.order_by])
        text = BytesIO()
        pq.write_table(table, text, compression="zstd")
        self.s3.put_object(Bucket=self.settings.curated_bucket, Key=key, Body=text.getvalue())
        return table.num_rows

    def _get(self, key: str) -> bytes:
        return self.s3.get_object(Bucket=self.settings.unload_bucket, Key=key)["Body"].read()

    def _timed(self, what: str, call: Callable[[], Any]) -> Any:
        started = time.perf_counter()
        result = call()
        self.seconds[what] = self.seconds.get(what, 0.0) + time.perf_counter() - started
        return result


def bare_run(settings: Settings, dataset: Dataset, days: list[date], run: str) -> tuple[int, dict[str, float]]:
    """Rows and seconds by kind of work, the connections' warm-up left out."""
    with Bare(settings, dataset) as bare:
        bare.day(WARM_UP_DAY, run)
        bare.seconds.clear()
        return sum(bare.day(day, run) for day in days), bare.seconds


def backfill(settings: Settings, catalog: Catalog, first: date, last: date) -> tuple[float, int, list[int]]:
    """Seconds of one backfill run, the rows it says it loaded, the resident set behind each day."""
    process = psutil.Process()
    resident: list[int] = []
    rows = 0

    def tell(checkpoint: Checkpoint) -> None:
        nonlocal rows
        if checkpoint.stage is Stage.CLICKHOUSE:
            rows += checkpoint.rows
            resident.append(process.memory_info().rss)

    with open_instance(settings) as instance:
        definitions = build_defs(settings, catalog=catalog)
        plan = plan_backfill(catalog, instance, KEY, first=first, last=last, restart=True)
        started = time.perf_counter()
        require_success(run_backfill(definitions, catalog, instance, plan, tell))
        return time.perf_counter() - started, rows, resident


def measure(settings: Settings, count: int) -> int:
    """Print the ratios; 1 when a limit is broken."""
    catalog = load_catalog(settings.catalog)
    dataset = catalog.dataset(KEY)
    load_sample(settings, parts=["flights"])
    days = [FIRST_DAY + timedelta(days=n) for n in range(count)]
    backfill(settings, catalog, WARM_UP_DAY, WARM_UP_DAY)
    rows, before = bare_run(settings, dataset, days, "before")
    seconds, loaded, resident = backfill(settings, catalog, days[0], days[-1])
    _, after = bare_run(settings, dataset, days, "after")
    if rows != loaded:
        print(f"rows differ: {rows} bare, {loaded} by the backfill")
        return 1
    work = {what: (before[what] + after[what]) / 2 for what in before}
    engines = sum(work.values())
    cost = seconds / engines
    memory = statistics.median(resident[-10:]) / statistics.median(resident[:10])
    print(f"{count} days, {rows:,} rows of {KEY}")
    print("engine work, bare  " + ", ".join(f"{what} {each:.2f} s" for what, each in work.items()))
    print(f"backfill {seconds:.2f} s, {seconds / count * 1000:.0f} ms a day; engine work {engines:.2f} s")
    print(f"ratio of backfill to engine work: {cost:.2f} (limit {LIMIT_COST})")
    print(f"ratio of memory, last days to first: {memory:.2f} (limit {LIMIT_MEMORY}; {max(resident) / 2**20:.0f} MB)")
    return 0 if cost < LIMIT_COST and memory < LIMIT_MEMORY else 1


def main(count: int = DAYS) -> int:
    """Start an embedded cloud, measure, stop it. Returns the exit code."""
    os.environ["DATA_PLATFORM_SCHEDULES"] = "none"
    with tempfile.TemporaryDirectory() as folder, demo_cloud(Path(folder), lambda _: None) as cloud:
        return measure(cloud.settings, count)


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
