"""A small catalogue of its own on the embedded cloud, with source tables that tests change, and Dagster instances."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import dagster as dg
import pytest

from data_platform.assets.keys import Stage, stage_key, stages_of
from data_platform.build import build_defs
from data_platform.catalog import Catalog, ddl
from data_platform.catalog.models import Dataset
from data_platform.clients import clickhouse, postgres, redshift
from data_platform.ledger import migrate
from data_platform.resources.settings import SettingsResource
from data_platform.settings import Settings

QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
RANGE = ("dagster/asset_partition_range_start", "dagster/asset_partition_range_end")
DOMAIN = {
    "name": "market",
    "description": "Orders.",
    "owner": "team:market-data",
    "priority": "high",
    "batch": {"min": 1, "max": 5},
    "peak_messages_per_hour": 10,
    "mean_file_mb": 1,
    "memory_mb": 64,
}


def dataset_of(name: str, **changes: Any) -> Dataset:
    """A daily dataset `market/<name>` of orders, read from the Redshift table `desk.<name>`."""
    return Dataset.model_validate(
        {
            "name": name,
            "domain": "market",
            "description": "One order.",
            "owner": "team:market-data",
            "source": {"table": f"desk.{name}", "partition_column": "day"},
            "start": "2024-01-01",
            "columns": [
                {"name": "day", "type": "Date"},
                {"name": "id", "type": "Int64"},
                {"name": "amount", "type": "Int32", "nullable": True},
            ],
            "order_by": ["id"],
            **changes,
        }
    )


def catalog_of(*datasets: Dataset) -> Catalog:
    """A catalogue of these datasets in the domain `market`."""
    from data_platform.catalog.models import Domain

    return Catalog({dataset.key: dataset for dataset in datasets}, {"market": Domain.model_validate(DOMAIN)}, {}, {})


def platform_of(settings: Settings) -> SettingsResource:
    """The settings resource, whatever this process's environment says."""

    class Fixed(SettingsResource):
        def load(self) -> Settings:
            return settings

    return Fixed()


@dataclass
class Desk:
    """A dataset with its source table, its ClickHouse table, an instance and the definitions around it."""

    settings: Settings
    dataset: Dataset
    instance: dg.DagsterInstance
    definitions: dg.Definitions

    def sql(self, *statements: str) -> list[Any]:
        """Run statements in Redshift; the rows of the last."""
        rows: list[Any] = []
        with redshift.connect(self.settings) as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
                rows = list(cursor.fetchall()) if cursor.description else []
        return rows

    def put(self, day: str, *rows: tuple[int, int | None]) -> None:
        """Make `rows` (id, amount) the day's rows at the source."""
        values = ", ".join(f"(DATE '{day}', {i}, {'NULL' if amount is None else amount})" for i, amount in rows)
        self.sql(f"DELETE FROM desk.{self.dataset.name} WHERE day = DATE '{day}'")
        if rows:
            self.sql(f"INSERT INTO desk.{self.dataset.name} VALUES {values}")

    def run(self, first: str, last: str, *stages: Stage, tags: dict[str, str] | None = None) -> Any:
        """Run layers (default: all) of a range of days in this process."""
        return self.definitions.resolve_job_def("market_daily").execute_in_process(
            instance=self.instance,
            run_config=QUIET,
            asset_selection=[stage_key(stage, self.dataset) for stage in stages or stages_of(self.dataset)],
            tags={**dict(zip(RANGE, (first, last), strict=True)), **(tags or {})},
            raise_on_error=False,
        )

    def checks(self, run_id: str) -> dict[tuple[str, str | None], Any]:
        """The evaluations of a run by (check, partition)."""
        found: dict[tuple[str, str | None], Any] = {}
        for record in self.instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION):
            assert record.dagster_event is not None
            evaluation = record.dagster_event.event_specific_data
            found[evaluation.check_name, evaluation.partition] = evaluation
        return found

    def observations(self, run_id: str) -> dict[str, dict[str, str]]:
        """What was observed of each partition in a run."""
        found: dict[str, dict[str, str]] = {}
        for record in self.instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_OBSERVATION):
            event = record.asset_observation
            assert event is not None
            found[event.partition or ""] = {name: str(value.value) for name, value in event.metadata.items()}
        return found

    def made(self, stage: Stage) -> set[str]:
        """The materialised partitions of a layer."""
        return set(self.instance.get_materialized_partitions(stage_key(stage, self.dataset)))

    def loaded(self, day: str) -> int:
        """Rows of a day in ClickHouse."""
        with clickhouse.connect(self.settings) as client:
            table = ddl.qualified(self.dataset.domain, self.dataset.storage_name)
            answer = client.query(f"SELECT count() FROM {table} WHERE _ds = {{ds:Date}}", parameters={"ds": day})
            return int(answer.result_rows[0][0])


@pytest.fixture
def desk(cloud: Any, request: pytest.FixtureRequest) -> Iterator[Callable[..., Desk]]:
    """Call it with changes to the dataset for a desk of its own; tables are dropped at the end."""
    settings: Settings = cloud.settings
    ledger = postgres.engine(settings)
    migrate(ledger)
    ledger.dispose()
    made: list[Dataset] = []
    instances: list[dg.DagsterInstance] = []

    def make(name: str, **changes: Any) -> Desk:
        dataset = dataset_of(name, **changes)
        instance = dg.DagsterInstance.ephemeral()
        definitions = build_defs(settings, catalog=catalog_of(dataset), overrides={"platform": platform_of(settings)})
        one = Desk(settings, dataset, instance, definitions)
        one.sql(
            "CREATE SCHEMA IF NOT EXISTS desk",
            f"DROP TABLE IF EXISTS desk.{name}",
            f"CREATE TABLE desk.{name} (day DATE, id BIGINT, amount INTEGER)",
        )
        with clickhouse.connect(settings) as client:
            client.command(f"DROP TABLE IF EXISTS {ddl.qualified(dataset.domain, name)} SYNC")
            for statement in (ddl.database_ddl(dataset.domain), *ddl.statements(dataset)):
                client.command(statement)
        made.append(dataset)
        instances.append(instance)
        return one

    yield make
    for instance in instances:
        instance.dispose()
    with clickhouse.connect(settings) as client:
        for dataset in made:
            client.command(f"DROP TABLE IF EXISTS {ddl.qualified(dataset.domain, dataset.storage_name)} SYNC")
            client.command(
                "ALTER TABLE platform.partitions DELETE WHERE table = {t:String} SETTINGS mutations_sync = 1",
                parameters={"t": dataset.name},
            )
