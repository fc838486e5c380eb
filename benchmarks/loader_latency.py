"""Seconds from an object's creation to its rows being visible, at 20 objects a second; CPU and memory of the loader.

Run: python -m benchmarks.loader_latency [SECONDS]. Small objects of all four domains over S3, EventBridge and SQS, with
the producer and every engine on the same machine: the real command, in a process of its own.
"""

import sys
import tempfile
import time
from pathlib import Path

from benchmarks._loader_agent import Producer, make_catalog, parquet, quantile, running_loader, wait_loaded
from data_platform.local.cloud import Cloud

RATE, SECONDS, ROWS = 20, 45, 2_000
DOMAINS = ("market", "customer", "product", "analytics")
LIMIT_P95_S = 5.0
LIMIT_MEMORY_MB = 300


def main(seconds: int = SECONDS) -> int:
    """Print the figures; 1 when a limit is broken."""
    with tempfile.TemporaryDirectory() as folder:
        make_catalog(Path(folder), DOMAINS)
        with Cloud(Path(folder)) as cloud:
            cloud.up(engines=("aws", "clickhouse"))
            body = parquet(ROWS)
            warm = [(n * 0.5, domain, body) for n, domain in enumerate(DOMAINS)]
            count = RATE * seconds
            planned = [(n / RATE, DOMAINS[n % len(DOMAINS)], body) for n in range(count)]
            with running_loader(cloud) as loader:
                first = Producer(cloud.settings, prefix="warm")
                first.run(warm)
                wait_loaded(cloud.settings, first.began, 60)
                cpu_s = loader.cpu_s()
                producer = Producer(cloud.settings)
                producer.run(planned)
                done = wait_loaded(cloud.settings, producer.began, 300)
                cpu_s = loader.cpu_s() - cpu_s
                time.sleep(1)
                memory_mb = loader.rss() / 2**20
    latencies = [(done[key] - began).total_seconds() for key, began in producer.began.items()]
    p50, p95 = quantile(latencies, 0.5), quantile(latencies, 0.95)
    print(f"{len(latencies)} objects at {RATE}/s: median {p50:.2f} s, longest {max(latencies):.2f} s")
    print(f"the producer was {producer.late_s:.1f} s late at most; loader CPU {1000 * cpu_s / count:.1f} ms a message")
    print(f"p95 from object to visible row: {p95:.2f} s (limit {LIMIT_P95_S})")
    print(f"memory of the loader: {memory_mb:.0f} MB (limit {LIMIT_MEMORY_MB})")
    return int(p95 > LIMIT_P95_S or memory_mb > LIMIT_MEMORY_MB)


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:2])))
