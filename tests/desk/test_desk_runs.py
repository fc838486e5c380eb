"""Which runs carry which tags, which jobs a sensor may start, what a run from an asset's page asks beside it."""

from collections.abc import Callable
from datetime import date
from typing import Any

import dagster as dg
import pytest

from data_platform.assets.keys import DATASET_TAG, Stage, stage_key
from data_platform.build import build_defs
from data_platform.jobs.backfill import plan_backfill, run_backfill
from data_platform.resources.settings import SettingsResource
from data_platform.settings import Settings
from tests.desk.conftest import QUIET, catalog_of, dataset_of, platform_of

ORDERS, RETURNS, CLOSED = dataset_of("orders"), dataset_of("returns"), dataset_of("closed", end="2024-01-31")


class Idle(SettingsResource):
    """A platform that cannot be reached: runs plan everything and do nothing."""

    def load(self) -> Settings:
        raise RuntimeError("no engines here")


def tags_of(defs: dg.Definitions) -> dict[str, str | None]:
    repository = defs.get_repository_def()
    names = [name for name in repository.job_names if name.startswith("market_daily")]
    return {name: repository.get_job(name).tags.get(DATASET_TAG) for name in names}


@pytest.mark.unit
def test_a_job_with_one_dataset_tags_its_runs_wherever_they_are_launched() -> None:
    assert tags_of(build_defs(Settings(), catalog=catalog_of(ORDERS))) == {"market_daily": "market/orders"}
    both = tags_of(build_defs(Settings(), catalog=catalog_of(ORDERS, RETURNS, CLOSED)))
    assert both == {"market_daily_orders": None, "market_daily_closed": "market/closed"}


@pytest.mark.unit
@pytest.mark.parametrize(
    ("schedules", "started"),
    [
        ("none", {"market_daily_orders", "market_daily_closed"}),
        ("all", {"market_daily_orders", "market_daily_closed"}),
        ("source_changes", {"market_daily_orders", "market_daily_closed"}),
        ("source_changes,market_daily_orders_schedule", {"market_daily_orders"}),
    ],
)
def test_a_site_that_schedules_some_jobs_lets_sensors_start_no_others(schedules: str, started: set[str]) -> None:
    defs = build_defs(Settings(schedules=schedules), catalog=catalog_of(ORDERS, RETURNS, CLOSED))
    sensor = defs.resolve_sensor_def("source_changes")
    assert {job.name for job in sensor.jobs} == started


@pytest.mark.unit
def test_a_partition_made_from_an_asset_s_page_asks_the_checks_of_that_table_alone() -> None:
    defs = build_defs(Settings(), catalog=catalog_of(ORDERS, RETURNS), overrides={"platform": Idle()})
    with dg.DagsterInstance.ephemeral() as instance:
        result = defs.resolve_implicit_global_asset_job_def().execute_in_process(
            instance=instance,
            run_config=QUIET,
            partition_key="2024-02-01",
            asset_selection=[stage_key(stage, ORDERS) for stage in Stage],
            raise_on_error=False,
        )
        run = instance.get_run_by_id(result.run_id)
        asked = instance.all_logs(result.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED)
        keys = {each.dagster_event.event_specific_data.asset_key for each in asked if each.dagster_event}
    assert keys == {stage_key(stage, ORDERS) for stage in Stage}
    assert run is not None
    assert run.tags[DATASET_TAG] == "market/orders", "runs that are queued behind it know what it works on"


@pytest.mark.integration
def test_a_backfill_by_command_is_known_as_one_of_its_dataset(desk: Callable[..., Any]) -> None:
    orders = desk("orders_tagged")
    orders.put("2024-01-01", (1, 1))
    catalog = catalog_of(orders.dataset)
    defs = build_defs(orders.settings, catalog=catalog, overrides={"platform": platform_of(orders.settings)})
    day = date(2024, 1, 1)
    plan = plan_backfill(catalog, orders.instance, orders.dataset.key, first=day, last=day)
    result = run_backfill(defs, catalog, orders.instance, plan)
    assert result.success, result.reason
    run = orders.instance.get_run_by_id(result.run_id)
    assert run.tags[DATASET_TAG] == "market/orders_tagged"
