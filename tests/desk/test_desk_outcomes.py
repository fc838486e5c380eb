"""A day that is not made: held back or failed, who may try again, and what the standing checks say of it."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import pytest

from data_platform.assets.keys import Stage, stage_key
from data_platform.assets.outcomes import finished_partitions, stop_retries, worst
from data_platform.assets.standing import failed_partitions
from data_platform.errors import Fault, PlatformError, TransientError
from data_platform.quality.standing import expected_days, judge_failed, judge_latest
from tests.desk.conftest import QUIET, dataset_of

READY = "SELECT count(*) > 0 FROM desk.orders_ready WHERE day = :day"


@pytest.mark.integration
def test_a_day_whose_source_is_not_complete_is_held_back_and_fails_nothing(desk: Callable[..., Any]) -> None:
    source = {"table": "desk.orders_ready", "partition_column": "day", "ready": READY}
    orders = desk("orders_ready", source=source)
    orders.put("2024-01-01", (1, 1))
    result = orders.run("2024-01-01", "2024-01-02")
    assert result.success
    assert orders.made(Stage.CLICKHOUSE) == {"2024-01-01"}
    (observed,) = orders.observations(result.run_id).values()
    assert (observed["outcome"], observed["fault"]) == ("held back", "throttled")
    assert "waits for its source" in observed["reason"]


@pytest.mark.integration
def test_one_failing_day_costs_only_itself_and_stops_every_retry(desk: Callable[..., Any]) -> None:
    broken = desk("orders_broken_2", columns=[
        {"name": "day", "type": "Date"}, {"name": "id", "type": "Int64"}, {"name": "amount", "type": "Int32"},
    ])  # fmt: skip
    broken.put("2024-01-01", (1, 1))
    broken.put("2024-01-02", (1, None))
    broken.put("2024-01-03", (3, 3))
    begun = time.monotonic()
    result = broken.run("2024-01-01", "2024-01-03")
    assert not result.success
    assert broken.made(Stage.CLICKHOUSE) == {"2024-01-01", "2024-01-03"}
    observed = broken.observations(result.run_id)
    assert set(observed) == {"2024-01-02"}
    assert observed["2024-01-02"]["fault"] == "permanent"
    assert "amount" in observed["2024-01-02"]["reason"]
    run = broken.instance.get_run_by_id(result.run_id)
    assert run.tags["dagster/max_retries"] == "0"
    assert run.tags["data_platform/fault"] == "permanent"
    steps = broken.instance.all_logs(result.run_id, of_type=dg.DagsterEventType.STEP_RESTARTED)
    assert not list(steps), "the op's own retry is stopped as well"
    assert time.monotonic() - begun < 60
    left = failed_partitions(broken.instance, broken.dataset)
    assert set(left) == {"2024-01-02"}
    finding = judge_failed(broken.dataset, left)
    assert "data-platform backfill market/orders_broken_2 --from 2024-01-02 --to 2024-01-02" in finding.step
    assert observed["2024-01-02"]["reason"] in finding.sentence


@pytest.mark.integration
def test_the_standing_checks_ask_the_stores_not_the_events(desk: Callable[..., Any]) -> None:
    yesterday = (datetime.now(UTC) - timedelta(days=1)).date().isoformat()
    orders = desk("orders_due", freshness_hours=0.001)
    key = stage_key(Stage.CLICKHOUSE, orders.dataset)
    # Freshness by events would be green: the newest event is a moment old.
    orders.instance.report_runless_asset_event(dg.AssetMaterialization(key, partition=yesterday))
    assert not _standing(orders)["latest_day_is_there"].passed
    orders.put(yesterday, (1, 1))
    assert orders.run(yesterday, yesterday).success
    found = _standing(orders)
    assert found["latest_day_is_there"].passed, found["latest_day_is_there"].description
    assert found["no_partition_left_failed"].passed


@pytest.mark.unit
def test_what_is_owed_follows_freshness_start_and_end() -> None:
    now = datetime(2024, 3, 10, 6, tzinfo=UTC)
    daily = dataset_of("o", freshness_hours=5)
    assert [str(day) for day in expected_days(daily, now, default_hours=36)] == ["2024-03-09"]
    assert [str(day) for day in expected_days(dataset_of("o"), now, default_hours=36)] == ["2024-03-07"]
    assert [str(day) for day in expected_days(dataset_of("o", end="2024-02-01"), now, default_hours=36)] == [
        "2024-02-01"
    ]
    assert expected_days(dataset_of("o", start="2024-03-09"), now, default_hours=36) == ()
    assert judge_latest(daily, (), {}).passed
    missing = judge_latest(daily, expected_days(daily, now, default_hours=36), {})
    assert "data-platform backfill market/o --from 2024-03-09 --to 2024-03-09" in missing.step


@pytest.mark.unit
def test_a_failure_that_must_not_be_repeated_outweighs_those_that_may() -> None:
    assert worst([Fault.TRANSIENT, Fault.PERMANENT, Fault.THROTTLED]) is Fault.PERMANENT
    assert worst([Fault.THROTTLED, Fault.UNKNOWN]) is Fault.UNKNOWN
    assert worst([Fault.TRANSIENT, Fault.THROTTLED]) is Fault.TRANSIENT


@pytest.mark.unit
@pytest.mark.parametrize(
    ("error", "retries"), [(PlatformError("broken"), "0"), (TransientError("away"), "1"), (KeyError("bug"), "0")]
)
def test_any_job_s_failure_tells_the_run_retries_daemon(error: Exception, retries: str) -> None:
    @dg.op
    def fails() -> None:
        raise error

    @dg.job(hooks={stop_retries})
    def job() -> None:
        fails()

    with dg.DagsterInstance.ephemeral() as instance:
        result = job.execute_in_process(instance=instance, run_config=QUIET, raise_on_error=False)
        run = instance.get_run_by_id(result.run_id)
        assert run is not None
        assert run.tags["dagster/max_retries"] == retries
        assert (run.tags.get("dagster/retry_on_asset_or_op_failure") == "true") == (retries == "1")


@pytest.mark.unit
def test_a_retry_leaves_finished_days_alone_and_a_person_s_re_execution_does_all_again() -> None:
    key = dg.AssetKey("a")

    @dg.op
    def makes(context: dg.OpExecutionContext) -> None:
        context.log_event(dg.AssetMaterialization(key, partition="2024-01-01"))

    @dg.job
    def job() -> None:
        makes()

    with dg.DagsterInstance.ephemeral() as instance:
        first = job.execute_in_process(instance=instance, run_config=QUIET).run_id
        parent = instance.get_run_by_id(first)
        assert parent is not None
        resumed = instance.create_run_for_job(
            job, tags={"dagster/is_resume_retry": "true"}, parent_run_id=first, root_run_id=first
        )
        again = instance.create_run_for_job(job, parent_run_id=first, root_run_id=first)
        assert finished_partitions(instance, resumed, again=False) == {(key, "2024-01-01")}
        assert finished_partitions(instance, again, again=False) == set()
        assert finished_partitions(instance, parent, again=True) == {(key, "2024-01-01")}


def _standing(orders: Any) -> dict[str, Any]:
    result = orders.definitions.resolve_job_def("standing_checks").execute_in_process(
        instance=orders.instance, run_config=QUIET
    )
    return {check.check_name: check for check in result.get_asset_check_evaluations()}
