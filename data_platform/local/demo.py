"""The whole flow on the sample data, from nothing: every layer of every dataset, counted, compared, shown.

What belongs here: the order of things and the comparison. Each step is done by the code that does it in production.
"""

import os
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from data_platform.assets.keys import Stage, stages_of
from data_platform.build import build_defs
from data_platform.catalog import Catalog, load_catalog
from data_platform.catalog.ddl import qualified
from data_platform.catalog.models import Dataset, Mode, OtelLogsSource
from data_platform.clients import clickhouse, kafka, postgres, redshift
from data_platform.errors import PlatformError
from data_platform.jobs.backfill import Checkpoint, plan_backfill, require_success, run_backfill
from data_platform.jobs.drops import run_drops
from data_platform.jobs.instance import open_instance
from data_platform.jobs.summaries import run_summaries
from data_platform.loading.agent import Agent
from data_platform.local.cloud import Cloud, users_environment
from data_platform.local.sample.load import load_sample
from data_platform.settings import Settings
from data_platform.statistics.runs import history
from data_platform.unload.events import relay_all

if TYPE_CHECKING:
    from dagster import DagsterInstance, Definitions

# The last 14 days of the shops' events. A rolling month looks 30 days back, so the events come from their first day.
FIRST_DAY = date(2013, 2, 20)
LAST_DAY = date(2013, 3, 5)
EVENTS_FIRST_DAY = date(2013, 1, 1)
DRAIN_TIMEOUT_S = 120

Tell = Callable[[str], None]


@dataclass
class StageCount:
    """Rows and bytes of one layer of one dataset."""

    rows: int = 0
    bytes: int = 0
    partitions: int = 0


@dataclass
class DatasetCount:
    """What each layer of a dataset holds, and what the layer before it says it should."""

    dataset: str
    source_rows: int | None  # counted in the warehouse; None for events, whose source is log files
    stages: dict[Stage, StageCount] = field(default_factory=dict[Stage, StageCount])
    delivered_rows: int = 0  # in ClickHouse after the loader, before any rebuild
    table_rows: int = 0  # in ClickHouse at the end

    @property
    def agree(self) -> bool:
        """Whether every layer holds the same rows."""
        counts = {count.rows for count in self.stages.values()} | {self.delivered_rows, self.table_rows}
        if self.source_rows is not None:
            counts.add(self.source_rows)
        return len(counts) == 1


@dataclass(frozen=True)
class DropCount:
    """A CSV drop: its records, those that were applied, the rows in which table and file differ afterwards."""

    file: str
    records: int
    applied: int
    inconsistencies: int | None

    @property
    def agree(self) -> bool:
        """Whether every record stands in the table."""
        return self.records == self.applied and self.inconsistencies == 0


@dataclass
class DemoReport:
    """Everything the demo has to show."""

    datasets: list[DatasetCount]
    active_users: dict[str, list[tuple[date, int, int, float | None]]]  # service: day, dau, mau_30, stickiness
    drops: list[DropCount]
    loaded_objects: int
    notices: int
    runs: int
    seconds: float

    def disagreements(self) -> list[str]:
        """One line per dataset whose layers differ, and per CSV drop that differs from its table."""
        drops = [
            f"{drop.file}: {drop.records} records, {drop.applied} applied, {drop.inconsistencies} inconsistencies"
            for drop in self.drops
            if not drop.agree
        ]
        return drops + [
            f"{each.dataset}: warehouse {each.source_rows}, "
            + ", ".join(f"{stage.value} {count.rows}" for stage, count in each.stages.items())
            + f", delivered {each.delivered_rows}, in the table {each.table_rows}"
            for each in self.datasets
            if not each.agree
        ]


@contextmanager
def own_environment() -> Generator[None]:
    """This process's environment without anything that leads to other engines than the embedded ones, for a while."""
    kept = dict(os.environ)
    clean = users_environment()
    try:
        os.environ.clear()
        os.environ.update(clean)
        yield
    finally:
        os.environ.clear()
        os.environ.update(kept)


@contextmanager
def demo_cloud(home: Path | None, tell: Tell) -> Generator[Cloud]:
    """An embedded cloud in `home` (a temporary folder without one), which this process's environment then names.

    Jobs read their settings from the environment: nothing of the user's engines may be left in it.
    """
    with (
        tempfile.TemporaryDirectory(prefix="data-platform-demo-") as temporary,
        own_environment(),
        Cloud(home or Path(temporary)) as cloud,
    ):
        cloud.up(on_progress=tell)
        os.environ.update(cloud.env)
        yield cloud


def run_demo(settings: Settings, tell: Tell, advance: Callable[[str, int, int], None]) -> DemoReport:
    """Load the sample, run every layer, deliver, rebuild, compute the metrics, compare.

    `advance(what, done, of)` is told of progress. Raises PlatformError with the reason when a step fails.
    """
    started = time.monotonic()
    catalog = load_catalog(settings.catalog)
    load_sample(settings, tell=tell)
    definitions = build_defs(settings, catalog=catalog)
    datasets = list(catalog.datasets.values())
    with open_instance(settings) as instance:
        flow = _Flow(settings, catalog, definitions, instance, advance)
        agent = Agent(settings, catalog, list(catalog.domains))
        agent.start()
        try:
            for dataset in datasets:
                flow.run(dataset, [stage for stage in stages_of(dataset) if stage is not Stage.CLICKHOUSE])
            tell("the loader brings the curated objects to ClickHouse as their events arrive")
            if not agent.until_empty(DRAIN_TIMEOUT_S):
                raise PlatformError("the queues did not run empty", hint="data-platform loader status")
        finally:
            agent.stop()
        flow.count_delivered()
        tell("the same partitions are rebuilt from curated S3: nothing may change")
        for dataset in datasets:
            flow.run(dataset, [Stage.CLICKHOUSE])
        flow.count_tables()
        tell("product metrics")
        run_summaries(definitions, instance)
        tell("the CSV drop's event starts a run of its own")
        dropped = run_drops(definitions, instance, wait_s=DRAIN_TIMEOUT_S)
    notices = _publish_notices(settings)
    return DemoReport(
        list(flow.counts.values()),
        _active_users(settings, catalog),
        _drops(settings),
        agent.tally.objects,
        notices,
        flow.runs + 1 + dropped,
        time.monotonic() - started,
    )


