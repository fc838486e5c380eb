"""The tables as they are published: incremental equals anew, replays change nothing, a crash costs nothing."""

from datetime import UTC, date, datetime
from random import Random
from typing import Any

import pytest

from data_platform.analytics.blocks import refresh_blocks
from data_platform.analytics.checks import check_summary
from data_platform.analytics.metrics import METRICS
from data_platform.analytics.summaries import rebuild_summaries
from data_platform.catalog.models import Service
from tests.analytics.conftest import Desk, service_of
from tests.analytics.random_logs import random_events, utc_day
from tests.analytics.reference import Definitions, Event, Reference

pytestmark = pytest.mark.integration
START = date(2019, 5, 20)
DEFINITIONS = Definitions("Asia/Seoul")
RUN = date(2024, 9, 1)
KILL_STRIDE = 5
STATEMENTS = 70  # of a refresh of one more UTC day, which lies in two local ones: about three a block


@pytest.fixture
def service(request: pytest.FixtureRequest) -> Service:
    return service_of(f"t-{abs(hash(request.node.name)) % 10**9}", DEFINITIONS)


def logs(seed: int, start: date = START) -> list[Event]:
    random = Random(seed)
    found: list[Event] = []
    for part in range(2):
        events = random_events(random, DEFINITIONS, start)
        found += [
            Event(e.time_ns, e.name, e.user, e.session, e.uid and f"{e.uid}-{part}", f"{part}/{e.source}", e.position)
            for e in events
        ]
    assert found
    return found


def publish(desk: Desk, service: Service) -> list[int]:
    refresh_blocks(desk.client, desk.locks, [service])
    summaries = rebuild_summaries(desk.client, desk.locks, service, list(METRICS), RUN)
    return [summary.days for summary in summaries]


def same(desk: Desk, service: Service, events: list[Event]) -> None:
    found = shown(desk, service)
    for metric, rows in expected(events).items():
        assert found[metric] == rows, metric


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


def test_one_more_day_takes_few_statements_whatever_the_history(desk: Desk, service: Service) -> None:
    first = int(datetime(2015, 3, 1, 12, tzinfo=UTC).timestamp()) * 10**9

    def day(number: int) -> list[Event]:
        at = first + number * 86_400 * 10**9
        return [Event(at + n, "buy", f"u{n}", f"s{number}", f"{number}-{n}", "o", 10 * number + n) for n in range(3)]

    desk.put(service.name, [event for number in range(12) for event in day(number)])
    publish(desk, service)
    desk.put(service.name, day(12))
    refreshed = refresh_blocks(desk.client, desk.locks, [service])
    assert len(refreshed.days[service.name]) <= 2  # a UTC day lies in two days of Seoul
    assert refreshed.statements <= STATEMENTS
    assert refreshed.bytes_read > 0


def test_days_that_share_a_record_are_built_together(desk: Desk, service: Service) -> None:
    noon = int(datetime(2013, 3, 1, 12, tzinfo=UTC).timestamp()) * 10**9

    def event(day: int, uid: str, source: str) -> Event:
        return Event(noon + day * 86_400 * 10**9, "buy", f"u{day}", f"s{day}", uid, source, day)

    def refreshed(*events: Event) -> frozenset[date]:
        desk.put(service.name, list(events))
        return refresh_blocks(desk.client, desk.locks, [service]).days[service.name]

    history = [event(day, f"uid-{day}", "m") for day in range(3)]
    refreshed(*history)
    fresh = event(3, "uid-3", "m")
    days = refreshed(fresh)
    assert date(2013, 3, 4) in days
    assert date(2013, 3, 2) not in days
    copy = event(4, "uid-1", "a")  # counts instead of the second day's, for its object comes first
    assert {date(2013, 3, 2), date(2013, 3, 5)} <= refreshed(copy)
    # One more of the fourth day's record, from an object before: the same uid, another place.
    moved = event(3, "uid-3", "b")
    again = event(5, "uid-3", "c")
    refreshed(again)
    assert {date(2013, 3, 4), date(2013, 3, 6)} <= refreshed(moved)
    publish(desk, service)
    same(desk, service, [*history, fresh, copy, again, moved])


