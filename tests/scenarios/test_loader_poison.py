"""Poison among good objects: each dead letter with its code after one attempt, every good object loaded."""

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from data_platform.catalog.keys import dlq_name, queue_name
from data_platform.clients import aws
from data_platform.loading import agent as agent_module
from data_platform.loading.agent import Agent
from data_platform.loading.deadletters import receive_letters
from data_platform.loading.warehouse import open_warehouse
from data_platform.local.cloud import Cloud
from tests.flow import FIRST_DAY, open_flow
from tests.loading.conftest import Bench, parquet, rows
from tests.loading.poison import ROWS, poisons

DAYS = 4
COLUMNS = [{"name": "id", "type": "Int64"}, {"name": "name", "type": "String", "nullable": True}]


@dataclass
class Mix:
    """A queue with good objects and poison in it, in random order."""

    bench: Bench
    dead: dict[str, str]  # key -> code


def mixed(bench: Bench, queue_url: str, *, objects: int, of_each: int, seed: int) -> Mix:
    """Put `objects`, `of_each` of every kind of poison among them; real events tell of all but empty ones."""
    dice = random.Random(seed)
    sqs, s3 = aws.sqs(bench.settings), bench.warehouse.s3
    dead: dict[str, str] = {}
    puts: list[Callable[[], Any]] = []
    for number in range(of_each):
        for poison in poisons(1_000_000_000 + number * 1000, dice):
            file = f"bad-{poison.kind.replace(' ', '-')}-{number:04}.parquet"

            def put_poison(poison: Any = poison, file: str = file) -> None:
                event = bench.put(file, body=poison.body if poison.body is not None else parquet(rows(0, ROWS)))
                dead[event.version.key] = poison.code
                if poison.body is None:
                    s3.delete_object(Bucket=event.version.bucket, Key=event.version.key)
                if poison.body == b"":
                    body = {"bucket": event.version.bucket, "key": event.version.key, "etag": event.version.etag}
                    sqs.send_message(QueueUrl=queue_url, MessageBody=json.dumps(body))

            puts.append(put_poison)
    puts.extend(
        lambda number=number: bench.put(f"good-{number:05}.parquet", rows(number * ROWS, ROWS, tag=str(seed)))
        for number in range(objects - len(puts))
    )
    dice.shuffle(puts)
    for number, put in enumerate(puts):
        bench.ds = FIRST_DAY + timedelta(days=number % DAYS)
        put()
    return Mix(bench, dead)


def load_mix(cloud: Cloud, folder: Path, *, objects: int, of_each: int) -> None:
    entry = {"name": "ticks", "columns": COLUMNS}
    with open_flow(cloud, folder / "catalog", entry) as flow:
        settings = flow.settings.model_copy(update={"loader_gone_to_dlq": True})
        sqs = aws.sqs(settings)
        urls = [sqs.get_queue_url(QueueName=name(settings.env, flow.domain))["QueueUrl"] for name in
                (queue_name, dlq_name)]  # fmt: skip
        bench = Bench(settings, flow["ticks"], open_warehouse(settings))
        mix = mixed(bench, urls[0], objects=objects, of_each=of_each, seed=objects)
        agent = Agent(settings, flow.catalog, [flow.domain])
        agent.start()
        try:
            assert agent.until_empty(600), agent.tally
        finally:
            agent.stop()
        assert bench.found() == bench.expected()
        letters = [held.letter for held in receive_letters(sqs, settings, [flow.domain])]
        assert {letter.key: letter.code for letter in letters} == mix.dead
        assert len(letters) == len(mix.dead) == of_each * 8
        assert {letter.attempts for letter in letters} == {1}
        assert agent.tally.outcomes == {"loaded": objects - len(letters)}
        bench.warehouse.client.close()


@pytest.fixture(autouse=True)
def _drained_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent_module, "DRAIN_POLL_S", 0.5)


@pytest.mark.scenario
def test_poison_dies_at_its_first_attempt_and_alone(cloud: Cloud, tmp_path: Path) -> None:
    load_mix(cloud, tmp_path, objects=100, of_each=1)


@pytest.mark.load
@pytest.mark.timeout(1200)
def test_one_percent_of_every_poison_among_2000_objects_dies_alone(cloud: Cloud, tmp_path: Path) -> None:
    load_mix(cloud, tmp_path, objects=2000, of_each=20)
