"""The agent on real queues: delivery, duplicates, poison with its code, outages, pauses, stopping, many agents."""

import json
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from data_platform.catalog import Catalog, load_catalog
from data_platform.catalog.keys import dlq_name, queue_name
from data_platform.clients import aws
from data_platform.errors import ConfigurationError, PlatformError
from data_platform.loading import agent as agent_module
from data_platform.loading import receiving, selftest, work
from data_platform.loading.agent import Agent
from data_platform.loading.deadletters import Held, drop, let_go, receive_letters, replay, select
from data_platform.loading.domains import DomainState, read_domains, write_domain
from data_platform.loading.errors import CODES, Code
from data_platform.loading.message import ObjectEvent
from data_platform.loading.queues import DomainQueue
from data_platform.local.cloud import Cloud
from tests.loading.conftest import Bench, rows

pytestmark = pytest.mark.integration
DRAIN_S = 60


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits made for people and for SQS's bill are shorter here."""
    monkeypatch.setattr(agent_module, "DRAIN_POLL_S", 0.3)
    monkeypatch.setattr(agent_module, "HOUSEKEEPING_S", 0.3)
    monkeypatch.setattr(receiving, "LONGEST_POLL_S", 1)


@pytest.fixture
def queue(bench: Bench) -> Iterator["Queue"]:
    """The market queue, empty before and after."""
    made = Queue(bench)
    made.purge()
    yield made
    made.purge()


