"""The order of work of a run's days: how much goes at once, what is told, what one day's end means for the others."""

import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing

import pytest

from data_platform.assets.days import DAYS_AT_ONCE, LAYERS_AT_ONCE, DayDone, Told, run_days
from data_platform.assets.keys import Stage

pytestmark = pytest.mark.unit
DAYS = [f"2024-01-{n:02}" for n in range(1, 13)]
Emit = Callable[[str], None]


def test_days_overlap_and_no_layer_is_asked_for_more_than_its_share() -> None:
    lock, going, most, together = threading.Lock(), Counter[Stage](), Counter[Stage](), list[int]()

    def work(stage: Stage, day: str, emit: Emit) -> None:
        with lock:
            going[stage] += 1
            most[stage] = max(most[stage], going[stage])
            together.append(going.total())
        time.sleep(0.005)
        with lock:
            going[stage] -= 1
        emit(f"{stage} {day}")

    told = [
        step.event for steps in run_days(work, list(Stage), DAYS, name="t") for step in steps if isinstance(step, Told)
    ]
    assert sorted(told) == sorted(f"{stage} {day}" for stage in Stage for day in DAYS)
    assert all(told.index(f"unload {day}") < told.index(f"curated {day}") for day in DAYS)
    assert all(count <= LAYERS_AT_ONCE for count in most.values())
    assert LAYERS_AT_ONCE < max(together) <= DAYS_AT_ONCE


def test_a_day_that_fails_ends_alone() -> None:
    def work(stage: Stage, day: str, emit: Emit) -> None:
        if (stage, day) == (Stage.CURATED, DAYS[3]):
            raise ValueError(day)
        emit(day)

    steps = [step for steps in run_days(work, list(Stage), DAYS, name="t") for step in steps]
    ends = {step.day: (step.stage, str(step.error)) for step in steps if isinstance(step, DayDone)}
    assert ends.keys() == set(DAYS)
    assert ends.pop(DAYS[3]) == (Stage.CURATED, DAYS[3])
    assert set(ends.values()) == {(Stage.CLICKHOUSE, "None")}
    assert Counter(step.event for step in steps if isinstance(step, Told))[DAYS[3]] == 1


def test_what_was_told_is_handed_over_before_an_interrupt_is_raised() -> None:
    told = list[str]()

    def work(stage: Stage, day: str, emit: Emit) -> None:
        emit(f"{stage} {day}")
        if stage is Stage.CURATED:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):  # noqa: PT012 - what was told before is the point
        for steps in run_days(work, list(Stage), DAYS[:1], name="t"):
            told += [step.event for step in steps if isinstance(step, Told)]
    assert told == [f"unload {DAYS[0]}", f"curated {DAYS[0]}"]


def test_a_caller_that_stops_waits_for_what_runs_and_begins_no_more() -> None:
    begun, ended = list[str](), list[str]()

    def work(stage: Stage, day: str, emit: Emit) -> None:
        begun.append(f"{stage} {day}")
        time.sleep(0.01)
        ended.append(f"{stage} {day}")
        if len(ended) == 3:
            raise KeyboardInterrupt

    with closing(run_days(work, list(Stage), DAYS, name="t")) as portions, pytest.raises(KeyboardInterrupt):
        for _ in portions:
            pass
    assert sorted(begun) == sorted(ended)
    assert len(begun) < len(DAYS)
