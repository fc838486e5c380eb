"""The sample shops: the same bytes every time, enough days, people who come back, and the oddities of real logs."""

import gzip
import hashlib
import io
import os
import re
import subprocess
import sys
from collections import Counter, defaultdict
from datetime import UTC, date, datetime

import pyarrow as pa
import pytest

from data_platform.curation.otlp import EventBatch, Reason, read_events
from data_platform.local.sample.otel import LogObject, log_objects
from data_platform.local.sample.shop import FIRST_DAY, LAST_DAY, NANOSECONDS, SHOPS, ShopEvent, shop_events
from data_platform.local.sample.users import CSV_HEADER, statistics_csv

pytestmark = pytest.mark.unit

HALF_AN_HOUR = 1800 * NANOSECONDS


@pytest.fixture(scope="module")
def events() -> dict[str, list[ShopEvent]]:
    return {shop.service: shop_events(shop) for shop in SHOPS}


@pytest.fixture(scope="module")
def objects() -> list[LogObject]:
    return list(log_objects())


@pytest.fixture(scope="module")
def curated(objects: list[LogObject]) -> dict[str, list[EventBatch]]:
    return {each.key: list(read_events(io.BytesIO(each.body), each.key)) for each in objects}


def day_of(event: ShopEvent) -> date:
    return datetime.fromtimestamp(event.time_ns // NANOSECONDS, UTC).date()


def digest(objects: list[LogObject]) -> str:
    whole = hashlib.sha256()
    for each in objects:
        whole.update(each.key.encode() + b"\0" + each.body)
    return whole.hexdigest()


def test_another_process_with_another_hash_seed_and_environment_makes_the_same_bytes(objects: list[LogObject]) -> None:
    code = (
        "import hashlib\n"
        "from data_platform.local.sample.otel import log_objects\n"
        "whole = hashlib.sha256()\n"
        "for each in log_objects(): whole.update(each.key.encode() + b'\\0' + each.body)\n"
        "print(whole.hexdigest())"
    )
    odd = {"PYTHONHASHSEED": "7", "TZ": "Asia/Kathmandu", "OTEL_RESOURCE_ATTRIBUTES": "a=b", "OTEL_SERVICE_NAME": "x"}
    odd["OTEL_LOGRECORD_ATTRIBUTE_COUNT_LIMIT"] = "1"
    other = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **odd}, capture_output=True, text=True, check=True
    )
    assert other.stdout.strip() == digest(objects)


def test_every_day_of_at_least_sixty_has_people_and_most_of_them_were_there_before(
    events: dict[str, list[ShopEvent]],
) -> None:
    assert (LAST_DAY - FIRST_DAY).days + 1 >= 60
    for found in events.values():
        users: dict[date, set[str]] = defaultdict(set)
        for event in found:
            if event.user_id:
                users[day_of(event)].add(event.user_id)
        assert min(users) == FIRST_DAY
        assert max(users) == LAST_DAY
        assert len(users) == (LAST_DAY - FIRST_DAY).days + 1
        seen: set[str] = set()
        returning = 0
        for day in sorted(users):
            returning += len(users[day] & seen)
            seen |= users[day]
        assert len(seen) > 300
        assert returning > sum(map(len, users.values())) / 2


def test_the_funnel_narrows(events: dict[str, list[ShopEvent]]) -> None:
    for found in events.values():
        sessions: dict[str, set[str]] = defaultdict(set)
        for event in found:
            if event.session_id:
                sessions[event.session_id].add(event.name)
        viewed = [names for names in sessions.values() if "product_view" in names]
        carted = [names for names in viewed if "add_to_cart" in names]
        bought = [names for names in carted if "purchase" in names]
        assert len(sessions) > len(viewed) > len(carted) > len(bought) > 50


