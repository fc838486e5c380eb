"""Logs that came late, over refusals of SQS and S3, lost and doubled messages, runs that fail, daemons that die."""

import random
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import orjson
import pytest

from data_platform.catalog import Catalog, load_catalog
from data_platform.catalog.models import Dataset
from data_platform.clients import aws
from data_platform.curation import event_index
from data_platform.curation.event_index import IndexCache, refresh_index
from data_platform.curation.events import curate_events, stale_days
from data_platform.curation.manifest import read_manifest
from data_platform.jobs.daily import daily_jobs
from data_platform.jobs.lookback import RANGE_END_TAG, RANGE_START_TAG
from data_platform.local.cloud import Cloud
from data_platform.sensors import event_logs
from data_platform.sensors.event_logs import MAX_RECEIVES, MAX_RUNS, Cursor, event_logs_sensor
from data_platform.settings import Settings
from tests.flow import dataset_entry, write_catalog
from tests.sensors.conftest import Daemon, death

pytestmark = pytest.mark.integration
DOMAIN = "product"
FIRST = date(2024, 3, 1)
EVENTS = load_catalog(Path(__file__).parents[2] / "catalog").dataset("analytics/events")


@dataclass
class Logs:
    """Raw logs under a prefix of their own, their queue, the dataset that is made of them."""

    settings: Settings
    catalog: Catalog
    dataset: Dataset
    prefix: str

    def __post_init__(self) -> None:
        self.s3: Any = aws.s3(self.settings)
        self.sqs: Any = aws.sqs(self.settings)
        self.put_keys: list[str] = []

    def url(self, kind: str = "queue") -> str:
        return self.sqs.get_queue_url(QueueName=f"{self.settings.env}-event-logs-{kind}")["QueueUrl"]

    def put(self, *days: date, announced: int = 1) -> str:
        """An object with an event of each day, exported today, announced so often."""
        records = [
            {"timeUnixNano": str(int(datetime(d.year, d.month, d.day, 12, tzinfo=UTC).timestamp()) * 10**9),
             "eventName": "seen", "attributes": []}
            for d in days
        ]  # fmt: skip
        resource = {"attributes": [{"key": "service.name", "value": {"stringValue": "shop"}}]}
        body = {"resourceLogs": [{"resource": resource, "scopeLogs": [{"logRecords": records}]}]}
        now = datetime.now(UTC)
        key = f"{self.prefix}/year={now:%Y}/month={now:%m}/day={now:%d}/hour={now:%H}/{uuid.uuid4().hex}.json"
        self.s3.put_object(Bucket=self.settings.raw_bucket, Key=key, Body=orjson.dumps(body) + b"\n")
        self.put_keys.append(key)
        for _ in range(announced):
            self.announce(key)
        return key

    def announce(self, key: str) -> None:
        body = orjson.dumps({"bucket": self.settings.raw_bucket, "key": key}).decode()
        self.sqs.send_message(QueueUrl=self.url(), MessageBody=body)

    def drain(self, kind: str) -> list[str]:
        taken: list[str] = []
        while found := self.sqs.receive_message(QueueUrl=self.url(kind), MaxNumberOfMessages=10, WaitTimeSeconds=0).get(
            "Messages", []
        ):
            for message in found:
                taken.append(message["Body"])
                self.sqs.delete_message(QueueUrl=self.url(kind), ReceiptHandle=message["ReceiptHandle"])
        return taken

    def left(self) -> int:
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = self.sqs.get_queue_attributes(QueueUrl=self.url(), AttributeNames=names)["Attributes"]
        return sum(int(value) for value in found.values())

    def visibility(self, seconds: int) -> None:
        self.sqs.set_queue_attributes(QueueUrl=self.url(), Attributes={"VisibilityTimeout": str(seconds)})

    def curate(self, request: dg.RunRequest) -> list[tuple[date, str]]:
        """What the launched run does; the days with what they were made of."""
        first, last = (date.fromisoformat(request.tags[tag]) for tag in (RANGE_START_TAG, RANGE_END_TAG))
        days = [first + timedelta(days=n) for n in range((last - first).days + 1)]
        return [
            (day, curate_events(self.settings, self.s3, self.dataset, day).stored.manifest.source.version)
            for day in days
        ]

    def sensor(self) -> dg.SensorDefinition:
        return event_logs_sensor(self.catalog, dg.DefaultSensorStatus.STOPPED, jobs=daily_jobs(self.catalog))

    def daemon(self, instance: dg.DagsterInstance, work: Any) -> Daemon:
        return Daemon(self.sensor(), lambda: self.settings, instance, work)

    def tick_until_empty(self, daemon: Daemon) -> None:
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            daemon.tick()
            if not self.left():
                return
            time.sleep(0.3)
        raise AssertionError(f"{self.left()} messages are left")


