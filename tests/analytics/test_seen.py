"""Days that share records or sessions are found among what was ever seen: never one too few, and hardly one is read."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from data_platform.analytics import seen
from data_platform.analytics.blocks import refresh_blocks
from data_platform.catalog.models import Service
from tests.analytics.conftest import Desk, service_of
from tests.analytics.reference import Definitions, Event

pytestmark = pytest.mark.integration
DAY_NS = 86_400 * 10**9
START = datetime(2012, 3, 1, 12, tzinfo=UTC)
GRANULE = 8192  # rows that a table is read by
IDS: dict[str, Callable[[int, int], str]] = {
    "timed": lambda day, number: f"01JX{day}0{number:020}",
    "random": lambda day, number: f"uid-{day}-{number}",
}


@pytest.fixture(autouse=True, params=["set", "merge"])
def search(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """As where little was seen, or as where much was."""
    if request.param == "merge":
        monkeypatch.setattr(seen, "MANY", 0)
        monkeypatch.setattr(seen, "TIMES", 0)
    return request.param


@pytest.fixture
def service(request: pytest.FixtureRequest) -> Service:
    return service_of(f"seen-{abs(hash(request.node.name)) % 10**9}", Definitions("UTC"))


@dataclass
class Month:
    """A month and its days, from 0."""

    noon: datetime

    def events(self, day: int, uids: list[str], session: str | None = None) -> list[Event]:
        at = int(self.noon.timestamp()) * 10**9 + day * DAY_NS
        return [Event(at + n, "buy", f"u{n}", session, uid, f"o{day}", n) for n, uid in enumerate(uids)]

    def day(self, number: int) -> date:
        return self.noon.date() + timedelta(days=number)


@pytest.fixture
def month() -> Month:
    return Month(START)


class Listening:
    """A client that keeps the queries and how many rows each read; `before` may do something ahead of each."""

    def __init__(self, client: Any, before: Callable[[str], None] = lambda _: None) -> None:
        self._client, self._before, self.read = client, before, list[tuple[str, int]]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def query(self, sql: str, **kwargs: Any) -> Any:
        self._before(sql)
        found = self._client.query(sql, **kwargs)
        self.read.append((sql, int(found.summary["read_rows"])))
        return found

    def rows(self, *words: str) -> list[int]:
        """The rows that queries with these words read."""
        return [rows for sql, rows in self.read if all(word in sql for word in words)]


def refreshed(desk: Desk, service: Service, events: list[Event], client: Any = None) -> set[date]:
    desk.put(service.name, events)
    return set(refresh_blocks(client or desk.client, desk.locks, [service]).days[service.name])


@pytest.mark.parametrize("ids", IDS)
def test_only_days_that_have_a_copy_are_read(desk: Desk, service: Service, month: Month, ids: str) -> None:
    uid = IDS[ids]
    known = [event for day in range(4) for event in month.events(day, [uid(day, n) for n in range(50)])]
    refreshed(desk, service, known)
    client = Listening(desk.client)
    assert refreshed(desk, service, month.events(4, [uid(4, n) for n in range(50)]), client) == {month.day(4)}
    assert client.rows("analytics_blocks.record_uids", "PREWHERE") == []
    assert client.rows("analytics_blocks.seen_records") != []
    client = Listening(desk.client)
    days = refreshed(desk, service, month.events(5, [*(uid(5, n) for n in range(49)), uid(1, 10)]), client)
    assert days == {month.day(1), month.day(5)}
    assert client.rows("analytics_blocks.record_uids", "PREWHERE")[0] == 50  # the day with the copy alone


def test_of_records_that_begin_with_their_time_only_those_of_the_same_time_are_read(
    desk: Desk, service: Service, month: Month
) -> None:
    known = 9 * GRANULE
    desk.client.command(
        "INSERT INTO analytics.events (service_name, event_time, event_date, event_name, record_uid, source_object, "
        "source_position, _ds, _object) SELECT {name:String}, toDateTime64({day:Date}, 9, 'UTC'), {day:Date}, 'buy', "
        "concat('01JX0', leftPad(toString(number), 21, '0')), 'o', number, {day:Date}, 'o' "
        "FROM numbers({known:UInt32})",
        parameters={"name": service.name, "day": month.day(0), "known": known},
    )
    refresh_blocks(desk.client, desk.locks, [service])
    client = Listening(desk.client)
    refreshed(desk, service, month.events(3, [IDS["timed"](3, n) for n in range(10)]), client)
    [rows] = client.rows("analytics_blocks.seen_records", "DISTINCT day")
    assert rows < known / 2  # the ends of the parts


def test_parts_that_are_merged_while_they_are_searched_hide_nothing(
    desk: Desk, service: Service, month: Month, search: str
) -> None:
    for day in range(4):  # a part each
        refreshed(desk, service, month.events(day, [f"merged-{day}-{n}" for n in range(5)], session=f"merged-{day}"))
    gone: set[str] = set()

    def listed(table: str) -> set[str]:
        sql = f"SELECT name FROM system.parts WHERE database = 'analytics_blocks' AND table = '{table}' AND active"
        return {row[0] for row in desk.client.query(sql).result_rows}

    def merge(sql: str) -> None:
        """Between the list of the parts and the search in them."""
        for table in ("seen_records", "seen_sessions"):
            if f"analytics_blocks.{table}" in sql:
                before = listed(table)
                desk.client.command(f"OPTIMIZE TABLE analytics_blocks.{table} FINAL")
                after = listed(table)
                gone.update(part for part in before - after if search == "set" or f"'{part}'" in sql)

    client = Listening(desk.client, merge)
    days = refreshed(desk, service, month.events(9, ["merged-1-3", "fresh"], session="merged-2"), client)
    assert gone, "no part that was to be searched was merged away"
    assert days == {month.day(1), month.day(9)}
    sessions = desk.client.query(
        "SELECT day, events FROM analytics_blocks.sessions WHERE service = {name:String} ORDER BY day",
        parameters={"name": service.name},
    ).result_rows
    assert sessions == [
        (month.day(0), 5),
        (month.day(1), 5),
        (month.day(2), 5 + 1),  # goes on a week later; of its two events there one is a copy
        (month.day(3), 5),
    ]


def test_a_table_that_was_emptied_is_made_again(desk: Desk, service: Service, month: Month) -> None:
    refreshed(desk, service, month.events(0, ["emptied-0"], session="emptied"))
    for table in ("seen_records", "seen_sessions"):
        desk.client.command(f"TRUNCATE TABLE analytics_blocks.{table}")
    days = refreshed(desk, service, month.events(3, ["emptied-0", "emptied-3"], session="emptied"))
    assert days == {month.day(0), month.day(3)}
    [[events]] = desk.client.query(
        "SELECT events FROM analytics_blocks.sessions WHERE service = {name:String}", parameters={"name": service.name}
    ).result_rows
    assert events == 2


def test_one_uid_for_all_records_is_no_more_work_than_there_are_records(
    desk: Desk, service: Service, month: Month
) -> None:
    for day in range(3):
        desk.client.command(
            "INSERT INTO analytics.events (service_name, event_time, event_date, event_name, record_uid, "
            "source_object, source_position, _ds, _object) SELECT {name:String}, toDateTime64({day:Date}, 9, 'UTC'), "
            "{day:Date}, 'buy', 'the same', toString({day:Date}), number, {day:Date}, 'o' FROM numbers(20000)",
            parameters={"name": service.name, "day": month.day(day)},
        )
    refresh_blocks(desk.client, desk.locks, [service])
    refreshed(desk, service, month.events(4, ["the same"] * 20_000))
    [[keys]] = desk.client.query(
        "SELECT count() FROM analytics_blocks.seen_records WHERE key IN "
        "(SELECT key FROM analytics_blocks.record_uids WHERE service = {name:String})",
        parameters={"name": service.name},
    ).result_rows
    assert keys == 4  # a day each: 80,000 matches, not 1.2 billion
    [[events]] = desk.client.query(
        "SELECT sum(events) FROM analytics_blocks.event_days WHERE service = {name:String}",
        parameters={"name": service.name},
    ).result_rows
    assert events == 1


def test_services_of_the_same_days_are_not_looked_for_and_have_nothing_to_do(
    desk: Desk, month: Month, search: str
) -> None:
    services = [service_of(f"beside-{search}-{n}", Definitions(zone)) for n, zone in enumerate(("UTC", "Asia/Seoul"))]
    for day in range(4):
        for each in services:
            desk.put(each.name, month.events(day, [f"{each.name}-{day}"], session=f"beside-{day}"))
    refresh_blocks(desk.client, desk.locks, services)
    changed = service_of(services[0].name, Definitions("UTC", view="look"))
    days = refresh_blocks(desk.client, desk.locks, [changed, services[1]]).days
    assert {month.day(day) for day in range(4)} <= days[services[0].name]
    assert services[1].name not in days
    assert refresh_blocks(desk.client, desk.locks, [changed, services[1]]).days == {}


def test_what_no_longer_stands_anywhere_is_forgotten_and_the_rest_is_found(
    desk: Desk, service: Service, month: Month, monkeypatch: pytest.MonkeyPatch
) -> None:
    for day in range(4):
        refreshed(desk, service, month.events(day, [f"kept-{day}-{n}" for n in range(300)], session=f"kept-{day}"))
    days = [month.day(number) for number in range(3)]
    desk.client.command("ALTER TABLE analytics.events " + ", ".join(f"DROP PARTITION '{day}'" for day in days))
    refresh_blocks(desk.client, desk.locks, [service])

    def rows(table: str) -> int:
        return int(desk.client.command(f"SELECT count() FROM {table}"))

    before = rows("analytics_blocks.seen_records")
    monkeypatch.setattr(seen, "SPARE_ROWS", -(10**9))  # as if nearly all of it were out of date
    found = refreshed(desk, service, month.events(5, ["kept-3-7", "kept-1-7"], session="kept-3"))
    assert month.day(3) in found
    assert (
        rows("analytics_blocks.seen_records")
        == rows("(SELECT DISTINCT key, day FROM analytics_blocks.record_uids)")
        < before
    )
    [[events]] = desk.client.query(
        "SELECT events FROM analytics_blocks.sessions WHERE service = {name:String} AND day = {day:Date}",
        parameters={"name": service.name, "day": month.day(3)},
    ).result_rows
    assert events == 300 + 1
