"""Schedules by real ticks on Dagster instances: what is asked for, what is left alone, what a repeated tick does."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from data_platform.assets.keys import Stage, stage_key, stages_of
from data_platform.assets.outcomes import DayOutcome, Outcome
from data_platform.assets.repair import Repair
from data_platform.build import build_defs
from data_platform.catalog.models import Dataset
from data_platform.errors import ConfigurationError, Fault
from data_platform.jobs.lookback import MAX_RUNS, Need, Reason, contiguous, last_days, ranges_of, run_key
from data_platform.resources.settings import SettingsResource
from data_platform.settings import Settings
from tests.desk.conftest import QUIET, RANGE, catalog_of, dataset_of

pytestmark = pytest.mark.unit
TICK = datetime(2024, 3, 10, 1, tzinfo=UTC)
WEEK = tuple(f"2024-03-0{n}" for n in range(3, 10))
ORDERS, RETURNS = dataset_of("orders"), dataset_of("returns")
REPAIR = Repair("market_daily_schedule", 1, 7)


class Broken(SettingsResource):
    """A platform whose runs fail before they do anything."""

    def load(self) -> Settings:
        raise ConfigurationError("no settings here")


def definitions(*datasets: Dataset, **settings: Any) -> dg.Definitions:
    return build_defs(
        Settings(**settings), catalog=catalog_of(*datasets or (ORDERS,)), overrides={"platform": Broken()}
    )


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.local_temp(str(tmp_path)) as found:
        yield found


def tick(
    instance: dg.DagsterInstance, defs: dg.Definitions, at: datetime = TICK, name: str = "market_daily_schedule"
) -> list[dg.RunRequest]:
    repository = defs.get_repository_def()
    with dg.build_schedule_context(
        instance=instance, repository_def=repository, scheduled_execution_time=at
    ) as context:
        return list(repository.get_schedule_def(name).evaluate_tick(context).run_requests or [])


def made(instance: dg.DagsterInstance, *days: str, stages: tuple[Stage, ...] = tuple(Stage)) -> None:
    for stage in stages:
        for day in days:
            instance.report_runless_asset_event(dg.AssetMaterialization(stage_key(stage, ORDERS), partition=day))


def fail(instance: dg.DagsterInstance, first: str, last: str, *stages: Stage) -> None:
    result = (
        definitions()
        .resolve_job_def("market_daily")
        .execute_in_process(
            instance=instance,
            run_config=QUIET,
            tags=dict(zip(RANGE, (first, last), strict=True)),
            asset_selection=[stage_key(stage, ORDERS) for stage in stages or tuple(Stage)],
            raise_on_error=False,
        )
    )
    assert not result.success


def observe(instance: dg.DagsterInstance, day: str, fault: Fault, stage: Stage = Stage.UNLOAD) -> None:
    outcome = DayOutcome(Outcome.FAILED, fault, "because", "then")
    instance.report_runless_asset_event(outcome.observation(stage_key(stage, ORDERS), day, REPAIR))


def spans(requests: list[dg.RunRequest]) -> list[tuple[str, str]]:
    return [(request.tags[RANGE[0]], request.tags[RANGE[1]]) for request in requests]


def test_days_that_were_never_made_are_one_run_for_all_datasets_of_the_job(instance: dg.DagsterInstance) -> None:
    requests = tick(instance, definitions(ORDERS, RETURNS))
    assert spans(requests) == [(WEEK[0], WEEK[-1])]
    wanted = {stage_key(stage, dataset) for dataset in (ORDERS, RETURNS) for stage in stages_of(dataset)}
    assert set(requests[0].asset_selection or ()) == wanted
    assert requests[0].tags["data_platform/reason"] == "missing, new day"


def test_a_tick_that_is_evaluated_twice_asks_for_the_same_runs(instance: dg.DagsterInstance) -> None:
    first, second = tick(instance, definitions()), tick(instance, definitions())
    assert [each.run_key for each in first] == [each.run_key for each in second]
    later = tick(instance, definitions(), TICK.replace(day=11))
    assert not {each.run_key for each in first} & {each.run_key for each in later}


def test_nothing_is_asked_for_when_nothing_is_needed(instance: dg.DagsterInstance) -> None:
    made(instance, *WEEK)
    assert tick(instance, definitions()) == []


def test_gaps_are_filled_and_made_days_left_alone(instance: dg.DagsterInstance) -> None:
    made(instance, WEEK[0], WEEK[2], WEEK[3], WEEK[6])
    assert spans(tick(instance, definitions())) == [(WEEK[4], WEEK[5]), (WEEK[1], WEEK[1])]


def test_a_later_layer_follows_an_earlier_one_that_is_newer(instance: dg.DagsterInstance) -> None:
    made(instance, *WEEK)
    made(instance, WEEK[3], stages=(Stage.UNLOAD,))
    requests = tick(instance, definitions())
    assert spans(requests) == [(WEEK[3], WEEK[3])]
    assert requests[0].asset_selection == [stage_key(stage, ORDERS) for stage in (Stage.CURATED, Stage.CLICKHOUSE)]
    assert requests[0].tags["data_platform/reason"] == Reason.OUTDATED


@pytest.mark.parametrize("fault", [Fault.PERMANENT, Fault.CONFIGURATION, Fault.UNKNOWN])
def test_a_day_that_failed_for_good_waits_for_a_person(instance: dg.DagsterInstance, fault: Fault) -> None:
    made(instance, *WEEK[:-1])
    fail(instance, WEEK[-1], WEEK[-1])
    observe(instance, WEEK[-1], fault)
    assert tick(instance, definitions()) == []


@pytest.mark.parametrize("fault", [Fault.TRANSIENT, Fault.THROTTLED, None])
def test_a_day_whose_failure_may_pass_is_made_again(instance: dg.DagsterInstance, fault: Fault | None) -> None:
    made(instance, *WEEK)
    fail(instance, WEEK[2], WEEK[3], Stage.CURATED, Stage.CLICKHOUSE)
    if fault is not None:
        observe(instance, WEEK[2], fault, Stage.CURATED)
        observe(instance, WEEK[3], Fault.PERMANENT, Stage.CURATED)
    requests = tick(instance, definitions())
    assert spans(requests) == [(WEEK[2], WEEK[2] if fault else WEEK[3])]
    assert requests[0].asset_selection == [stage_key(stage, ORDERS) for stage in (Stage.CURATED, Stage.CLICKHOUSE)]


def test_a_newer_success_forgets_an_old_failure(instance: dg.DagsterInstance) -> None:
    fail(instance, WEEK[0], WEEK[0])
    observe(instance, WEEK[0], Fault.PERMANENT)
    made(instance, *WEEK)
    assert tick(instance, definitions()) == []


def test_a_day_that_is_being_made_is_left_alone(instance: dg.DagsterInstance) -> None:
    made(instance, *WEEK[:-1])
    instance.create_run_for_job(
        job_def=definitions().resolve_job_def("market_daily"),
        status=dg.DagsterRunStatus.STARTED,
        tags=dict(zip(RANGE, (WEEK[-1], WEEK[-1]), strict=True)),
    )
    assert tick(instance, definitions()) == []


def test_lookback_ends_at_the_dataset_s_own_days_and_at_the_settings() -> None:
    assert last_days(ORDERS, TICK, 7) == WEEK
    assert last_days(ORDERS, TICK, 2) == WEEK[-2:]
    assert last_days(dataset_of("a", start="2024-03-08"), TICK, 7) == WEEK[-2:]
    assert last_days(dataset_of("a", end="2024-03-04"), TICK, 7) == WEEK[:2]
    assert last_days(dataset_of("a", end="2024-01-31"), TICK, 7) == ()


def test_no_tick_asks_for_more_runs_than_the_bound() -> None:
    days = [f"2024-{month:02}-{day:02}" for month in (1, 2, 3) for day in range(1, 28, 2)]
    ranges = ranges_of(Need(ORDERS, day, tuple(Stage), Reason.MISSING) for day in days)
    assert len(days) > MAX_RUNS
    assert [each.last for each in ranges] == sorted(days, reverse=True)[:MAX_RUNS], "the newest first"


def test_ranges_have_no_holes() -> None:
    assert contiguous(["2024-02-29", "2024-03-01", "2024-03-03", "2024-02-28"]) == [
        ("2024-02-28", "2024-03-01"),
        ("2024-03-03", "2024-03-03"),
    ]


def test_run_keys_are_short_and_depend_on_every_part() -> None:
    assert len(run_key("a" * 10_000)) == 32
    assert len({run_key("a", "bc"), run_key("ab", "c"), run_key("abc")}) == 3


def test_dev_starts_nothing_by_itself() -> None:
    repository = definitions().get_repository_def()
    stopped = {each.default_status for each in repository.schedule_defs} | {
        each.default_status for each in repository.sensor_defs
    }
    assert stopped == {dg.DefaultScheduleStatus.STOPPED, dg.DefaultSensorStatus.STOPPED}


def test_only_what_the_settings_name_starts() -> None:
    repository = definitions(schedules="standing_checks_schedule").get_repository_def()
    running = [s.name for s in repository.schedule_defs if s.default_status is dg.DefaultScheduleStatus.RUNNING]
    assert running == ["standing_checks_schedule"]
    with pytest.raises(ConfigurationError, match="market_daly_schedule"):
        definitions(schedules="market_daly_schedule")


def test_standing_checks_are_asked_by_their_own_job_only() -> None:
    repository = definitions().get_repository_def()
    steps = {
        name: {node.name for node in repository.get_job(name).nodes} for name in ("market_daily", "standing_checks")
    }
    assert steps == {"market_daily": {"market__orders"}, "standing_checks": {"market__standing_checks"}}
