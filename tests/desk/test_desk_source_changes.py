"""Restated and completed days, found by real ticks against the embedded warehouse; crashes between every two steps."""

import random
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import pytest

from data_platform.assets.keys import Stage, stage_key
from data_platform.build import build_defs
from data_platform.errors import TransientError
from data_platform.sensors.restated import in_turn, restated_sensor
from tests.desk.conftest import catalog_of, dataset_of, platform_of

YESTERDAY, DAY_BEFORE = ((datetime.now(UTC) - timedelta(days=n)).date().isoformat() for n in (1, 2))


OUTAGES_OF: dict[str, dict[str, str]] = {
    "redshift.refuse_connection": {},
    "redshift.drop_connection": {"sql": "SELECT day, COUNT*"},
    "redshift.error": {"sql": "SELECT day, COUNT*"},
}
OUTAGES = tuple(OUTAGES_OF)


class Ticks:
    """Ticks of the sensor over one desk, with Dagster's own order: events, then run keys with the cursor."""

    def __init__(self, orders: Any) -> None:
        self.orders = orders
        self.cursor: str | None = None
        self.launched: set[str] = set()
        job = orders.definitions.resolve_job_def("market_daily")
        self.sensor = restated_sensor(
            catalog_of(orders.dataset), dg.DefaultSensorStatus.STOPPED, lookback=3, jobs=[job]
        )

    def tick(self, *, dies: str | None = None) -> list[dg.RunRequest]:
        """Evaluate and store; `dies` after "evaluation" or after "events". Returns the runs that were started."""
        orders = self.orders
        with dg.build_sensor_context(
            instance=orders.instance,
            cursor=self.cursor,
            resources={"platform": platform_of(orders.settings)},
            definitions=orders.definitions,
        ) as context:
            data = self.sensor.evaluate_tick(context)
        if dies == "evaluation":
            return []
        for event in data.asset_events:
            orders.instance.report_runless_asset_event(event)
        if dies == "events":
            return []
        self.cursor = data.cursor
        assert len(data.cursor or "") < 200
        started = [each for each in data.run_requests or [] if each.run_key not in self.launched]
        self.launched |= {str(each.run_key) for each in started}
        return started


def days_of(requests: list[dg.RunRequest]) -> set[str]:
    found: set[str] = set()
    for request in requests:
        first, last = (request.tags[f"dagster/asset_partition_range_{end}"] for end in ("start", "end"))
        found |= {first, last}
    return found


@pytest.mark.integration
def test_a_changed_value_is_found_though_the_count_is_the_same_and_asked_for_once(desk: Callable[..., Any]) -> None:
    orders = desk("orders_restated")
    orders.put(YESTERDAY, (1, 10), (2, 20))
    orders.put(DAY_BEFORE, (1, 10))
    assert orders.run(DAY_BEFORE, YESTERDAY).success
    ticks = Ticks(orders)
    assert ticks.tick() == [], "the first look is what later ones are compared with"
    assert ticks.tick() == []
    orders.put(YESTERDAY, (1, 10), (2, 21))
    assert ticks.tick(dies="evaluation") == []
    assert ticks.tick(dies="events") == []
    (request,) = ticks.tick()
    assert days_of([request]) == {YESTERDAY}
    assert request.tags["data_platform/reason"] == "restated at its source"
    assert ticks.tick() == [], "the same change has the same run key"
    assert orders.run(YESTERDAY, YESTERDAY).success
    assert ticks.tick() == []
    orders.put(YESTERDAY)
    assert days_of(ticks.tick()) == {YESTERDAY}, "a day that became empty is a change, too"


@pytest.mark.integration
def test_a_day_that_was_held_back_is_asked_for_when_its_source_is_complete(desk: Callable[..., Any]) -> None:
    ready = "SELECT count(*) > 0 FROM desk.orders_late WHERE day = :day"
    orders = desk("orders_late", source={"table": "desk.orders_late", "partition_column": "day", "ready": ready})
    assert orders.run(YESTERDAY, YESTERDAY).success
    ticks = Ticks(orders)
    assert ticks.tick() == []
    orders.put(YESTERDAY, (1, 1))
    (request,) = ticks.tick()
    assert days_of([request]) == {YESTERDAY}
    assert ticks.tick() == []


