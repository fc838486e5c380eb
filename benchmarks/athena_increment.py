"""What one more day costs on Athena, against building all tables from the whole history, on the embedded Athena.

Athena charges by bytes scanned, so that is what is compared; seconds are the embedded engine's and only printed. The
peer is this project's own first run, which reads the events for the blocks once: the seven CTAS of the system replaced
read them once a table, so the ratio to them is better still. `--quick` takes a tenth of the events.
"""

import argparse
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
from pydantic import SecretStr

from data_platform.analytics.athena.run import AthenaRun, rebuild_service
from data_platform.catalog import load_catalog
from data_platform.catalog.models import Service
from data_platform.catalog.types import curated_schema
from data_platform.clients import aws
from data_platform.curation.manifest import PartitionSource
from data_platform.curation.partition import curate_partition
from data_platform.local.process import EngineProcess
from data_platform.provisioning import provision
from data_platform.settings import Settings

EVENTS, USERS, DAYS = 1_500_000, 30_000, 30
FIRST = date(2024, 1, 1)
SERVICE = Service(name="bench")
NAMES = np.array(["page_view", "product_view", "add_to_cart", "search", "purchase", "login"])
LIMIT_BYTES = 0.3  # one more day, of the bytes that all took: its events, and blocks of users' days for four tables
LIMIT_QUERIES = 1.0  # one more day asks no more than the first run


def day_of_events(day: date, rows: int, users: int, schema: pa.Schema) -> pa.Table:
    """A day's events: visits of six, a tenth without user, a tenth without session."""
    visits = np.random.default_rng(day.toordinal()).integers(0, 2**40, rows // 6 + 1).repeat(6)[:rows]
    position = np.arange(rows)
    midnight = np.datetime64(day, "ns").astype(np.int64)
    columns = {
        "service_name": np.full(rows, SERVICE.name),
        "event_time": pa.array(midnight + (visits % 84_000 + 40 * (position % 6)) * 10**9, pa.timestamp("ns", "UTC")),
        "event_date": np.full(rows, np.datetime64(day)),
        "event_name": NAMES[(visits // 7 + position * 5) % len(NAMES)],
        "user_id": pa.array(np.char.add("user-", (visits % users).astype(str)), mask=visits % 10 == 0),
        "session_id": pa.array(np.char.add(f"{day}-", visits.astype(str)), mask=visits % 10 == 1),
        "attributes": [[] for _ in range(rows)],
        "trace_id": pa.nulls(rows, pa.string()),
        "record_uid": np.char.add(f"{day}-", position.astype(str)),
        "source_object": np.full(rows, f"{day}/log"),
        "source_position": position.astype(np.uint64),
    }
    arrays = [pa.array(columns[field.name], field.type) for field in schema]
    return pa.Table.from_arrays(arrays, schema=schema)


def deliver(settings: Settings, days: list[date], rows: int, users: int) -> None:
    """Commit the days' partitions as curation does."""
    s3, dataset = aws.s3(settings), load_catalog(settings.catalog).datasets["analytics/events"]
    for day in days:
        events = day_of_events(day, rows, users, curated_schema(dataset))

        def source(day: date = day) -> PartitionSource:
            return PartitionSource(kind="otel_logs", reference="s3://bench/", version=str(day), rows=rows)

        curate_partition(s3, settings.curated_bucket, dataset, day, iter(events.to_batches()), source)


def executions(settings: Settings) -> set[str]:
    """The ids of every query that Athena ran so far: one that is asked again by its token is the same."""
    pages = aws.client(settings, "athena").get_paginator("list_query_executions").paginate(WorkGroup="primary")
    return {name for page in pages for name in page["QueryExecutionIds"]}


def told(what: str, run: AthenaRun) -> AthenaRun:
    """The run, its figures printed."""
    print(
        f"{what}: {run.bytes_scanned / 1e6:.1f} MB scanned in {run.queries} queries, ${run.usd:.5f}, "
        f"{run.seconds:.1f} s on the embedded engine",
        flush=True,
    )
    return run


@contextmanager
def cloud() -> Generator[Settings]:
    """An embedded Athena of its own."""
    with tempfile.TemporaryDirectory() as folder:
        engine = EngineProcess.with_free_ports("aws", Path(folder)).start()
        try:
            env = engine.env
            settings = Settings(  # pyright: ignore[reportCallIssue]
                aws_endpoint_url=env["AWS_ENDPOINT_URL"],
                aws_access_key_id=SecretStr(env["AWS_ACCESS_KEY_ID"]),
                aws_secret_access_key=SecretStr(env["AWS_SECRET_ACCESS_KEY"]),
                aws_region=env["AWS_DEFAULT_REGION"],
            )
            provision(settings, only=["aws", "athena"])
            yield settings
        finally:
            engine.stop()


def main() -> int:
    """Print the figures; 1 when a limit is broken."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    scale = 10 if parser.parse_args().quick else 1
    rows, users = EVENTS // DAYS // scale, USERS // scale
    days = [FIRST + timedelta(days=number) for number in range(DAYS + 1)]
    with cloud() as settings:
        deliver(settings, days[:-1], rows, users)
        whole = told(f"{DAYS} days of {rows:,} events", rebuild_service(settings, SERVICE, days[-1]))
        deliver(settings, days[-1:], rows, users)
        more = told("one more day", rebuild_service(settings, SERVICE, days[-1] + timedelta(days=1)))
        asked = executions(settings)
        told("nothing new", rebuild_service(settings, SERVICE, days[-1] + timedelta(days=1)))
        anew = len(executions(settings) - asked)
    failed = [check.name for run in (whole, more) for check in run.checks if not check.passed]
    figures: dict[str, tuple[float, float]] = {
        "one more day, bytes of all": (more.bytes_scanned / whole.bytes_scanned, LIMIT_BYTES),
        "one more day, queries of all": (more.queries / whole.queries, LIMIT_QUERIES),
        "nothing new, queries that Athena ran": (anew, 0),
    }
    for name, (found, limit) in figures.items():
        print(f"{name}: {found:.2f} (limit {limit:g})")
    if failed:
        print(f"checks failed: {', '.join(failed)}")
    return 1 if failed or any(found > limit for found, limit in figures.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