class Queue:
    """Sends what S3 would, and an agent whose catalogue has the bench's table alone in its domain."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.sqs = aws.sqs(bench.settings)
        self.url = self.sqs.get_queue_url(QueueName=queue_name("dev", "market"))["QueueUrl"]
        self.dead = self.sqs.get_queue_url(QueueName=dlq_name("dev", "market"))["QueueUrl"]

    @property
    def catalog(self) -> Catalog:
        shipped = load_catalog(self.bench.settings.catalog)
        return replace(shipped, datasets={self.bench.dataset.key: self.bench.dataset})

    def agent(self, **options: Any) -> Agent:
        return Agent(self.bench.settings, self.catalog, ["market"], **options)

    def purge(self) -> None:
        # SQS purges a queue once a minute only. The bucket's own events are on their way until two receives are empty.
        for url in (self.url, self.dead):
            empty = 0
            while empty < 2:
                messages = self.sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=0).get(
                    "Messages", []
                )
                empty = 0 if messages else empty + 1
                for message in messages:
                    self.sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])

    def send(self, event: ObjectEvent, copies: int = 1) -> None:
        version = event.version
        body = {
            "bucket": version.bucket,
            "key": version.key,
            "file_size": version.bytes,
            "etag": version.etag,
            "sequencer": version.sequencer,
            "version_id": version.version_id,
            "correlation_id": "test",
        }
        for _ in range(copies):
            self.sqs.send_message(QueueUrl=self.url, MessageBody=json.dumps(body))

    def letters(self) -> list[Held]:
        held = list(receive_letters(self.sqs, self.bench.settings, ["market"]))
        let_go(self.sqs, self.bench.settings, held)
        return held


def run(queue: Queue, agent: Agent) -> None:
    agent.start()
    try:
        assert agent.until_empty(DRAIN_S), queue.bench.found()
    finally:
        agent.stop()


def test_a_backlog_with_duplicates_and_poison_is_loaded_exactly(queue: Queue, cloud: Cloud) -> None:
    bench = queue.bench
    # Written to the bucket, the objects also raise events of their own: each arrives at least twice.
    events = [bench.put(f"part-{n}.parquet", rows(n * 40, 40)) for n in range(30)]
    for event in events:
        queue.send(event, copies=2)
    queue.send(bench.put("bad.parquet", body=b"no parquet at all, but long enough for an event" * 40))
    queue.sqs.send_message(QueueUrl=queue.url, MessageBody="{")
    queue.sqs.send_message(QueueUrl=queue.url, MessageBody=json.dumps({"Event": "s3:TestEvent"}))
    agent = queue.agent(metrics_port=0)
    run(queue, agent)
    assert bench.found() == bench.expected()
    codes = [held.letter.code for held in queue.letters()]
    assert set(codes) == {"E001", "E002"}
    assert all(held.letter.attempts >= 1 for held in queue.letters())
    assert agent.tally.outcomes["loaded"] == 30
    assert agent.tally.rows == 1200


def test_metrics_are_served_on_loopback_and_sent_to_cloudwatch(queue: Queue) -> None:
    bench = queue.bench
    queue.send(bench.put("a.parquet", rows(0, 400)))
    agent = queue.agent(metrics_port=0)
    agent.start()
    try:
        assert agent.until_empty(DRAIN_S)
        with urllib.request.urlopen(f"http://127.0.0.1:{agent.metrics_port}/metrics", timeout=5) as answer:
            text = answer.read().decode()
    finally:
        agent.stop()
    assert 'data_platform_load_events_total{domain="market",outcome="loaded"} 1' in text
    assert 'data_platform_load_rows_total{domain="market"} 400' in text
    assert 'data_platform_load_stage_seconds_bucket{domain="market",stage="insert",le="+Inf"} 1' in text
    names = {
        metric["MetricName"]
        for metric in aws.cloudwatch(bench.settings).list_metrics(Namespace="DataPlatform/Load")["Metrics"]
    }
    assert {"ProcessingLatency", "SuccessRate", "ErrorRate"} <= names


def test_while_clickhouse_is_away_nothing_is_dead_lettered_and_all_is_caught_up(
    queue: Queue, cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "AWAY_S", 1)
    bench = queue.bench
    agent = queue.agent()
    agent.start()
    try:
        cloud.kill("clickhouse")
        for n in range(8):
            queue.send(bench.put(f"part-{n}.parquet", rows(n * 40, 40)))
        time.sleep(3)
        waiting = agent.metrics.status()["market"]["state"]
        cloud.restart("clickhouse")
        assert agent.until_empty(DRAIN_S)
    finally:
        agent.stop()
    assert waiting == "waiting for an engine"
    assert bench.found() == bench.expected()
    assert queue.letters() == []


def test_while_s3_is_away_nothing_is_dead_lettered_and_all_is_caught_up(
    queue: Queue, cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "AWAY_S", 1)
    bench = queue.bench
    events = [bench.put(f"part-{n}.parquet", rows(n * 40, 40)) for n in range(4)]
    faults = cloud.faults("aws")
    fault = faults.arm("s3.error", match={"method": "GET", "bucket": bench.settings.curated_bucket}, times=None,
                       status=503)  # fmt: skip
    for event in events:
        queue.send(event)
    agent = queue.agent()
    agent.start()
    try:
        deadline = time.monotonic() + 20
        while agent.metrics.status()["market"]["state"] != "waiting for an engine" and time.monotonic() < deadline:
            time.sleep(0.2)
        assert faults.struck(fault) >= 1
        assert agent.metrics.status()["market"]["state"] == "waiting for an engine"
        faults.disarm(fault)
        assert agent.until_empty(DRAIN_S)
    finally:
        agent.stop()
    assert bench.found() == bench.expected()
    assert queue.letters() == []
    # A request that failed while S3 came back counts: S3, asked whether it is away, answers by then. The others do not.
    attempts = [record.attempts for record in bench.warehouse.register.objects(bench.partition).values()]
    assert len(attempts) == 4
    assert max(attempts) <= 1


def test_an_object_that_keeps_failing_is_tried_three_times_in_one_receive(
    queue: Queue, cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CODES, Code.TIMEOUT, replace(CODES[Code.TIMEOUT], waits_s=(0.05, 0.1, 0.2)))
    bench = queue.bench
    event = bench.put("a.parquet", rows(0, 40))
    queue.purge()
    faults = cloud.faults("aws")
    fault = faults.arm("s3.error", match={"key": event.key.key, "method": "GET"}, times=None, status=500)
    queue.send(event)
    run(queue, queue.agent())
    assert faults.struck(fault) >= 3
    letters = queue.letters()
    assert [(held.letter.code, held.letter.attempts) for held in letters] == [("E004", 3)]
    faults.disarm(fault)
    chosen = select(queue.sqs, bench.settings, ["market"], lambda held: held.letter.key == event.key.key)
    assert replay(queue.sqs, bench.settings, chosen) == 1
    run(queue, queue.agent())
    assert bench.found() == bench.expected()
    assert queue.letters() == []


def test_a_missing_table_parks_the_domain_and_burns_no_message(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work, "AWAY_S", 1)
    bench = queue.bench
    queue.send(bench.put("a.parquet", rows(0, 40)))
    client = bench.warehouse.client
    before = read_domains(client)
    client.command(f"RENAME TABLE {bench.table} TO market.aside")
    agent = queue.agent()
    agent.start()
    try:
        deadline = time.monotonic() + DRAIN_S
        while (shown := read_domains(client)) == before and time.monotonic() < deadline:
            time.sleep(0.2)
        assert shown["market"].state is DomainState.PARKED
        assert bench.dataset.name in shown["market"].reason
        while agent.metrics.status()["market"]["state"] != "parked" and time.monotonic() < deadline:
            time.sleep(0.2)
        assert agent.metrics.status()["market"]["state"] == "parked"
    finally:
        agent.stop()
        client.command(f"RENAME TABLE market.aside TO {bench.table}")
    assert queue.letters() == []
    assert read_domains(client)["market"] == shown["market"], "parked until something works, whoever watches"
    run(queue, queue.agent())
    assert bench.found() == bench.expected()
    assert read_domains(client)["market"].state is DomainState.RUNNING


def test_a_paused_domain_is_not_received_for_until_it_is_resumed(queue: Queue) -> None:
    bench = queue.bench
    client = bench.warehouse.client
    write_domain(client, "market", DomainState.PAUSED, reason="maintenance", worker="test")
    agent = queue.agent()
    agent.start()
    try:
        time.sleep(1)
        queue.send(bench.put("a.parquet", rows(0, 40)))
        assert agent.metrics.status()["market"]["state"] == "paused"
        write_domain(client, "market", DomainState.RUNNING, reason="", worker="test")
        assert agent.until_empty(DRAIN_S)
    finally:
        agent.stop()
    assert bench.found() == bench.expected()


def test_two_agents_on_the_same_queue_load_every_object_once(queue: Queue) -> None:
    bench = queue.bench
    for n in range(40):
        queue.send(bench.put(f"part-{n}.parquet", rows(n * 40, 40)), copies=2)
    agents = [queue.agent(workers=2), queue.agent(workers=2)]
    for agent in agents:
        agent.start()
    try:
        assert agents[0].until_empty(DRAIN_S)
    finally:
        for agent in agents:
            agent.stop()
    assert bench.found() == bench.expected()
    assert sum(agent.tally.outcomes.get("loaded", 0) for agent in agents) == 40


def test_stopping_gives_back_what_waits(queue: Queue) -> None:
    bench = queue.bench
    for n in range(30):
        queue.send(bench.put(f"part-{n}.parquet", rows(n * 40, 40)))
    agent = queue.agent(workers=1)
    agent.start()
    time.sleep(0.3)
    agent.stop()
    run(queue, queue.agent())
    assert bench.found() == bench.expected()


def test_an_agent_whose_receiving_ended_by_a_bug_does_not_go_on(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    def bug(*_: object) -> None:
        raise AssertionError("bug")

    monkeypatch.setattr(DomainQueue, "receive", bug)
    agent = queue.agent()
    agent.start()
    try:
        with pytest.raises(PlatformError, match="a part of the loader ended"):
            agent.until_empty(DRAIN_S)
    finally:
        agent.stop()


class Forgetful:
    """A client of a server that ignores tokens."""

    server_version = "25.12"

    def __init__(self, client: Any) -> None:
        self._client = client

    def command(self, sql: str, settings: dict[str, Any] | None = None) -> Any:
        kept = {name: value for name, value in (settings or {}).items() if "dedup" not in name}
        return self._client.command(sql, settings={**kept, "insert_deduplicate": 0})


def test_a_server_that_ignores_tokens_is_refused(bench: Bench) -> None:
    selftest.check_deduplication(bench.warehouse.client, bench.settings)
    with pytest.raises(ConfigurationError, match="kept 6 rows"):
        selftest.check_deduplication(Forgetful(bench.warehouse.client), bench.settings)  # type: ignore[arg-type]


def test_dead_letters_are_chosen_and_dropped(queue: Queue) -> None:
    queue.sqs.send_message(QueueUrl=queue.url, MessageBody="{")
    queue.sqs.send_message(QueueUrl=queue.url, MessageBody=json.dumps({"bucket": "b-b", "key": "market/x"}))
    run(queue, queue.agent())
    settings = queue.bench.settings
    chosen = select(queue.sqs, settings, ["market"], lambda held: held.letter.code == "E001")
    assert drop(queue.sqs, settings, chosen) == 1
    assert [held.letter.code for held in queue.letters()] == ["E002"]