@pytest.mark.integration
def test_a_table_that_is_gone_hides_no_other_and_a_warehouse_that_is_away_ends_the_tick(
    cloud: Any, desk: Callable[..., Any]
) -> None:
    orders = desk("orders_seen_still")
    gone = dataset_of("a_table_that_is_gone")
    catalog = catalog_of(gone, orders.dataset)
    job = build_defs(orders.settings, catalog=catalog).resolve_job_def("market_daily")
    orders.put(YESTERDAY, (1, 1))
    key = stage_key(Stage.UNLOAD, orders.dataset)
    orders.instance.report_runless_asset_event(dg.AssetMaterialization(key, partition=YESTERDAY))
    ticks = Ticks(orders)
    ticks.sensor = restated_sensor(catalog, dg.DefaultSensorStatus.STOPPED, lookback=3, jobs=[job])
    assert ticks.tick() == []
    orders.put(YESTERDAY, (1, 2))
    faults = cloud.faults("warehouse")
    lost = faults.arm("redshift.drop_connection", match={"sql": "SELECT day, COUNT*orders_seen_still*"})
    assert ticks.tick() == []
    assert faults.struck(lost) == 1
    assert "orders_seen_still" in (ticks.cursor or ""), "the next tick goes on where this one ended"
    assert days_of(ticks.tick()) == {YESTERDAY}


@pytest.mark.scenario
def test_a_hundred_ticks_with_crashes_and_outages_lose_no_change_and_double_none(
    cloud: Any, desk: Callable[..., Any]
) -> None:
    orders = desk("orders_hundred")
    faults, struck = cloud.faults("warehouse"), Counter[str]()
    chance = random.Random(7)
    key = stage_key(Stage.UNLOAD, orders.dataset)
    orders.put(YESTERDAY, (1, 0))
    orders.instance.report_runless_asset_event(dg.AssetMaterialization(key, partition=YESTERDAY))
    ticks = Ticks(orders)
    ticks.tick()
    value, made, runs, changes, crashes = 0, 0, 0, 0, 0
    for _ in range(100):
        if chance.random() < 0.2:
            value += 1
            changes += 1
            orders.put(YESTERDAY, (1, value))
        dies = chance.choice([None, None, "evaluation", "events"])
        crashes += dies is not None
        kind = chance.choice(OUTAGES) if chance.random() < 0.2 else None
        fault = None if kind is None else faults.arm(kind, times=None, match=OUTAGES_OF[kind])
        try:
            started = ticks.tick(dies=dies)
        except TransientError:  # Redshift takes no connection: the tick fails and keeps nothing
            started = []
        if kind is not None and fault is not None:
            struck[kind] += faults.struck(fault)
            faults.clear()
        assert len(started) <= 1
        if started:  # its run makes what the source holds now
            made = value
            runs += 1
            orders.instance.report_runless_asset_event(dg.AssetMaterialization(key, partition=YESTERDAY))
    for started in (ticks.tick(), ticks.tick()):
        if started:
            made = value
            runs += 1
            orders.instance.report_runless_asset_event(dg.AssetMaterialization(key, partition=YESTERDAY))
    assert crashes > 20
    assert min(struck[kind] for kind in OUTAGES) > 0
    assert made == value, "the newest change was made"
    assert 5 < runs <= changes, "no change was made twice"


@pytest.mark.unit
def test_datasets_are_looked_at_in_turn() -> None:
    datasets = [dataset_of(name) for name in ("c", "a", "b")]
    assert [each.name for each in in_turn(datasets, "market/b")] == ["b", "c", "a"]
    assert [each.name for each in in_turn(datasets, "market/bb")] == ["c", "a", "b"]
    assert [each.name for each in in_turn(datasets, "")] == ["a", "b", "c"]
    assert in_turn([], "x") == []