def test_a_copy_of_another_day_does_not_come_to_count_when_its_own_day_is_built_again(
    desk: Desk, service: Service
) -> None:
    noon = int(datetime(2014, 6, 1, 12, tzinfo=UTC).timestamp()) * 10**9

    def event(day: int, uid: str, source: str) -> Event:
        return Event(noon + day * 86_400 * 10**9, "buy", f"u{day}", f"s{day}", uid, source, day)

    counts, copy, late = event(0, "uid", "a"), event(5, "uid", "b"), event(5, "other", "c")
    for fresh in (counts, copy, late):
        desk.put(service.name, [fresh])
        publish(desk, service)
    same(desk, service, [counts, copy, late])
    assert [check for check in check_summary(desk.client, service, "dau", RUN) if not check.passed] == []


def test_days_are_built_with_those_that_share_their_records_and_no_further(desk: Desk, service: Service) -> None:
    noon = int(datetime(2011, 6, 1, 12, tzinfo=UTC).timestamp()) * 10**9

    def event(day: int, uid: str, source: str, position: int) -> Event:
        return Event(noon + day * 86_400 * 10**9, "buy", f"u{day}", f"s{day}", uid, source, position)

    # Each day shares a record with the next; of which two the one counts that lies in the first object.
    chain = [event(day, f"uid-{link}", f"o{link}", day) for day in range(6) for link in (day - 1, day)]
    desk.put(service.name, chain)
    publish(desk, service)
    same(desk, service, chain)
    late = event(0, "uid-late", "late", 99)
    desk.put(service.name, [late])
    days = refresh_blocks(desk.client, desk.locks, [service]).days[service.name]
    assert days == {date(2011, 6, day) for day in (1, 2, 3)}  # a UTC day lies in two of Seoul
    publish(desk, service)
    same(desk, service, [*chain, late])


@pytest.mark.parametrize("named", [None, "session"])
def test_a_session_in_a_night_that_sees_midnight_twice_is_one(desk: Desk, named: str | None) -> None:
    definitions = Definitions("America/St_Johns")  # a minute into 2010-11-07 it is 2010-11-06 again, for an hour
    service = service_of(f"twice-{named}".lower(), definitions)
    midnight = int(datetime(2010, 11, 7, 2, 30, tzinfo=UTC).timestamp())
    times = {"before": (-10, 40, 25 * 60, 50 * 60, 65 * 60), "between": (40, 20 * 60, 45 * 60, 63 * 60)}
    events = [
        Event((midnight + at) * 10**9, name, user, named and f"{named}-{user}", None, "o", 10 * number + n)
        for number, (user, ats) in enumerate(times.items())
        for n, (at, name) in enumerate(zip(ats, ("product_view", "look", "look", "add_to_cart", "buy"), strict=False))
    ]
    desk.put(service.name, events)
    publish(desk, service)
    reference = Reference(events, definitions)
    for metric in METRICS:
        assert desk.table(service, metric) == getattr(reference, metric)(), metric
    days = desk.client.query(
        "SELECT day, events FROM analytics_blocks.sessions WHERE service = {name:String} ORDER BY day",
        parameters={"name": service.name},
    ).result_rows
    assert days == [(date(2010, 11, 6), 5), (date(2010, 11, 7), 4)]


def test_a_replayed_delivery_changes_nothing(desk: Desk, service: Service) -> None:
    events = [event for event in logs(12) if event.uid is not None]
    desk.put(service.name, events)
    publish(desk, service)
    again = [Event(e.time_ns, e.name, e.user, e.session, e.uid, f"z/{e.source}", e.position) for e in events]
    desk.put(service.name, again)
    publish(desk, service)
    same(desk, service, events)


