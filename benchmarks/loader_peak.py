"""The published peak for ten minutes: 1,000 + 500 + 200 + 100 objects an hour of 5, 10, 2 and 50 MB; queue depths.

Run: python -m benchmarks.loader_peak [SECONDS]. A depth is what waits and what is in flight together.
"""

import sys
import tempfile
import threading
from pathlib import Path

from benchmarks._loader_agent import (
    ROWS_PER_MB,
    Producer,
    make_catalog,
    parquet,
    quantile,
    running_loader,
    wait_loaded,
)
from data_platform.catalog import load_catalog
from data_platform.clients import aws
from data_platform.loading.queues import DomainQueue
from data_platform.local.cloud import Cloud

SECONDS = 600
SAMPLE_S = 2.0
LIMIT_DEPTH = 50
LIMIT_P95_S = 30.0


def main(seconds: int = SECONDS) -> int:
    """Print the figures; 1 when a limit is broken."""
    with tempfile.TemporaryDirectory() as folder:
        names = ("market", "customer", "product", "analytics")
        catalog = load_catalog(make_catalog(Path(folder), names))
        planned: list[tuple[float, str, bytes]] = []
        for name in names:
            domain = catalog.domains[name]
            body = parquet(round(domain.mean_file_mb * ROWS_PER_MB))
            count = max(1, round(domain.peak_messages_per_hour * seconds / 3600))
            planned += [(number * seconds / count, name, body) for number in range(count)]
            print(f"{name}: {count} objects of {len(body) / 2**20:.1f} MB", flush=True)
        with Cloud(Path(folder)) as cloud:
            cloud.up(engines=("aws", "clickhouse"))
            sqs = aws.sqs(cloud.settings)
            queues = {name: DomainQueue.open(sqs, cloud.settings, name) for name in names}
            deepest: dict[str, int] = dict.fromkeys(names, 0)
            ended = threading.Event()
            with running_loader(cloud) as loader:

                def watch() -> None:
                    while not ended.wait(SAMPLE_S):
                        loader.rss()
                        for name, queue in queues.items():
                            depth = queue.depth()
                            deepest[name] = max(deepest[name], depth.waiting + depth.in_flight)

                watcher = threading.Thread(target=watch)
                watcher.start()
                producer = Producer(cloud.settings)
                try:
                    producer.run(planned)
                    done = wait_loaded(cloud.settings, producer.began, 120)
                finally:
                    ended.set()
                    watcher.join()
                cpu_s = loader.cpu_s()
    latencies = [(done[key] - began).total_seconds() for key, began in producer.began.items()]
    p95 = quantile(latencies, 0.95)
    print(f"{len(latencies)} objects in {seconds} s; the producer was {producer.late_s:.1f} s late at most")
    print(f"median {quantile(latencies, 0.5):.2f} s, longest {max(latencies):.2f} s")
    print(f"loader: {1000 * cpu_s / len(latencies):.0f} ms CPU a message, {loader.most_rss / 2**20:.0f} MB at most")
    print(f"deepest queues: {', '.join(f'{name} {depth}' for name, depth in deepest.items())}")
    print(f"depth of the deepest queue: {max(deepest.values())} (limit {LIMIT_DEPTH})")
    print(f"p95 from object to visible row: {p95:.2f} s (limit {LIMIT_P95_S})")
    return int(max(deepest.values()) >= LIMIT_DEPTH or p95 > LIMIT_P95_S)


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:2])))
