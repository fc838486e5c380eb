"""The seven tables of ClickHouse against the definitions in plain Python: no difference in thousands of random logs."""

from collections import defaultdict
from datetime import date
from random import Random
from typing import Any

import pytest

from data_platform.analytics import seen, sessions
from data_platform.analytics.blocks import refresh_blocks
from data_platform.analytics.metrics import METRICS
from data_platform.analytics.summaries import metric_sql
from data_platform.catalog.models import Service
from tests.analytics.conftest import Desk, service_of
from tests.analytics.random_logs import random_definitions, random_events, utc_day
from tests.analytics.reference import Definitions, Event, Reference

pytestmark = pytest.mark.integration
SERVICES = 8
MANY_SERVICES = 50  # four times over: 4,200 tables
ROUNDS = 3
TODAY = date(2025, 1, 1)


def compute(desk: Desk, services: list[Service], days_of: dict[str, list[date]]) -> dict[str, dict[str, list[Any]]]:
    """All metrics of many services: a query per metric and set of cohort ages."""
    found: dict[str, dict[str, list[Any]]] = {metric: defaultdict(list) for metric in METRICS}
    groups: dict[Any, list[Service]] = defaultdict(list)
    for service in services:
        if days_of[service.name]:
            groups[service.cohorts, days_of[service.name][0].year].append(service)
    for metric in METRICS:
        for group in groups.values():
            first = min(days_of[s.name][0] for s in group).toordinal() - 1
            days = [date.fromordinal(first + n) for n in range(700)]
            rows = desk.client.query(
                f"SELECT * EXCEPT execution_date FROM ({metric_sql(metric, group[0])})",
                parameters={"services": [s.name for s in group], "days": days, "execution_date": TODAY},
            ).result_rows
            for name, *row in rows:
                found[metric][name].append(tuple(row))
    return found


def differences(
    found: dict[str, dict[str, list[Any]]], logs: dict[str, list[Event]], definitions: dict[str, Definitions]
) -> list[str]:
    wrong: list[str] = []
    for name, events in logs.items():
        reference = Reference(events, definitions[name])
        for metric in METRICS:
            expected = getattr(reference, metric)()
            if sorted(found[metric].get(name, [])) != expected:
                wrong.append(
                    f"{name} {definitions[name]} {metric}:\n  {sorted(found[metric].get(name, []))}\n  {expected}"
                )
    return wrong


def compare_random_logs(desk: Desk, seed: int, count: int) -> int:
    """Random logs of `count` services in three deliveries, all tables compared after each; returns how many."""
    random = Random(seed)
    definitions = {f"shop-{seed}-{n}": random_definitions(random) for n in range(count)}
    services = [service_of(name, each) for name, each in definitions.items()]
    logs = {name: random_events(random, each) for name, each in definitions.items()}
    delivered: dict[str, list[Event]] = {name: [] for name in logs}
    compared = 0
    for number in range(ROUNDS):
        # A part of the events comes with each round: late ones, and second deliveries, for days that are built already.
        last = number == ROUNDS - 1
        fresh = {name: [event for event in events if last or random.random() < 0.5] for name, events in logs.items()}
        for name, events in fresh.items():
            chosen = set(map(id, events))
            logs[name] = [event for event in logs[name] if id(event) not in chosen]
            delivered[name] += events
        desk.put_all(fresh)
        refresh_blocks(desk.client, desk.locks, services)
        days = {name: sorted(map(utc_day, events)) for name, events in delivered.items()}
        wrong = differences(compute(desk, services, days), delivered, definitions)
        assert not wrong, f"{len(wrong)} tables differ, the first:\n{wrong[0]}"
        compared += len(services) * len(METRICS)
    return compared


@pytest.fixture(params=["set", "merge"])
def search(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How days that share records or sessions are found: as where little was seen, or much; then in small pieces."""
    if request.param == "merge":
        monkeypatch.setattr(seen, "MANY", 0)
        monkeypatch.setattr(seen, "TIMES", 0)
        monkeypatch.setattr(sessions, "SESSION_DAYS", 2)
    return request.param


def test_the_tables_are_what_the_definitions_say_also_after_late_events(desk: Desk, search: str) -> None:
    assert compare_random_logs(desk, {"set": 20240229, "merge": 20240301}[search], SERVICES) >= 150


@pytest.mark.load
@pytest.mark.parametrize("seed", range(2))
def test_thousands_of_tables_are_what_the_definitions_say(desk: Desk, seed: int, search: str) -> None:
    assert compare_random_logs(desk, seed + {"set": 0, "merge": 10}[search], MANY_SERVICES) >= 1000