class Dying:
    """A client that is gone after so many statements: like a killed process, it cleans nothing up either."""

    def __init__(self, client: Any, statements: int) -> None:
        self._client, self.left = client, statements

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._client, name)
        if name not in {"command", "query", "raw_insert"}:
            return found

        def counted(*args: Any, **kwargs: Any) -> Any:
            self.left -= 1
            if self.left < 0:
                raise ConnectionAbortedError("killed")
            return found(*args, **kwargs)

        return counted


def killed_after(desk: Desk, service: Service, statements: int) -> bool:
    """A run that ends after so many statements; False when it came to its end before."""
    client: Any = Dying(desk.client, statements)
    try:
        refresh_blocks(client, desk.locks, [service])
        rebuild_summaries(client, desk.locks, service, list(METRICS), RUN)
    except ConnectionAbortedError:
        return True
    return False


def shown(desk: Desk, service: Service) -> dict[str, list[tuple[object, ...]]]:
    return {metric: desk.table(service, metric) for metric in METRICS}


def expected(events: list[Event]) -> dict[str, list[tuple[object, ...]]]:
    reference = Reference(events, DEFINITIONS)
    return {metric: getattr(reference, metric)() for metric in METRICS}


def dies_and_is_made_good(desk: Desk, service: Service, statements: int) -> bool:
    events = logs(13)
    half = events[: len(events) // 2]
    desk.put(service.name, half)
    publish(desk, service)
    desk.put(service.name, events[len(half) :])
    died = killed_after(desk, service, statements)
    old, new, found = expected(half), expected(events), shown(desk, service)
    for metric in METRICS:  # each for itself is whole: the old one or the new one
        assert found[metric] in (old[metric], new[metric]), metric
    if not died:
        assert found == new
    publish(desk, service)
    assert shown(desk, service) == new
    left = desk.client.query(
        "SELECT name FROM system.tables WHERE database = 'analytics_blocks' AND position(name, '__') > 0 "
        "OR database = 'analytics' AND startsWith(name, {prefix:String}) AND position(name, '_summary__') > 0",
        parameters={"prefix": service.prefix},
    ).result_rows
    assert left == []
    return died


@pytest.mark.parametrize("statements", [30, *(pytest.param(at, marks=pytest.mark.load) for at in (9, 58))])
def test_a_run_killed_anywhere_leaves_each_table_old_or_new(desk: Desk, service: Service, statements: int) -> None:
    assert dies_and_is_made_good(desk, service, statements)


@pytest.mark.load
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("first", range(KILL_STRIDE))  # in pieces, that no one holds the machine for long
def test_a_run_killed_after_any_statement_leaves_each_table_old_or_new(desk: Desk, first: int) -> None:
    for statements in range(first, 500, KILL_STRIDE):
        if not dies_and_is_made_good(desk, service_of(f"killed-{statements}", DEFINITIONS), statements):
            assert statements > 50
            return
    pytest.fail("a run of more than 500 statements")


def test_a_service_without_data_has_empty_tables_and_checks_that_say_so(desk: Desk, service: Service) -> None:
    assert publish(desk, service) == [0] * len(METRICS)
    for metric in METRICS:
        assert desk.table(service, metric) == []
        failed = [check.name for check in check_summary(desk.client, service, metric, RUN) if not check.passed]
        assert failed == ["not_empty", "not_stale"]


def test_events_that_vanish_take_their_rows_with_them(desk: Desk, service: Service) -> None:
    events = logs(16)
    desk.put(service.name, events)
    publish(desk, service)
    left = sorted(set(map(utc_day, events)))
    while left:
        gone, left = left[: len(left) // 2 + 1], left[len(left) // 2 + 1 :]
        desk.client.command("ALTER TABLE analytics.events " + ", ".join(f"DROP PARTITION '{day}'" for day in gone))
        publish(desk, service)
        same(desk, service, [event for event in events if utc_day(event) in left])


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
