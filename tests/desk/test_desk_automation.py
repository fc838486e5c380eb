"""Automation conditions, evaluated on small asset graphs."""

from datetime import UTC, datetime
from typing import Any

import dagster as dg
import pytest

from data_platform.jobs.automation import after_new_events, next_layer

pytestmark = pytest.mark.unit


class Graph:
    """`up` -> `down`, where `down` has the condition; `broken` makes it fail."""

    def __init__(self, condition: dg.AutomationCondition) -> None:
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
