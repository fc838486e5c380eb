"""The metrics of one service on Athena, from the curated events to the tables, their checks and the page."""

import signal
import threading
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

from data_platform.analytics.athena import layout
from data_platform.analytics.athena.blocks import Work, objects_below, refresh_blocks, together
from data_platform.analytics.athena.budget import Budget
from data_platform.analytics.athena.checks import OtherRows, check_tables
from data_platform.analytics.athena.glue import Glue, require_tables
from data_platform.analytics.athena.state import ServiceState, leased, read_state
from data_platform.analytics.athena.summaries import (
    AthenaSummary,
    Prepared,
    prepare_summary,
    publish_summary,
    read_rows,
)
from data_platform.analytics.charts import SHOWN_DAYS, Rows
from data_platform.analytics.checks import Check
from data_platform.analytics.export import PREFIX
from data_platform.analytics.metrics import METRICS, metric_called, table_of
from data_platform.analytics.page import render_page
from data_platform.catalog.models import Service
from data_platform.clients import aws
from data_platform.clients.athena import Athena, Meter, output_location
from data_platform.errors import ConfigurationError
from data_platform.settings import Settings

SWEPT_AFTER = timedelta(hours=6)  # an Athena query ends by itself long before


@dataclass(frozen=True)
class AthenaRun:
    """What a run came to: tables, the days whose blocks were built, checks, the page's URL, what Athena charged."""

    service: Service
    tables: Sequence[AthenaSummary]
    days: frozenset[date]
    checks: Sequence[Check]
    page: str
    queries: int
    bytes_scanned: int
    usd: float
    seconds: float
    throttled: int = 0
    swept: int = 0
    rows: dict[str, Rows] = field(default_factory=dict[str, Rows])  # by metric, the newest days


def rebuild_service(
    settings: Settings,
    service: Service,
    execution_date: date,
    metrics: Sequence[str] | None = None,
    *,
    full: bool = False,
    other: OtherRows | None = None,
    cancel: threading.Event | None = None,
    wait_s: float = 600.0,
) -> AthenaRun:
    """Bring the service's tables up to date with the curated events. Queries stop when `cancel` is set.

    Raises LeaseHeldError while another run works on the service, ConfigurationError over the budget or where the
    workgroup forces another output, AthenaQueryError; the tables then stay as they were.
    """
    began = time.monotonic()
    s3 = aws.s3(settings)
    athena = Athena(settings, meter=Meter(settings.athena_usd_per_tb), cancel=cancel)
    _check_workgroup(athena)
    glue = Glue(aws.client(settings, "glue"), settings.athena_database)
    require_tables(glue)
    places = layout.Places(output_location(settings), service.name)
    chosen = [metric_called(metric).name for metric in metrics or METRICS]
    with _ended_in_order(), leased(s3, places, wait_s=wait_s) as lease:
        work = Work(
            athena, s3, glue, service, settings.curated_bucket, lease, places, read_state(s3, places),
            Budget(settings.athena_budget_usd, settings.athena_usd_per_tb),
        )  # fmt: skip
        before = _places_of(work.state)
        days = refresh_blocks(work)
        tables = _publish(work, chosen, execution_date, full=full)
        rows = {metric: _newest_rows(work, metric) for metric in METRICS if metric in work.state.tables}
        checks = [check for check in check_tables(work, execution_date, other) if check.metric in chosen]
        page = _publish_page(work, rows)
        swept = sweep(work, before)
    return AthenaRun(
        service, tables, days, checks, page, len(athena.meter.executions), athena.meter.bytes_scanned, athena.meter.usd,
        time.monotonic() - began, athena.meter.throttled, swept, rows,
    )  # fmt: skip


@contextmanager
def _ended_in_order() -> Generator[None]:
    """SIGTERM ends the work as Ctrl-C does, so that its queries are stopped; where nobody else handles it."""
    ours = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    if ours:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        if ours:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _check_workgroup(athena: Athena) -> None:
    forced = athena.enforced_output()
    if forced is not None:  # and then refuses every place of a CTAS
        raise ConfigurationError(
            f"workgroup {athena.workgroup} forces its own output location, {forced}",
            hint="use a workgroup that does not enforce its configuration: DATA_PLATFORM_ATHENA_WORKGROUP",
        )


