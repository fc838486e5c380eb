"""A year of ten datasets backfilled on this machine: wall time against the engines' own work, memory, one bad day.

    python -m benchmarks.backfill_year 10 365     the whole of it, half an hour and more; without numbers, a small one

Each dataset is a run of its own, as `data-platform backfill` makes it. The engines' work is what no tool can spare (see
backfill_cost), measured on every tenth day right before and right behind the run, so that a busy machine slows both.
One day of one dataset holds a null where none may be: it has to fail alone, and be all that the next run does.
"""

import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import dagster as dg
import psutil
import yaml

from benchmarks.backfill_cost import Bare
from data_platform.assets.keys import Stage
from data_platform.build import build_defs
from data_platform.catalog import Catalog, load_catalog
from data_platform.catalog.ddl import statements
from data_platform.catalog.models import Dataset
from data_platform.clients import clickhouse, redshift
from data_platform.jobs.backfill import Checkpoint, plan_backfill, require_success, run_backfill
from data_platform.jobs.instance import open_instance
from data_platform.local.demo import demo_cloud
from data_platform.settings import Settings

ROWS = 5_000
SAMPLED = 10  # every so many-th day is measured bare
FIRST_DAY = date(2023, 1, 1)
LIMIT_COST, LIMIT_MEMORY = 2.0, 1.15
ENTRY = """name: {name}
domain: market
description: One order.
owner: team:market-data
source: {{table: year.{name}, partition_column: day}}
start: 2023-01-01
end: 2023-12-31
columns:
  - {{name: day, type: Date}}
  - {{name: id, type: Int64}}
  - {{name: customer, type: String}}
  - {{name: amount, type: Int32}}
  - {{name: note, type: String}}
order_by: [id]
"""


@dataclass(frozen=True)
class Measured:
    """One dataset: seconds of its run, of the same days bare, days made, memory behind the first and last tenth."""

    seconds: float
    engines: float
    made: int
    resident: tuple[float, float]


def make_catalog(settings: Settings, folder: Path, datasets: int) -> Catalog:
    """`datasets` datasets of one domain, and nothing else."""
    shipped = load_catalog(settings.catalog)
    domain = shipped.domains["market"].model_dump(mode="json", exclude_none=True)
    (folder / "datasets" / "market").mkdir(parents=True)
    (folder / "domains.yaml").write_text(yaml.safe_dump([domain]), encoding="utf-8")
    for name in ("services.yaml", "topics.yaml"):
        (folder / name).write_text("[]\n", encoding="utf-8")
    for number in range(datasets):
        name = f"orders_{number:02}"
        (folder / "datasets" / "market" / f"{name}.yaml").write_text(ENTRY.format(name=name), encoding="utf-8")
    return load_catalog(folder)


def make_source(settings: Settings, dataset: Dataset, days: int) -> None:
    """The table in Redshift, ROWS rows a day, and the empty one in ClickHouse."""
    last = FIRST_DAY + timedelta(days=days - 1)
    columns = "day DATE, id BIGINT, customer VARCHAR(64), amount INTEGER, note VARCHAR(64)"
    series = f"generate_series(DATE '{FIRST_DAY}', DATE '{last}', INTERVAL '1 day') d, generate_series(1, {ROWS}) n"
    values = "d::date, n, 'customer ' || n % 997, n * 7 % 5000, 'note ' || n"
    with redshift.connect(settings) as connection, connection.cursor() as cursor:
        for sql in (
            "CREATE SCHEMA IF NOT EXISTS year",
            f"DROP TABLE IF EXISTS year.{dataset.name}",
            f"CREATE TABLE year.{dataset.name} ({columns})",
            f"INSERT INTO year.{dataset.name} SELECT {values} FROM {series}",
        ):
            cursor.execute(sql)
    with clickhouse.connect(settings) as client:
        for sql in statements(dataset):
            client.command(sql)


def bare_seconds(settings: Settings, dataset: Dataset, days: list[date], run: str) -> float:
    """Seconds of the engines' work on one day, from every tenth."""
    sample = days[::SAMPLED]
    with Bare(settings, dataset) as bare:
        bare.day(days[-1], f"{dataset.name}/{run}/first")  # opens connections
        bare.seconds.clear()
        for day in sample:
            bare.day(day, f"{dataset.name}/{run}")
        return sum(bare.seconds.values()) / len(sample)


