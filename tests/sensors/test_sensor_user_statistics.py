"""CSV drops over refusals of SQS, an absent ledger, runs that die and daemons that die behind the receipt."""

import random
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import sqlalchemy as sa
from pydantic import SecretStr

from data_platform.assets.user_statistics import file_of
from data_platform.build import build_defs
from data_platform.clients import aws
from data_platform.local.cloud import Cloud
from data_platform.local.process import free_port
from data_platform.sensors import user_statistics
from data_platform.sensors.user_statistics import MAX_RUNS, user_statistics_job, user_statistics_sensor
from data_platform.settings import Settings
from tests.sensors.conftest import Daemon, death
from tests.statistics.bench import HEADER, Bench, emptied, make_bench

pytestmark = pytest.mark.integration


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """Kept in files: a tick looks partitions up in no other."""
    with dg.DagsterInstance.local_temp(str(tmp_path)) as found:
        yield found


@pytest.fixture
def bench(cloud: Cloud) -> Iterator[Bench]:
    """A database of its own, an empty queue whose messages come again after a second."""
    for queue in ("queue", "dlq"):
        drain(cloud.settings, queue)
    visibility(cloud.settings, 1)
    for made in make_bench(cloud, f"t_{uuid.uuid4().hex}"):
        yield emptied(made)
    visibility(cloud.settings, 60)


def queue_url(settings: Settings, kind: str) -> str:
    return aws.sqs(settings).get_queue_url(QueueName=f"{settings.env}-user-statistics-{kind}")["QueueUrl"]


def drain(settings: Settings, kind: str) -> int:
    """Take all there is; how many that were."""
    sqs, url, count = aws.sqs(settings), queue_url(settings, kind), 0
    while found := sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=0).get("Messages", []):
        count += len(found)
        for message in found:
            sqs.delete_message(QueueUrl=url, ReceiptHandle=message.get("ReceiptHandle", ""))
    return count


def visibility(settings: Settings, seconds: int) -> None:
    attributes: Any = {"VisibilityTimeout": str(seconds)}
    aws.sqs(settings).set_queue_attributes(QueueUrl=queue_url(settings, "queue"), Attributes=attributes)


def left(settings: Settings) -> int:
    names: Any = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    found = aws.sqs(settings).get_queue_attributes(QueueUrl=queue_url(settings, "queue"), AttributeNames=names)
    return sum(int(value) for value in found["Attributes"].values())


@pytest.mark.parametrize("ticks", [6, pytest.param(100, marks=pytest.mark.load)])
def test_every_drop_is_applied_once_over_outages_and_deaths(
    cloud: Cloud,
    bench: Bench,
    instance: dg.DagsterInstance,
    chance: random.Random,
    ticks: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(user_statistics, "WAIT_S", 0)
    faults, seen, applied, died = cloud.faults("aws"), Counter[str](), Counter[str](), Counter[str]()
    settings, dropped, port = bench.settings, list[str](), free_port()

    def work(request: dg.RunRequest) -> bool:
        partition = str(request.partition_key)
        if chance.random() < 0.25 and died[partition] < MAX_RUNS - 1:
            died[partition] += 1
            return False
        applied[bench.apply(file_of(bench.settings, partition)).file.file_id] += 1
        return True

    sensor = user_statistics_sensor(user_statistics_job(), dg.DefaultSensorStatus.STOPPED)
    daemon = Daemon(sensor, lambda: settings, instance, work, build_defs(bench.settings))
    for number in range(ticks):
        if chance.random() < 0.4:
            if chance.random() < 0.3:
                seen["twice"] += 1
                faults.arm("events.duplicate")
            dropped.append(bench.drop(f"{HEADER}U00001,{number},1\n").file_id)
        settings = bench.settings
        if chance.random() < 0.2:
            away = sa.make_url(settings.postgres_url.get_secret_value()).set(host="127.0.0.1", port=port)  # type: ignore[union-attr]
            url = SecretStr(away.render_as_string(hide_password=False))
            settings, seen["ledger away"] = settings.model_copy(update={"postgres_url": url}), seen["ledger away"] + 1
        refused = None
        if chance.random() < 0.25:
            action = chance.choice(["ReceiveMessage", "DeleteMessageBatch", "GetQueueUrl"])
            refused = faults.arm("sqs.error", match={"action": action}, status=403)
        daemon.tick(dies=death(chance))
        if refused is not None:
            seen["refused"] += faults.struck(refused)
        faults.clear()
    settings = bench.settings
    deadline = time.monotonic() + 120
    while (left(settings) or set(applied) != set(dropped)) and time.monotonic() < deadline:
        assert daemon.tick(), daemon.errors[-1]
        time.sleep(0.3)
    assert applied == Counter(dropped), "each was applied, and once"
    assert left(settings) == 0
    assert drain(settings, "dlq") == 0
    assert bench.rows("SELECT count(*) FROM processing_metadata") == [(len(dropped),)]
    assert seen["ledger away"] > 0
    assert daemon.seen["failed"] > 0
    assert seen["refused"] > 0 or ticks < 50
    assert daemon.seen["whole"] < daemon.seen["ticks"]
