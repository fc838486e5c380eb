"""The seven tables of Athena against the definitions in plain Python: no difference, also after late events."""

from random import Random

import pytest

from data_platform.analytics.metrics import METRICS
from data_platform.catalog.models import CohortAges, ConversionSteps, Service
from tests.analytics.athena.conftest import AthenaDesk
from tests.analytics.random_logs import random_definitions, random_events, utc_day
from tests.analytics.reference import Definitions, Event, Reference

pytestmark = pytest.mark.integration
PIECES, EACH = 12, 12  # 2,016 tables


def service_of(desk: AthenaDesk, definitions: Definitions) -> Service:
    recent, active, veteran = definitions.ages
    return desk.service(
        time_zone=definitions.time_zone,
        min_data_date=definitions.min_date,
        conversion=ConversionSteps(view=definitions.view, cart=definitions.cart),
        cohorts=CohortAges(recent=recent, active=active, veteran=veteran),
    )


def compare(desk: AthenaDesk, seed: int, count: int, rounds: int, most_days: int = 10**6) -> int:
    """Deliver the logs of `count` services in `rounds` parts and compare every table after each; returns the tables."""
    random = Random(seed)
    definitions: dict[str, Definitions] = {}
    services: list[Service] = []
    logs: dict[str, list[Event]] = {}
    for _ in range(count):
        chosen = random_definitions(random)
        service = service_of(desk, chosen)
        services.append(service)
        definitions[service.name] = chosen
        logs[service.name] = random_events(random, chosen)
        while len({utc_day(event) for event in logs[service.name]}) > most_days:
            logs[service.name] = random_events(random, chosen)
    delivered: dict[str, list[Event]] = {name: [] for name in logs}
    compared = 0
    for number in range(rounds):
        last = number == rounds - 1
        fresh = {name: [event for event in events if last or random.random() < 0.5] for name, events in logs.items()}
        for name, events in fresh.items():
            chosen_ids = set(map(id, events))
            logs[name] = [event for event in logs[name] if id(event) not in chosen_ids]
            delivered[name] += events
        desk.put(fresh)
        for service in services:
            run = desk.run(service)
            reference = Reference(delivered[service.name], definitions[service.name])
            for metric in METRICS:
                assert desk.rows(service, metric) == getattr(reference, metric)(), (
                    f"round {number}: {metric} of {service.name}, {definitions[service.name]}"
                )
                compared += 1
            wrong = [check for check in run.checks if not check.passed and delivered[service.name]]
            empty = {"not_empty", "not_stale"}
            assert [check for check in wrong if check.name not in empty] == []
    return compared


def test_the_tables_are_what_the_definitions_say_also_after_late_events(athena_desk: AthenaDesk) -> None:
    assert compare(athena_desk, seed=5, count=1, rounds=2, most_days=6) == 14


@pytest.mark.load
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(PIECES))  # some minutes each, in any number of processes
def test_thousands_of_tables_are_what_the_definitions_say(athena_desk: AthenaDesk, seed: int) -> None:
    assert compare(athena_desk, seed, count=EACH, rounds=2) == EACH * 2 * len(METRICS)
