"""What poison costs: objects a second with 1 % of each kind of poison among them, of the speed with none. A ratio.

Both sides drain the same number of small objects from their queue with the same agent, by turns.
"""

import json
import logging
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from data_platform.catalog.keys import queue_name
from data_platform.clients import aws
from data_platform.loading.agent import Agent
from data_platform.loading.warehouse import open_warehouse
from data_platform.local.cloud import Cloud
from tests.flow import FIRST_DAY, Flow, open_flow
from tests.loading.conftest import Bench, parquet, rows
from tests.loading.poison import poisons

OBJECTS, OF_EACH = 2000, 20  # 1 % of each kind
ROUNDS = 2
DAYS = 4
ROWS = 400
LIMIT = 0.95
PATIENCE_S = 300
COLUMNS = [{"name": "id", "type": "Int64"}, {"name": "name", "type": "String", "nullable": True}]


def fill(bench: Bench, flow: Flow, of_each: int) -> None:
    """Put all objects; the queue holds one message for each. Empty objects raise no event, so theirs are sent."""
    dice = random.Random(1)
    url = aws.sqs(bench.settings).get_queue_url(QueueName=queue_name(flow.settings.env, flow.domain))["QueueUrl"]
    found = [poison for number in range(of_each) for poison in poisons(10**9 + number * 1000, dice)]
    bodies: list[tuple[str, bytes | None]] = [(f"bad-{number}.parquet", each.body) for number, each in enumerate(found)]
    bodies += [(f"good-{n}.parquet", parquet(rows(n * ROWS, ROWS))) for n in range(OBJECTS - len(bodies))]
    dice.shuffle(bodies)
    for number, (file, body) in enumerate(bodies):
        bench.ds = FIRST_DAY + timedelta(days=number % DAYS)
        event = bench.put(file, body=parquet(rows(0, ROWS)) if body is None else body)
        if body is None:
            bench.delete(event)
        if body == b"":
            message = {"bucket": event.version.bucket, "key": event.version.key, "etag": event.version.etag}
            aws.sqs(bench.settings).send_message(QueueUrl=url, MessageBody=json.dumps(message))
    wait(lambda: depth(bench, url) >= OBJECTS)


def depth(bench: Bench, url: str) -> int:
    """Messages that wait."""
    told = aws.sqs(bench.settings).get_queue_attributes(QueueUrl=url, AttributeNames=["ApproximateNumberOfMessages"])
    return int(told["Attributes"]["ApproximateNumberOfMessages"])


def wait(condition: Callable[[], bool]) -> None:
    """Until it holds."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def drain(cloud: Cloud, of_each: int) -> float:
    """Seconds in which an agent deals with all objects of a new table."""
    entry: dict[str, Any] = {"name": "ticks", "columns": COLUMNS}
    with tempfile.TemporaryDirectory() as folder, open_flow(cloud, Path(folder), entry) as flow:
        settings = flow.settings.model_copy(update={"loader_gone_to_dlq": True})
        bench = Bench(settings, flow["ticks"], open_warehouse(settings))
        fill(bench, flow, of_each)
        agent = Agent(settings, flow.catalog, [flow.domain])
        started = time.perf_counter()
        agent.start()
        try:
            wait(lambda: agent.tally.objects + agent.tally.dead_lettered >= OBJECTS)
            seconds = time.perf_counter() - started
        finally:
            agent.stop()
        assert agent.tally.dead_lettered == of_each * 8, agent.tally
        assert agent.tally.outcomes == {"loaded": OBJECTS - of_each * 8}, agent.tally
        bench.warehouse.client.close()
        return seconds


def main() -> int:
    """Print the ratio; 1 when the limit is broken."""
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as folder, Cloud(Path(folder)) as cloud:
        cloud.up(engines=("aws", "clickhouse", "warehouse"))
        clean, mixed = [], []
        for _ in range(ROUNDS):
            clean.append(drain(cloud, 0))
            mixed.append(drain(cloud, OF_EACH))
    print(f"clean: {OBJECTS / min(clean):.0f} objects/s, median {OBJECTS / statistics.median(clean):.0f}")
    print(f"with poison: {OBJECTS / min(mixed):.0f} objects/s, median {OBJECTS / statistics.median(mixed):.0f}")
    ratio = min(clean) / min(mixed)
    print(f"objects a second with poison, of the clean run's: {ratio:.2f} (limit {LIMIT})")
    return int(ratio < LIMIT)


if __name__ == "__main__":
    sys.exit(main())