def measure(
    settings: Settings,
    catalog: Catalog,
    definitions: dg.Definitions,
    dataset: Dataset,
    days: list[date],
    *,
    bad: bool,
) -> Measured:
    """Backfill all days of one dataset. Raises AssertionError when anything but the bad day is not made."""
    make_source(settings, dataset, len(days))
    wrong = days[len(days) // 2]
    if bad:
        _put(settings, dataset, wrong, "NULL")
    before = bare_seconds(settings, dataset, [day for day in days if day != wrong], "before")
    process, resident, made = psutil.Process(), list[int](), set[str]()

    def tell(checkpoint: Checkpoint) -> None:
        if checkpoint.stage is Stage.CLICKHOUSE:
            made.add(checkpoint.day)
            resident.append(process.memory_info().rss)

    with open_instance(settings) as instance:
        plan = plan_backfill(catalog, instance, dataset.key, first=days[0], last=days[-1])
        started = time.perf_counter()
        result = run_backfill(definitions, catalog, instance, plan, tell)
        seconds = time.perf_counter() - started
        if bad:
            failed = {day.isoformat() for day in days} - made
            if result.success or failed != {wrong.isoformat()}:
                raise AssertionError(f"not made: {sorted(failed)}, and only {wrong} is bad: {result.reason}")
            print(f"  the bad day alone failed: {result.reason}".replace("\n", " "), flush=True)
            _put(settings, dataset, wrong, "1")
            plan = plan_backfill(catalog, instance, dataset.key, first=days[0], last=days[-1])
            if plan.remaining != (wrong.isoformat(),):
                raise AssertionError(f"the same command would do {plan.remaining} again")
            result = run_backfill(definitions, catalog, instance, plan, tell)
            print("  the same command, after the correction, did that day alone", flush=True)
        require_success(result)
    after = bare_seconds(settings, dataset, days, "after")
    _compare(settings, dataset, len(days), bad=bad)
    return Measured(seconds, (before + after) / 2 * len(days), len(made), _ends(resident))


def _ends(resident: list[int]) -> tuple[float, float]:
    """Medians of the first and of the last tenth."""
    tenth = max(1, len(resident) // 10)
    return statistics.median(resident[:tenth]), statistics.median(resident[-tenth:])


def _put(settings: Settings, dataset: Dataset, day: date, amount: str) -> None:
    """Give the day one more row, in the place of an earlier one of its kind."""
    with redshift.connect(settings) as connection, connection.cursor() as cursor:
        cursor.execute(f"DELETE FROM year.{dataset.name} WHERE day = DATE '{day}' AND id = 0")
        cursor.execute(f"INSERT INTO year.{dataset.name} VALUES (DATE '{day}', 0, 'c', {amount}, 'n')")


def _compare(settings: Settings, dataset: Dataset, days: int, *, bad: bool) -> None:
    with clickhouse.connect(settings) as client:
        found = int(client.query(f"SELECT count() FROM market.{dataset.storage_name}").result_rows[0][0])
    if found != days * ROWS + bad:
        raise AssertionError(f"{dataset.key} holds {found} rows, not {days * ROWS + bad}")


def main(datasets: int = 2, days: int = 30) -> int:
    """Measure, print; 1 when a limit is broken."""
    with tempfile.TemporaryDirectory() as folder, demo_cloud(Path(folder) / "home", lambda _: None) as cloud:
        catalog = make_catalog(cloud.settings, Path(folder) / "catalog", datasets)
        settings = cloud.settings.model_copy(update={"catalog": Path(folder) / "catalog"})
        definitions, found = build_defs(settings, catalog=catalog), list[Measured]()
        wanted = [FIRST_DAY + timedelta(days=n) for n in range(days)]
        for number, dataset in enumerate(catalog.datasets.values()):
            one = measure(settings, catalog, definitions, dataset, wanted, bad=number == datasets // 2)
            found.append(one)
            print(
                f"{dataset.key}: {one.made} days in {one.seconds:.0f} s, {one.seconds / one.made * 1000:.0f} ms a day; "
                f"engines alone {one.engines:.0f} s; {one.seconds / one.engines:.2f} times; "
                f"{one.resident[0] / 2**20:.0f} to {one.resident[1] / 2**20:.0f} MB",
                flush=True,
            )
    seconds, engines = sum(one.seconds for one in found), sum(one.engines for one in found)
    cost = seconds / engines
    memory = found[-1].resident[1] / found[0].resident[0]
    print(f"{datasets} datasets, {days} days each, {ROWS:,} rows a day: {seconds:.0f} s; engines alone {engines:.0f} s")
    print(f"ratio of backfill to engine work: {cost:.2f} (limit {LIMIT_COST})")
    print(f"ratio of memory, last days to first: {memory:.2f} (limit {LIMIT_MEMORY})")
    return 0 if cost <= LIMIT_COST and memory <= LIMIT_MEMORY else 1


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