def test_it_has_what_makes_real_logs_hard(events: dict[str, list[ShopEvent]]) -> None:
    for found in events.values():
        assert sum(1 for event in found if event.user_id is None) > 100
        assert sum(1 for event in found if event.session_id is None) > 100
        assert any(event.user_id is None and event.session_id is None for event in found)
        late = [event for event in found if event.delivered_ns - event.time_ns > 2 * HALF_AN_HOUR]
        assert len(late) > 30
        deliveries = Counter(event.uid for event in found)
        assert 30 < sum(1 for count in deliveries.values() if count > 1) < len(found) / 50
        days: dict[str, set[date]] = defaultdict(set)
        for event in found:
            if event.session_id:
                days[event.session_id].add(day_of(event))
        assert sum(1 for found_days in days.values() if len(found_days) > 1) > 10


def test_names_are_those_of_the_collector_s_exporter(objects: list[LogObject]) -> None:
    pattern = re.compile(
        r"otel-logs/year=2013/month=\d\d/day=\d\d/hour=\d\d/theshop-(brand|pharmacy)_logs_[A-Za-z][A-Za-z0-9]{8}"
        r"\.(json|binpb)(\.gz)?"
    )
    assert all(pattern.fullmatch(each.key) for each in objects)
    assert len({each.key for each in objects}) == len(objects)
    assert 120 <= len(objects) <= 140
    forms = Counter(each.key.split(".", 1)[1] for each in objects)
    assert set(forms) == {"json", "json.gz", "binpb", "binpb.gz"}
    assert all(gzip.decompress(each.body) for each in objects if each.key.endswith(".gz"))


def test_every_event_is_read_back_and_what_is_broken_is_told(
    events: dict[str, list[ShopEvent]], objects: list[LogObject], curated: dict[str, list[EventBatch]]
) -> None:
    for each in objects:
        assert sum(part.batch.num_rows for part in curated[each.key]) == each.records
    expected = sorted(
        (service, event.time_ns, event.name, event.user_id or "", event.session_id or "", event.uid)
        for service, found in events.items()
        for event in found
    )
    assert 50_000 < len(expected) < 100_000
    columns = ("service_name", "event_time", "event_name", "user_id", "session_id", "record_uid")
    read: list[tuple[object, ...]] = []
    for parts in curated.values():
        for part in parts:
            values = [
                part.batch.column(name).cast("int64" if name == "event_time" else "string").to_pylist()
                for name in columns
            ]
            read += [tuple("" if value is None else value for value in row) for row in zip(*values, strict=True)]
    assert sorted(read) == expected  # pyright: ignore[reportArgumentType]
    reasons = {reject.reason for parts in curated.values() for part in parts for reject in part.rejects}
    assert {Reason.INVALID_JSON, Reason.MISSING_NAME, Reason.MISSING_SERVICE, Reason.MISSING_TIME} <= reasons
    assert reasons & {Reason.TRUNCATED, Reason.INVALID_PROTOBUF}


def test_events_stand_in_the_folder_of_their_export(curated: dict[str, list[EventBatch]]) -> None:
    other_hour = other_day = 0
    for key, parts in curated.items():
        found = re.search(r"year=(\d+)/month=(\d+)/day=(\d+)/hour=(\d+)", key)
        assert found is not None
        folder = datetime(*(int(number) for number in found.groups()), tzinfo=UTC)  # pyright: ignore[reportArgumentType]
        for part in parts:
            for time in part.batch.column("event_time").cast(pa.timestamp("us", tz="UTC"), safe=False).to_pylist():
                hour = time.replace(minute=0, second=0, microsecond=0)
                assert hour <= folder
                other_hour += hour != folder
                other_day += time.date() != folder.date()
    assert other_hour > other_day > 100


def test_the_csv_has_a_header_and_a_hundred_users() -> None:
    lines = statistics_csv().decode().splitlines()
    assert len(lines) == 101
    assert lines[0] == ",".join(CSV_HEADER) == "ユーザーID,ログイン回数,投稿回数"
    assert [line.split(",")[0] for line in lines[1:]] == [f"U{number:05d}" for number in range(1, 101)]
    assert all(re.fullmatch(r"U\d{5},\d{1,3},\d{1,2}", line) for line in lines[1:])
