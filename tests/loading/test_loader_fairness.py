"""A flood in a domain of low priority leaves the others their share of the workers and their speed."""

import time
from collections import Counter
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from data_platform.catalog import load_catalog
from data_platform.catalog.ddl import table_ddl
from data_platform.catalog.keys import CuratedKey, queue_name
from data_platform.catalog.models import Priority
from data_platform.clients import aws
from data_platform.loading.agent import FEWEST_WORKERS, Agent
from data_platform.loading.backlog import Backlog, Group, Item, Message
from data_platform.loading.message import ObjectEvent
from data_platform.loading.register import ObjectVersion
from data_platform.local.cloud import Cloud
from tests.loading.conftest import Bench, make_bench, rows

DAY = date(2024, 1, 1)
PRIORITIES = {"market": Priority.HIGH, "customer": Priority.MEDIUM, "analytics": Priority.LOW}


def items(domain: str, partitions: int, *, each: int = 1) -> list[Item]:
    """Events of so many partitions."""
    made: list[Item] = []
    for number in range(partitions):
        for file in range(each):
            key = CuratedKey(domain, "t", DAY + timedelta(days=number), f"{file}.parquet")
            event = ObjectEvent(key, ObjectVersion("b", key.key, "e"), "c")
            made.append(Item(Message(domain, f"{number}-{file}", "", datetime.now(UTC), 0.0, [event], 1), event))
    return made


def take_all(backlog: Backlog, workers: int) -> list[Group]:
    """What `workers` free workers take."""
    taken = (backlog.take(workers, 0) for _ in range(workers))
    return [group for group in taken if group is not None]


@pytest.mark.unit
@pytest.mark.parametrize("workers", [FEWEST_WORKERS, 20])
def test_a_flood_of_low_priority_leaves_workers_free(workers: int) -> None:
    backlog = Backlog(PRIORITIES)
    backlog.add(items("analytics", 1000))
    assert len(take_all(backlog, workers)) == workers // 2
    backlog.add(items("market", 1))
    urgent = backlog.take(workers, 0)
    assert urgent is not None
    assert urgent.domain == "market"


@pytest.mark.unit
def test_floods_everywhere_share_by_priority() -> None:
    backlog = Backlog(PRIORITIES)
    for domain in PRIORITIES:
        backlog.add(items(domain, 1000))
    running = take_all(backlog, 14)
    assert Counter(group.domain for group in running) == {"market": 8, "customer": 4, "analytics": 2}


@pytest.mark.unit
def test_a_partition_is_worked_on_by_one_worker_and_what_waits_for_it_becomes_a_list() -> None:
    backlog = Backlog(PRIORITIES)
    backlog.add(items("market", 1, each=3))
    first = backlog.take(5, 0)
    backlog.add(items("market", 1, each=4))
    assert first is not None
    assert len(first.items) == 3
    assert backlog.take(5, 0) is None
    backlog.done(first)
    second = backlog.take(5, 0)
    assert second is not None
    assert len(second.items) == 4


@pytest.mark.load
def test_market_is_loaded_while_every_insert_of_a_flood_in_analytics_hangs(cloud: Cloud) -> None:
    settings = cloud.settings
    bench = make_bench(settings)
    flooded = Bench(settings, bench.dataset.model_copy(update={"domain": "analytics"}), bench.warehouse)
    client, sqs = bench.warehouse.client, aws.sqs(settings)
    client.command(f"DROP TABLE IF EXISTS {flooded.table} SYNC")
    client.command(table_ddl(flooded.dataset))
    shipped = load_catalog(settings.catalog)
    datasets = {each.dataset.key: each.dataset for each in (bench, flooded)}
    urls = [sqs.get_queue_url(QueueName=queue_name("dev", name))["QueueUrl"] for name in ("market", "analytics")]
    for url in urls:
        purge(sqs, url)
    hang = cloud.faults("clickhouse").arm("clickhouse.delay", match={"sql": f"*INSERT INTO {flooded.table}*"},
                                          times=None, seconds=1.5)  # fmt: skip
    for number in range(30):
        flooded.ds = DAY + timedelta(days=number)
        flooded.put(f"f{number}.parquet", rows(number * 100, 100))
    agent = Agent(settings, replace(shipped, datasets=datasets), ["market", "analytics"])
    agent.start()
    try:
        wait(lambda: cloud.faults("clickhouse").struck(hang) >= 2)  # the flood has all it can get
        for number in range(5):
            bench.put(f"m{number}.parquet", rows(number * 100, 100))
        urgent, flood = bench.expected(), flooded.expected()
        wait(lambda: bench.found() == urgent)
        assert flooded.found() != flood
        cloud.faults("clickhouse").disarm(hang)
        wait(lambda: flooded.found() == flood)
    finally:
        agent.stop()
        for table in (bench.table, flooded.table):
            client.command(f"DROP TABLE {table} SYNC")
        for url in urls:
            purge(sqs, url)


def wait(condition: Any) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def purge(sqs: Any, url: str) -> None:
    # Without the 0 an empty queue is waited for as long as its own attribute says: 20 s each time.
    while messages := sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=0).get("Messages", []):
        for message in messages:
            sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
