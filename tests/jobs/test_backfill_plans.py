"""What a backfill will do: its days, what an unfinished one has done already, what cannot be asked for."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.events import DagsterEvent, StepMaterializationData

from data_platform.assets.keys import Stage, stage_key
from data_platform.catalog import Catalog
from data_platform.errors import ConfigurationError
from data_platform.jobs.backfill import BACKFILL_TAG, RESUMES_TAG, BackfillPlan, plan_backfill
from data_platform.jobs.estimates import estimated_bytes
from data_platform.jobs.processes import HOST_TAG, PROCESS_TAG, end_abandoned, process_tags
from tests.flow import dataset_entry, day, write_catalog

pytestmark = pytest.mark.unit
TODAY = datetime.now(UTC).date()


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    entries: list[dict[str, Any]] = [
        dataset_entry("shop", "items"),
        dataset_entry("shop", "open", end=None),
        dataset_entry("shop", "plans", mode="snapshot"),
    ]
    return write_catalog(tmp_path_factory.mktemp("catalog"), "shop", entries)


def plan(
    catalog: Catalog, instance: dg.DagsterInstance, name: str = "items", *days: int, **options: Any
) -> BackfillPlan:
    first, last = (day(days[0]), day(days[-1])) if days else (None, None)
    return plan_backfill(catalog, instance, f"shop/{name}", first=first, last=last, **options)


def ran(
    instance: dg.DagsterInstance,
    plan: BackfillPlan,
    done: list[tuple[Stage, int]],
    *,
    status: dg.DagsterRunStatus = dg.DagsterRunStatus.FAILURE,
    tags: dict[str, str] | None = None,
) -> str:
    """Write a run of the plan that has done this much into the instance."""
    resumes = {} if plan.resumes is None else {RESUMES_TAG: plan.resumes}
    run = dg.DagsterRun("job", tags={BACKFILL_TAG: plan.tag, **resumes, **(tags or {})}, status=status)
    instance.add_run(run)
    for stage, number in done:
        materialization = dg.AssetMaterialization(stage_key(stage, plan.dataset), partition=str(day(number)))
        data = StepMaterializationData(materialization)
        event = DagsterEvent(dg.DagsterEventType.ASSET_MATERIALIZATION.value, "job", event_specific_data=data)
        instance.report_dagster_event(event, run_id=run.run_id)
    return run.run_id


def all_stages(*numbers: int) -> list[tuple[Stage, int]]:
    return [(stage, number) for number in numbers for stage in Stage]


def test_a_plan_is_every_day_both_ends_included(catalog: Catalog, instance: dg.DagsterInstance) -> None:
    planned = plan(catalog, instance, "items", 58, 61)
    assert planned.days == ("2024-02-28", "2024-02-29", "2024-03-01", "2024-03-02")
    assert (planned.remaining, planned.resumes) == (planned.days, None)
    assert planned.stages == (Stage.UNLOAD, Stage.CURATED, Stage.CLICKHOUSE)


def test_a_snapshot_has_no_days(catalog: Catalog, instance: dg.DagsterInstance) -> None:
    planned = plan(catalog, instance, "plans")
    assert (planned.days, planned.remaining) == ((), ())


def test_layers_are_done_in_their_order_whatever_the_order_of_asking(
    catalog: Catalog, instance: dg.DagsterInstance
) -> None:
    asked = [Stage.CLICKHOUSE, Stage.UNLOAD]
    assert plan(catalog, instance, "items", 0, stages=asked).stages == (Stage.UNLOAD, Stage.CLICKHOUSE)


@pytest.mark.parametrize(
    ("key", "options", "reason"),
    [
        ("shop/itms", {}, "no dataset 'shop/itms' in the catalogue.*items"),
        ("shop", {}, "no dataset 'shop'"),
        ("shop/items", {"first": None, "last": None}, "is daily: name its days"),
        ("shop/items", {"last": None}, "is daily: name its days"),
        ("shop/items", {"first": day(3), "last": day(2)}, "is before --from"),
        (
            "shop/items",
            {"first": date(2023, 12, 31)},
            r"not within .* of shop/items: 2024-01-01\.\.2024-12-31",
        ),
        ("shop/items", {"last": date(2025, 1, 1)}, "is not within the days"),
        ("shop/open", {"last": TODAY}, rf"2024-01-01\.\.{TODAY - timedelta(days=1)}"),
        ("shop/open", {"first": date(2999, 1, 1), "last": date(2999, 1, 2)}, "is not within the days"),
        ("shop/plans", {}, "is a snapshot and has no days"),
    ],
)
def test_what_cannot_be_done_is_refused_with_the_reason(
    catalog: Catalog, instance: dg.DagsterInstance, key: str, options: dict[str, Any], reason: str
) -> None:
    asked: dict[str, Any] = {"first": day(0), "last": day(1), **options}
    with pytest.raises(ConfigurationError, match=reason):
        plan_backfill(catalog, instance, key, **asked)


def test_a_layer_the_dataset_lacks_is_refused(instance: dg.DagsterInstance, settings_catalog: Catalog) -> None:
    with pytest.raises(ConfigurationError, match="has no layer unload") as caught:
        plan_backfill(
            settings_catalog, instance, "analytics/events", first=date(2013, 1, 1), last=date(2013, 1, 1),
            stages=[Stage.UNLOAD],
        )  # fmt: skip
    assert caught.value.hint == "its layers: curated, clickhouse"


def test_an_interrupted_run_is_taken_up_where_it_ended(catalog: Catalog, instance: dg.DagsterInstance) -> None:
    first = plan(catalog, instance, "items", 0, 4)
    run_id = ran(instance, first, [*all_stages(0, 1), (Stage.UNLOAD, 2), (Stage.CURATED, 2)])
    again = plan(catalog, instance, "items", 0, 4)
    assert again.resumes == run_id
    assert again.remaining == tuple(str(day(n)) for n in (2, 3, 4))  # of day 2 the last layer is missing


def test_a_run_that_ended_behind_its_last_day_has_that_day_left(catalog: Catalog, instance: dg.DagsterInstance) -> None:
    """A run over no days is no run at all: Dagster refuses it."""
    run_id = ran(instance, plan(catalog, instance, "items", 0, 2), all_stages(0, 1, 2))
    again = plan(catalog, instance, "items", 0, 2)
    assert (again.resumes, again.remaining) == (run_id, (str(day(2)),))


def test_every_kill_is_remembered_not_only_the_last(catalog: Catalog, instance: dg.DagsterInstance) -> None:
    ran(instance, plan(catalog, instance, "items", 0, 4), all_stages(0, 1))
    ran(instance, plan(catalog, instance, "items", 0, 4), all_stages(2))
    ran(instance, plan(catalog, instance, "items", 0, 4), [])
    assert plan(catalog, instance, "items", 0, 4).remaining == (str(day(3)), str(day(4)))


def test_a_restart_forgets_what_was_done_before_it(catalog: Catalog, instance: dg.DagsterInstance) -> None:
    ran(instance, plan(catalog, instance, "items", 0, 2), all_stages(0, 1))
    restarted = plan(catalog, instance, "items", 0, 2, restart=True)
    assert (restarted.remaining, restarted.resumes) == (restarted.days, None)
    ran(instance, restarted, all_stages(2))
    assert plan(catalog, instance, "items", 0, 2).remaining == (str(day(0)), str(day(1)))


def test_a_finished_backfill_is_done_again(catalog: Catalog, instance: dg.DagsterInstance) -> None:
    first = plan(catalog, instance, "items", 0, 2)
    ran(instance, first, all_stages(0), status=dg.DagsterRunStatus.FAILURE)
    ran(instance, plan(catalog, instance, "items", 0, 2), all_stages(1, 2), status=dg.DagsterRunStatus.SUCCESS)
    assert plan(catalog, instance, "items", 0, 2).remaining == first.days


def test_another_range_or_other_layers_are_another_backfill(catalog: Catalog, instance: dg.DagsterInstance) -> None:
    ran(instance, plan(catalog, instance, "items", 0, 2), all_stages(0, 1, 2))
    assert plan(catalog, instance, "items", 0, 3).done == frozenset()
    assert plan(catalog, instance, "items", 0, 2, stages=[Stage.CURATED]).done == frozenset()


def test_a_backfill_that_is_running_is_not_run_twice(catalog: Catalog, instance: dg.DagsterInstance) -> None:
    ran(instance, plan(catalog, instance, "items", 0), [], status=dg.DagsterRunStatus.STARTED, tags=process_tags())
    with pytest.raises(ConfigurationError, match="is running already"):
        plan(catalog, instance, "items", 0)


def test_a_run_whose_process_is_gone_is_ended_and_resumed(catalog: Catalog, instance: dg.DagsterInstance) -> None:
    dead = {HOST_TAG: process_tags()[HOST_TAG], PROCESS_TAG: "4194304/1"}  # above the highest process id there is
    reused = {HOST_TAG: process_tags()[HOST_TAG], PROCESS_TAG: f"{process_tags()[PROCESS_TAG].partition('/')[0]}/1"}
    started = dg.DagsterRunStatus.STARTED
    first = ran(instance, plan(catalog, instance, "items", 0, 1), all_stages(0), status=started, tags=dead)
    resumed = plan(catalog, instance, "items", 0, 1)
    assert (resumed.resumes, resumed.remaining) == (first, (str(day(1)),))
    second = ran(instance, resumed, [], status=started, tags=reused)
    assert end_abandoned(instance) == [second]
    for run_id in (first, second):
        run = instance.get_run_by_id(run_id)
        assert run is not None
        assert run.status is dg.DagsterRunStatus.FAILURE


def test_a_run_elsewhere_is_left_alone(catalog: Catalog, instance: dg.DagsterInstance) -> None:
    tags = {HOST_TAG: "another-host", PROCESS_TAG: "1/1"}
    run_id = ran(instance, plan(catalog, instance, "items", 0), [], status=dg.DagsterRunStatus.STARTED, tags=tags)
    assert plan(catalog, instance, "items", 0).resumes == run_id
    run = instance.get_run_by_id(run_id)
    assert run is not None
    assert run.status is dg.DagsterRunStatus.STARTED


@pytest.fixture
def settings_catalog() -> Catalog:
    from data_platform.catalog import load_catalog

    return load_catalog(Path(__file__).resolve().parents[2] / "catalog")


def test_a_plan_tells_its_partitions_and_the_bytes_they_will_come_to(
    catalog: Catalog, instance: dg.DagsterInstance
) -> None:
    wanted = plan(catalog, instance, "items", 5, 8)
    assert wanted.partitions == 12
    assert set(estimated_bytes(instance, wanted).values()) == {None}, "nothing was made before"
    key = stage_key(Stage.CURATED, wanted.dataset)
    for number, size in ((1, 100), (2, 300)):
        metadata = {"bytes": dg.MetadataValue.int(size)}
        instance.report_runless_asset_event(dg.AssetMaterialization(key, partition=str(day(number)), metadata=metadata))
    assert estimated_bytes(instance, wanted) == {Stage.UNLOAD: None, Stage.CURATED: 800, Stage.CLICKHOUSE: None}
