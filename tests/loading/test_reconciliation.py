"""Objects whose event never came, small ones among them; and what Dagster is told while no agent runs."""

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import dagster as dg
import pytest

from data_platform.catalog import load_catalog
from data_platform.catalog.keys import dlq_name, queue_name
from data_platform.clients import aws
from data_platform.jobs.loading import catch_up_job, reconciliation_job
from data_platform.loading import reconcile
from data_platform.loading.loader import load_objects
from data_platform.local.cloud import Cloud
from data_platform.sensors.dlq import dead_letter_checks, dead_letter_sensor
from data_platform.sensors.loading import load_queue_sensor
from data_platform.sensors.reconciliation import reconciliation_schedule
from data_platform.settings import Settings
from tests.loading.conftest import DS, Bench, rows

pytestmark = pytest.mark.integration


class Fixed:
    """A settings resource of the embedded cloud."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def load(self) -> Settings:
        return self._settings


def test_the_listing_finds_what_no_event_announced(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconcile, "SETTLED_S", 0)
    loaded = bench.put("loaded.parquet", rows(0, 300))
    load_objects(bench.warehouse, bench.dataset, [loaded])
    bench.put("silent.parquet", rows(1000, 300))
    small = bench.put("small.parquet", rows(5000, 2))
    assert small.version.bytes < 1024
    poison = bench.put("poison.parquet", body=b"not Parquet")
    load_objects(bench.warehouse, bench.dataset, [poison])
    days = [DS - timedelta(days=1), DS]
    (gap,) = reconcile.find_gaps(bench.warehouse, [bench.dataset], days)
    names = [version.key.rpartition("/")[2] for version in gap.missing]
    assert sorted(names) == ["silent.parquet", "small.parquet"]
    mended = reconcile.mend(bench.warehouse, gap)
    assert (mended.objects, mended.rows, mended.failed) == (2, 302, {})
    assert bench.found() == bench.expected()
    assert reconcile.find_gaps(bench.warehouse, [bench.dataset], days) == []


def test_a_young_object_is_left_to_its_event(bench: Bench) -> None:
    bench.put("young.parquet", rows(0, 300))
    assert reconcile.find_gaps(bench.warehouse, [bench.dataset], [DS]) == []


def test_messages_that_nobody_receives_start_one_run_and_stay_in_the_queue(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    sqs = aws.sqs(cloud.settings)
    url = sqs.get_queue_url(QueueName=queue_name("dev", "product"))["QueueUrl"]
    sqs.send_message(QueueUrl=url, MessageBody="{")
    sensor = load_queue_sensor(catch_up_job(), dg.DefaultSensorStatus.STOPPED)
    requests: list[Any] = []
    cursor = None
    with dg.DagsterInstance.ephemeral() as instance:
        for _ in range(2):
            context = dg.build_sensor_context(
                instance=instance, cursor=cursor, resources={"platform": Fixed(cloud.settings)}
            )
            result = sensor(context)
            cursor = result.cursor
            requests += result.run_requests or []
    assert len(requests) == 1
    assert requests[0].run_config["ops"]["load_until_empty"]["config"]["domains"][-1:] == ["product"]
    attributes = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["ApproximateNumberOfMessages"])["Attributes"]
    assert attributes["ApproximateNumberOfMessages"] == "1"
    message = sqs.receive_message(QueueUrl=url)["Messages"][0]
    sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])


def test_a_dead_letter_turns_the_domains_check_red_once(cloud: Cloud) -> None:
    sqs = aws.sqs(cloud.settings)
    url = sqs.get_queue_url(QueueName=dlq_name("dev", "product"))["QueueUrl"]
    sqs.send_message(QueueUrl=url, MessageBody=json.dumps({"any": "thing"}))
    sensor = dead_letter_sensor(dg.DefaultSensorStatus.STOPPED)
    context = dg.build_sensor_context(resources={"platform": Fixed(cloud.settings)})
    first = sensor(context)
    red = [event.asset_key.to_user_string() for event in first.asset_events if not event.passed]
    assert red == ["clickhouse/product/planes"]
    again = sensor(dg.build_sensor_context(cursor=first.cursor, resources={"platform": Fixed(cloud.settings)}))
    assert again.asset_events == []
    message = sqs.receive_message(QueueUrl=url)["Messages"][0]
    sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])


def test_checks_and_schedule_are_valid_definitions(cloud: Cloud) -> None:
    catalog = load_catalog(cloud.settings.catalog)
    assert len(dead_letter_checks(catalog)) == len(catalog.domains)
    schedule = reconciliation_schedule(reconciliation_job(), dg.DefaultScheduleStatus.STOPPED)
    assert schedule.cron_schedule == "45 3 * * *"
    assert replace(catalog, topics={}).domains == catalog.domains