@pytest.fixture
def logs(cloud: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Logs]:
    monkeypatch.setattr(event_logs, "WAIT_S", 0)
    prefix = f"late-{uuid.uuid4().hex}"
    columns = [column.model_dump(mode="json", exclude_defaults=True) for column in EVENTS.columns]
    entry = dataset_entry(DOMAIN, f"events_{uuid.uuid4().hex[:8]}", columns=columns, order_by=list(EVENTS.order_by))
    entry |= {"source": {"kind": "otel_logs", "prefix": prefix}}
    del entry["end"]
    catalog = write_catalog(tmp_path, DOMAIN, [entry])
    (dataset,) = catalog.datasets.values()
    found = Logs(cloud.settings.model_copy(update={"catalog": tmp_path}), catalog, dataset, prefix)
    for kind in ("queue", "dlq"):
        found.drain(kind)
    found.visibility(1)
    yield found
    found.visibility(60)
    for kind in ("queue", "dlq"):
        found.drain(kind)


@pytest.mark.parametrize("ticks", [12, pytest.param(100, marks=pytest.mark.load)])
def test_late_logs_are_taken_in_once_over_faults_failing_runs_and_deaths(
    cloud: Cloud, logs: Logs, instance: dg.DagsterInstance, chance: random.Random, ticks: int
) -> None:
    faults, seen, made = cloud.faults("aws"), Counter[str](), Counter[tuple[date, str]]()

    def work(request: dg.RunRequest) -> bool:
        mark = request.tags["data_platform/logs"]
        if chance.random() < 0.3 and seen[mark] < MAX_RUNS - 1:
            seen[mark] += 1
            seen["runs failed"] += 1
            return False
        made.update(logs.curate(request))
        return True

    daemon = logs.daemon(instance, work)
    for _ in range(ticks):
        if chance.random() < 0.5:
            days = [FIRST + timedelta(days=chance.randrange(6)) for _ in range(chance.randint(1, 2))]
            logs.put(*days, announced=chance.choice([1, 1, 2, 5]))
        fault = None
        if chance.random() < 0.5:
            if chance.random() < 0.6:
                action = chance.choice(["ReceiveMessage", "DeleteMessageBatch", "GetQueueUrl"])
                fault = faults.arm("sqs.error", match={"action": action}, status=403)
            else:
                match = {"method": "PUT", "bucket": logs.settings.raw_bucket}  # the index
                fault = faults.arm("s3.error", match=match, status=403)
        daemon.tick(dies=death(chance))
        if fault is not None:
            seen["struck"] += faults.struck(fault)
        faults.clear()
    logs.tick_until_empty(daemon)
    assert stale_days(logs.settings, logs.s3, logs.dataset) == [], "every log is taken in"
    assert made, "something was late"
    assert set(made.values()) == {1}, "no day was made twice of the same logs"
    assert logs.drain("dlq") == []
    assert seen["struck"] > 0
    assert daemon.seen["whole"] < daemon.seen["ticks"]
    assert seen["runs failed"] > 0 or ticks < 50


def test_todays_logs_wait_for_the_schedule_and_old_ones_are_taken_in(logs: Logs, instance: dg.DagsterInstance) -> None:
    today = datetime.now(UTC).date()
    logs.put(today)
    late = logs.put(today, today - timedelta(days=1))
    daemon = logs.daemon(instance, lambda request: bool(logs.curate(request)))
    logs.tick_until_empty(daemon)
    (run,) = daemon.runs
    yesterday = (today - timedelta(days=1)).isoformat()
    assert (run.tags[RANGE_START_TAG], run.tags[RANGE_END_TAG]) == (yesterday, yesterday)
    assert run.tags["data_platform/reason"] == "logs came late"
    assert late in refresh_index(logs.s3, logs.settings.raw_bucket, logs.prefix).objects
    assert read_manifest(logs.s3, logs.settings.curated_bucket, DOMAIN, logs.dataset.name, today) is None


