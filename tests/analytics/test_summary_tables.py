"""The tables as they are published: incremental equals anew, replays change nothing, a crash costs nothing."""

from datetime import date
from random import Random

import pytest

from data_platform.analytics import blocks
from data_platform.analytics.blocks import refresh_blocks
from data_platform.analytics.checks import check_summary
from data_platform.analytics.metrics import METRICS
from data_platform.analytics.summaries import rebuild_summary
from data_platform.catalog.models import Service
from tests.analytics.conftest import Desk, service_of
from tests.analytics.random_logs import random_events
from tests.analytics.reference import Definitions, Event, Reference

pytestmark = pytest.mark.integration
START = date(2019, 5, 20)  # days of their own: other tests' events stay where they are
DEFINITIONS = Definitions("Asia/Seoul")
RUN = date(2024, 9, 1)


@pytest.fixture
def service(request: pytest.FixtureRequest) -> Service:
    return service_of(f"t-{abs(hash(request.node.name)) % 10**9}", DEFINITIONS)


def logs(seed: int) -> list[Event]:
    random = Random(seed)
    found: list[Event] = []
    for part in range(2):
        events = random_events(random, DEFINITIONS, START)
        found += [
            Event(e.time_ns, e.name, e.user, e.session, e.uid and f"{part}-{e.uid}", f"{part}/{e.source}", e.position)
            for e in events
        ]
    assert found
    return found


def publish(desk: Desk, service: Service) -> list[int]:
    refresh_blocks(desk.client, desk.locks, [service])
    return [rebuild_summary(desk.client, desk.locks, service, metric, RUN).days for metric in METRICS]


def same(desk: Desk, service: Service, events: list[Event]) -> None:
    reference = Reference(events, DEFINITIONS)
    for metric in METRICS:
        assert desk.table(service, metric) == getattr(reference, metric)(), metric


def test_late_events_are_taken_over_day_by_day_and_a_second_run_has_nothing_to_do(desk: Desk, service: Service) -> None:
    events = logs(11)
    half = [event for number, event in enumerate(events) if number % 2]
    desk.put(service.name, half)
    publish(desk, service)
    same(desk, service, half)
    desk.put(service.name, [event for event in events if event not in half])
    publish(desk, service)
    same(desk, service, events)
    assert publish(desk, service) == [0] * len(METRICS)
    same(desk, service, events)
    checks = [check for metric in METRICS for check in check_summary(desk.client, service, metric, RUN)]
    assert [check for check in checks if not check.passed] == []


def test_a_replayed_delivery_changes_nothing(desk: Desk, service: Service) -> None:
    events = [event for event in logs(12) if event.uid is not None]
    desk.put(service.name, events)
    publish(desk, service)
    again = [Event(e.time_ns, e.name, e.user, e.session, e.uid, f"z/{e.source}", e.position) for e in events]
    desk.put(service.name, again)
    publish(desk, service)
    same(desk, service, events)


def test_a_refresh_that_dies_before_the_sessions_is_made_good_by_the_next(
    desk: Desk, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = logs(13)
    half = events[: len(events) // 2]
    desk.put(service.name, half)
    publish(desk, service)
    desk.put(service.name, events[len(half) :])
    struck = 0

    def die(*_: object) -> None:
        nonlocal struck
        struck += 1
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(blocks, "stage_sessions", die)
        with pytest.raises(RuntimeError):
            refresh_blocks(desk.client, desk.locks, [service])
    assert struck == 1
    for metric in METRICS:  # what readers have in between is computed, and computed again behind the next refresh
        rebuild_summary(desk.client, desk.locks, service, metric, RUN)
    publish(desk, service)
    same(desk, service, events)


def test_a_service_without_data_has_empty_tables_and_checks_that_say_so(desk: Desk, service: Service) -> None:
    assert publish(desk, service) == [0] * len(METRICS)
    for metric in METRICS:
        assert desk.table(service, metric) == []
        failed = [check.name for check in check_summary(desk.client, service, metric, RUN) if not check.passed]
        assert failed == ["not_empty", "not_stale"]


DAMAGE = (
    ("mau", "UPDATE mau_30 = mau_30 + 1 WHERE 1", "equals_interval_algorithm"),
    ("user_cohort", "UPDATE users = users + 1 WHERE cohort = 'new'", "cohorts_add_up_to_dau"),
    ("retention", "DELETE WHERE 1", "cohort_sizes_are_new_users"),
    ("event_distribution", "UPDATE events = events + 1 WHERE 1", "events_add_up"),
    ("conversion", "UPDATE sessions = sessions + 1 WHERE 1", "funnel_starts_with_all_sessions"),
    ("session_metrics", "UPDATE execution_date = '2000-01-01' WHERE 1", "not_stale"),
    ("dau", "UPDATE events = events + 1 WHERE 1", "equals_raw_events"),
)


def test_a_wrong_table_fails_its_check(desk: Desk, service: Service) -> None:
    desk.put(service.name, logs(14))
    publish(desk, service)
    for metric, damage, failing in DAMAGE:
        before = {check.name for check in check_summary(desk.client, service, metric, RUN) if not check.passed}
        desk.client.command(
            f"ALTER TABLE analytics.{service.prefix}_{metric}_summary {damage}", settings={"mutations_sync": 2}
        )
        after = {check.name for check in check_summary(desk.client, service, metric, RUN) if not check.passed}
        assert failing in after - before


def test_another_time_zone_in_the_catalogue_rebuilds_every_day(desk: Desk, service: Service) -> None:
    events = logs(15)
    desk.put(service.name, events)
    publish(desk, service)
    moved = service.model_copy(update={"time_zone": "America/New_York"})
    publish(desk, moved)
    reference = Reference(events, Definitions("America/New_York"))
    for metric in METRICS:
        assert desk.table(moved, metric) == getattr(reference, metric)(), metric