def _publish(work: Work, metrics: Sequence[str], execution_date: date, *, full: bool) -> list[AthenaSummary]:
    """Compute all tables side by side, then swap them one after the other."""
    began = time.monotonic()
    ready: dict[str, Prepared] = {}

    def prepare(metric: str) -> None:
        ready[metric] = prepare_summary(work, metric, execution_date, full=full)

    together(work.athena, [lambda metric=metric: prepare(metric) for metric in metrics])
    return [publish_summary(work, metric, ready[metric], began) for metric in metrics]


def _newest_rows(work: Work, metric: str) -> Rows:
    rows: list[dict[str, Any]] = read_rows(work, work.state.tables[metric]).to_pylist()
    name = metric_called(metric).day
    days = sorted({row[name] for row in rows})[-SHOWN_DAYS:]
    return [row for row in rows if days and row[name] >= days[0]]


def _publish_page(work: Work, rows: dict[str, Rows]) -> str:
    sizes: list[tuple[int, int]] = []
    shown = [row["activity_date"] for row in rows.get("conversion", [])]
    if shown:
        first, last = min(shown), max(shown)
        source = layout.block_source(work.database, "sessions", work.service, first, last, work.min_data_date())
        sql = (
            f"SELECT events, count(*) AS sessions FROM {source} AS started "
            f"WHERE day BETWEEN {layout.day(first)} AND {layout.day(last)} GROUP BY events ORDER BY events"
        )
        # Of this table and no older one: results are kept for days only.
        key = f"{work.service.name} sizes g{work.state.generation} s{work.state.tables['conversion'].sequence}"
        execution = work.athena.run(lambda _attempt: sql, key)
        sizes = [(int(str(events)), int(str(count))) for events, count in work.athena.rows(execution)]
    html = render_page(work.service, rows, sizes, datetime.now(UTC))
    bucket, prefix = layout.split_url(work.places.output)
    key = f"{prefix}/{PREFIX}/{work.service.name}/index.html".lstrip("/")
    work.s3.put_object(Bucket=bucket, Key=key, Body=html.encode(), ContentType="text/html; charset=utf-8")
    return f"s3://{bucket}/{key}"


def _places_of(state: ServiceState) -> set[str]:
    return {place for each in state.places.values() for place in each.values()} | {
        table.location for table in state.tables.values()
    }


def sweep(work: Work, replaced: set[str]) -> int:
    """Remove what nothing points to any more; returns the number of objects.

    `replaced`: the places this run began with; those it no longer uses go at once. What else lies about is of failed or
    killed attempts, or of a run that lost its lease and does not know yet: it goes when nobody can be writing it.
    """
    work.lease.check()
    places = work.places
    used = _places_of(work.state)
    # A run that died between a swap and its commit left a table that points where the state does not.
    used |= {work.glue.location(table_of(work.service, metric)) or "" for metric in METRICS}
    latest = datetime.now(UTC) - SWEPT_AFTER
    doomed: list[str] = []
    for prefix in (*(places.blocks(block) for block in layout.BLOCKS), *(places.tables(metric) for metric in METRICS)):
        for found in objects_below(work.s3, prefix):
            folder = f"{found.url.rpartition('/')[0]}/"
            if folder not in used and (folder in replaced or found.modified < latest):
                doomed.append(found.url)
    for start in range(0, len(doomed), 1000):
        bucket, _ = layout.split_url(work.places.output)
        keys = [{"Key": layout.split_url(url)[1]} for url in doomed[start : start + 1000]]
        work.s3.delete_objects(Bucket=bucket, Delete={"Objects": keys, "Quiet": True})  # pyright: ignore[reportArgumentType]
    for table in work.glue.tables_like(f"tmp_{work.service.prefix}__g[0-9].*", created_before=latest):
        work.glue.drop_table(table)
    return len(doomed)