def test_an_event_that_never_came_is_made_good_once_a_day(logs: Logs, instance: dg.DagsterInstance) -> None:
    logs.put(FIRST)
    daemon = logs.daemon(instance, lambda request: bool(logs.curate(request)))
    logs.tick_until_empty(daemon)
    logs.put(FIRST, announced=0)
    logs.put(FIRST + timedelta(days=1), announced=0)  # a day nobody ever made is a backfill's
    daemon.tick()
    assert len(daemon.runs) == 1, "all days were looked at today"
    daemon.cursor = Cursor(looked=date(2024, 1, 1)).model_dump_json()
    daemon.tick()
    assert [run.tags[RANGE_END_TAG] for run in daemon.runs] == [FIRST.isoformat()] * 2
    assert stale_days(logs.settings, logs.s3, logs.dataset) == [FIRST + timedelta(days=1)]


def test_what_names_no_log_and_what_fails_for_good_is_left_to_a_person(
    logs: Logs, instance: dg.DagsterInstance
) -> None:
    logs.sqs.send_message(QueueUrl=logs.url(), MessageBody="not JSON")
    logs.announce(f"{logs.prefix}/year=2024/month=03/day=01/hour=00/gone.json")  # nothing is to be taken in
    bad = logs.put(FIRST)
    daemon = logs.daemon(instance, lambda _: False)
    logs.tick_until_empty(daemon)
    assert len(daemon.runs) == MAX_RUNS
    dead = logs.drain("dlq")
    assert sorted(dead) == sorted(["not JSON", orjson.dumps({"bucket": logs.settings.raw_bucket, "key": bad}).decode()])
    assert daemon.seen["ticks"] >= MAX_RECEIVES


def test_logs_that_expire_change_no_day_also_when_their_whole_month_is_gone(
    logs: Logs, instance: dg.DagsterInstance
) -> None:
    key = logs.put(FIRST, announced=0)
    old = key.replace(f"year={datetime.now(UTC):%Y}", "year=2023")
    bucket = logs.settings.raw_bucket
    logs.s3.copy_object(Bucket=bucket, Key=old, CopySource={"Bucket": bucket, "Key": key})
    before = refresh_index(logs.s3, bucket, logs.prefix)
    curate_events(logs.settings, logs.s3, logs.dataset, FIRST)
    for version in logs.s3.list_object_versions(Bucket=bucket, Prefix=old)["Versions"]:
        logs.s3.delete_object(Bucket=bucket, Key=old, VersionId=version["VersionId"])
    assert refresh_index(logs.s3, bucket, logs.prefix).objects == before.objects
    assert len(before.objects) == 2
    daemon = logs.daemon(instance, lambda request: bool(logs.curate(request)))
    daemon.tick()
    assert daemon.runs == []
    assert stale_days(logs.settings, logs.s3, logs.dataset) == []


def test_days_that_the_dataset_does_not_have_are_nobodys(logs: Logs, instance: dg.DagsterInstance) -> None:
    assert logs.dataset.start is not None
    logs.put(logs.dataset.start - timedelta(days=1), datetime.now(UTC).date() + timedelta(days=400))
    daemon = logs.daemon(instance, lambda request: bool(logs.curate(request)))
    logs.tick_until_empty(daemon)
    assert daemon.runs == []


def test_a_finished_month_is_parsed_once(logs: Logs, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[str] = []
    read = event_index._read

    def counted(s3: Any, bucket: str, key: str) -> Any:
        parsed.append(key)
        return read(s3, bucket, key)

    monkeypatch.setattr(event_index, "_read", counted)
    logs.put(FIRST, announced=0)
    bucket, cache = logs.settings.raw_bucket, IndexCache()
    found = [refresh_index(logs.s3, bucket, logs.prefix, cache=cache).objects for _ in range(4)]
    assert len(parsed) == 1
    logs.put(FIRST, announced=0)
    later = refresh_index(logs.s3, bucket, logs.prefix, months=(), cache=cache).objects
    assert found == [later] * 4, "a month that is not looked through stays as it was"
    assert len(refresh_index(logs.s3, bucket, logs.prefix, cache=cache).objects) == 2


def test_an_index_that_is_not_finished_in_time_goes_on_at_the_next_tick(logs: Logs) -> None:
    keys = [logs.put(FIRST, announced=0) for _ in range(3)]
    bucket = logs.settings.raw_bucket
    none = refresh_index(logs.s3, bucket, logs.prefix, until=time.monotonic())
    assert (none.complete, dict(none.objects)) == (False, {})
    whole = refresh_index(logs.s3, bucket, logs.prefix)
    assert (whole.complete, sorted(whole.objects)) == (True, sorted(keys))
    assert refresh_index(logs.s3, bucket, logs.prefix, until=time.monotonic()).complete, "nothing is left to decode"
