"""Automation conditions, evaluated on small asset graphs."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import dagster as dg
import pytest
import sqlalchemy
import sqlalchemy.event

from data_platform.jobs.automation import after_new_events, next_layer, with_automation

pytestmark = pytest.mark.unit
NOT_SHIPPED = dg.AutomationCondition.eager()


class Graph:
    """`up` -> `down`, where `down` has the condition; `broken` makes it fail."""

    def __init__(self, condition: dg.AutomationCondition[Any]) -> None:
        self.broken = False
        self.instance = dg.DagsterInstance.ephemeral()
        graph = self

        @dg.asset
        def up() -> None:
            """What comes first."""

        @dg.asset(deps=[up], automation_condition=condition)
        def down() -> None:
            if graph.broken:
                raise ValueError("broken")

        self.assets = [up, down]
        self.cursor: Any = None

    def make(self, *names: str) -> None:
        dg.materialize(self.assets, instance=self.instance, selection=list(names), raise_on_error=False)

    def asked(self, at: datetime | None = None) -> bool:
        result = dg.evaluate_automation_conditions(
            defs=dg.Definitions(self.assets), instance=self.instance, cursor=self.cursor, evaluation_time=at
        )
        self.cursor = result.cursor
        return result.total_requested > 0


def test_a_layer_follows_the_one_before_it_and_not_twice() -> None:
    graph = Graph(next_layer())
    graph.make("up", "down")
    assert not graph.asked()
    graph.make("up")
    assert graph.asked()
    graph.make("down")
    assert not graph.asked()


def test_what_failed_is_not_asked_for_again_by_itself() -> None:
    graph = Graph(next_layer())
    graph.make("up", "down")
    assert not graph.asked()
    graph.broken = True
    graph.make("up")
    assert graph.asked()
    graph.make("down")
    graph.make("up")
    assert not graph.asked(), "eager alone would ask at every event upstream"


def test_summaries_wait_for_the_tick_of_their_cron() -> None:
    graph = Graph(after_new_events("0 * * * *"))
    graph.make("up", "down")
    assert not graph.asked(datetime(2024, 1, 1, 9, 10, tzinfo=UTC))
    graph.make("up")
    graph.make("up")
    assert not graph.asked(datetime(2024, 1, 1, 9, 50, tzinfo=UTC))
    assert graph.asked(datetime(2024, 1, 1, 10, 1, tzinfo=UTC))
    graph.make("down")
    assert not graph.asked(datetime(2024, 1, 1, 11, 1, tzinfo=UTC)), "nothing is newer"


class Chain:
    """`up` -> `middle` -> `last` by day, the later two with the condition; what is asked for, by asset."""

    DAYS = dg.DailyPartitionsDefinition("2024-01-01")
    NOW = datetime(2024, 3, 10, 6, tzinfo=UTC)

    def __init__(self, condition: dg.AutomationCondition[Any] | None = None) -> None:
        condition = condition or next_layer()
        self.instance = dg.DagsterInstance.ephemeral()
        self.cursor: Any = None

        @dg.asset(partitions_def=self.DAYS)
        def up() -> None:
            """The layer that a schedule makes."""

        @dg.asset(partitions_def=self.DAYS, deps=[up])
        def middle() -> None:
            """The layer after it."""

        @dg.asset(partitions_def=self.DAYS, deps=[middle])
        def last() -> None:
            """The one people read."""

        self.definitions = dg.Definitions(with_automation([up, middle, last], {"middle": condition, "last": condition}))

    def make(self, name: str, day: str) -> None:
        self.instance.report_runless_asset_event(dg.AssetMaterialization(name, partition=day))

    def asked(self) -> dict[str, set[str]]:
        result = dg.evaluate_automation_conditions(
            defs=self.definitions, instance=self.instance, cursor=self.cursor, evaluation_time=self.NOW
        )
        self.cursor = result.cursor
        found = {name: result.get_requested_partitions(dg.AssetKey(name)) for name in ("up", "middle", "last")}
        return {name: {str(day) for day in days} for name, days in found.items() if days}


def test_a_new_day_takes_the_whole_chain_at_once_and_only_once() -> None:
    chain = Chain()
    assert chain.asked() == {}
    chain.make("up", "2024-03-09")
    assert chain.asked() == {"middle": {"2024-03-09"}, "last": {"2024-03-09"}}
    chain.make("middle", "2024-03-09")
    chain.make("last", "2024-03-09")
    assert chain.asked() == {}


def test_a_restated_day_of_the_last_week_is_followed_and_an_old_backfill_is_left_to_its_own_run() -> None:
    chain = Chain()
    chain.asked()
    for day in ("2024-03-04", "2024-01-15"):
        chain.make("up", day)
    assert chain.asked() == {"middle": {"2024-03-04"}, "last": {"2024-03-04"}}


def test_idle_assets_cost_the_storage_no_question_of_their_own() -> None:
    chain, nothing, eager = Chain(), Chain(dg.AutomationCondition.newly_requested()), Chain(NOT_SHIPPED)
    for each in (chain, nothing, eager):
        each.asked()
    assert statements(chain.asked) == statements(nothing.asked)
    assert statements(eager.asked) > statements(chain.asked)


def statements(call: Callable[[], Any]) -> int:
    """How many SQL statements Dagster's storage is asked during `call`."""
    asked: list[str] = []

    def note(*details: Any) -> None:
        asked.append(details[2])

    sqlalchemy.event.listen(sqlalchemy.Engine, "before_cursor_execute", note)
    try:
        assert call() == {}
    finally:
        sqlalchemy.event.remove(sqlalchemy.Engine, "before_cursor_execute", note)
    return len(asked)


def test_conditions_go_to_the_keys_they_are_for_and_never_over_one_s_own() -> None:
    own, given = next_layer(days=1), next_layer(days=2)

    @dg.asset(key=["summaries", "shop", "dau"])
    def dau() -> None:
        """Without a condition."""

    @dg.asset(key=["summaries", "shop", "mau"], automation_condition=own)
    def mau() -> None:
        """With one of its own."""

    table = dg.AssetSpec(["clickhouse", "shop", "items"])
    automated = dg.Definitions(with_automation([dau, mau, table], {"summaries": given}))
    found = {spec.key.path[-1]: spec.automation_condition for spec in automated.resolve_all_asset_specs()}
    assert found == {"dau": given, "mau": own, "items": None}