@dataclass
class _Flow:
    """The datasets' layers, run as Dagster runs and counted on the way."""

    settings: Settings
    catalog: Catalog
    definitions: "Definitions"
    instance: "DagsterInstance"
    advance: Callable[[str, int, int], None]
    counts: dict[str, DatasetCount] = field(default_factory=dict[str, DatasetCount])
    runs: int = 0

    def run(self, dataset: Dataset, stages: list[Stage]) -> None:
        first, last = days_of(dataset)
        count = self.counts.setdefault(dataset.key, DatasetCount(dataset.key, _source_rows(self.settings, dataset)))
        plan = plan_backfill(self.catalog, self.instance, dataset.key, first=first, last=last, stages=stages)
        what = f"{dataset.key}: {', '.join(stage.value for stage in stages)}"
        total = (len(plan.days) or 1) * len(stages)
        self.advance(what, 0, total)
        done = 0

        def tell(checkpoint: Checkpoint) -> None:
            nonlocal done
            done += 1
            each = count.stages.setdefault(checkpoint.stage, StageCount())
            each.rows += checkpoint.rows
            each.bytes += checkpoint.bytes
            each.partitions += 1
            self.advance(what, done, total)

        require_success(run_backfill(self.definitions, self.catalog, self.instance, plan, tell))
        self.runs += 1

    def count_delivered(self) -> None:
        for key, rows in _table_rows(self.settings, self.catalog).items():
            self.counts[key].delivered_rows = rows

    def count_tables(self) -> None:
        for key, rows in _table_rows(self.settings, self.catalog).items():
            self.counts[key].table_rows = rows


def days_of(dataset: Dataset) -> tuple[date | None, date | None]:
    """The days the demo runs of a dataset; none for a snapshot."""
    if dataset.mode is Mode.SNAPSHOT:
        return None, None
    return (EVENTS_FIRST_DAY if isinstance(dataset.source, OtelLogsSource) else FIRST_DAY), LAST_DAY


def _source_rows(settings: Settings, dataset: Dataset) -> int | None:
    if isinstance(dataset.source, OtelLogsSource):
        return None
    source = dataset.redshift
    sql = f"SELECT count(*) FROM {source.table or f'({source.sql}) AS source'}"
    if source.partition_column is not None:
        sql += f" WHERE {source.partition_column} BETWEEN DATE '{FIRST_DAY}' AND DATE '{LAST_DAY}'"
    with redshift.connect(settings) as connection, connection.cursor() as cursor:
        cursor.execute(sql)
        row = cursor.fetchone()
    return int(row[0]) if row else 0


def _table_rows(settings: Settings, catalog: Catalog) -> dict[str, int]:
    """Rows a reader sees, by dataset."""
    with clickhouse.connect(settings) as client:
        return {
            dataset.key: int(str(client.command(f"SELECT count() FROM {qualified(dataset.domain, dataset.name)}")))
            for dataset in catalog.datasets.values()
        }


def _drops(settings: Settings) -> list[DropCount]:
    """The CSV drops the ledger knows."""
    ledger = postgres.engine(settings, pool_size=1)
    try:
        with ledger.connect() as connection:
            rows = history(connection)
    finally:
        ledger.dispose()
    return [
        DropCount(
            row["key"].rpartition("/")[2],
            row["records"],
            row["inserted"] + row["updated"] + row["unchanged"],
            row["inconsistencies"],
        )
        for row in rows
    ]


def _publish_notices(settings: Settings) -> int:
    """Send the notices of the unloads to Kafka and read them back; returns how many came."""
    ledger = postgres.engine(settings)
    try:
        sent = relay_all(settings, ledger)
    finally:
        ledger.dispose()
    consumer = kafka.consumer(settings, "demo", settings.kafka_unload_topic)
    try:
        received: set[bytes] = set()
        deadline = time.monotonic() + 30
        while len(received) < sent and time.monotonic() < deadline:
            message = consumer.poll(1.0)
            if message is not None and message.error() is None:
                received.add(message.value() or b"")
    finally:
        consumer.close()
    if len(received) != sent:
        raise PlatformError(f"{sent} notices were sent to Kafka, {len(received)} came back")
    return sent


def _active_users(settings: Settings, catalog: Catalog) -> dict[str, list[tuple[date, int, int, float | None]]]:
    found: dict[str, list[tuple[date, int, int, float | None]]] = {}
    with clickhouse.connect(settings) as client:
        for service in catalog.services.values():
            table = qualified("analytics", f"{service.prefix}_mau_summary")
            found[service.name] = [
                (day, dau, mau, stickiness)
                for day, dau, mau, stickiness in client.query(
                    f"SELECT activity_date, dau, mau_30, stickiness FROM {table} "
                    "WHERE activity_date BETWEEN {first:Date} AND {last:Date} ORDER BY activity_date",
                    parameters={"first": FIRST_DAY, "last": LAST_DAY},
                ).result_rows
            ]
    return found
