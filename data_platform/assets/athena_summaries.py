"""The body of a service's summary assets where its engine is Athena: tables, their metadata, their checks."""

from base64 import b64encode
from collections.abc import Iterator, Sequence
from datetime import date
from typing import Any

import dagster as dg

from data_platform.analytics.athena.other import clickhouse_rows
from data_platform.analytics.athena.run import AthenaRun, rebuild_service
from data_platform.analytics.charts import picture
from data_platform.analytics.report import Executions, reported
from data_platform.assets.keys import summary_key
from data_platform.assets.metadata import read_of
from data_platform.assets.summary_columns import lineage_of
from data_platform.catalog.models import Service
from data_platform.clients import athena, aws
from data_platform.settings import Settings


def rebuild_on_athena(
    context: dg.AssetExecutionContext,
    settings: Settings,
    service: Service,
    metrics: Sequence[str],
    run_date: date,
    *,
    full: bool,
) -> Iterator[Any]:
    """Compute the tables and yield what Dagster is told. A run that is ended stops its queries."""
    executions = Executions(service.name, "athena", len(metrics))
    with reported(aws.cloudwatch(settings), settings.env, executions, classify=athena.classify):
        run = rebuild_service(
            settings,
            service,
            run_date,
            metrics,
            full=full,
            other=lambda which, metric: clickhouse_rows(settings, which, metric, run_date),
        )
        executions.succeeded, executions.throttled = len(run.tables), run.throttled
    rows = sum(table.published.rows for table in run.tables)
    told = (
        f"athena: {executions.succeeded} of {executions.wanted} tables, {rows:,} rows, {executions.seconds:.1f} s, "
        f"{run.queries} queries, {run.bytes_scanned:,} bytes scanned, {run.usd:.4f} USD"
    )
    context.instance.add_run_tags(context.run.run_id, {f"metrics/{service.name}": told})
    selected = context.selected_asset_check_keys
    for metadata, metric in zip(_metadata(run), metrics, strict=True):
        key = summary_key(service, metric)
        yield dg.MaterializeResult(asset_key=key, metadata=metadata)
        for check in run.checks:
            if check.metric == metric and dg.AssetCheckKey(key, check.name) in selected:
                yield dg.AssetCheckResult(
                    asset_key=key,
                    check_name=check.name,
                    passed=check.passed,
                    severity=dg.AssetCheckSeverity.ERROR,
                    metadata={"detail": check.detail},
                )


def _metadata(run: AthenaRun) -> Iterator[dict[str, Any]]:
    """Per table; what the blocks and checks came to is told with every table, under names of its own."""
    tables_bytes = sum(table.bytes_scanned for table in run.tables)
    tables_usd = sum(table.usd for table in run.tables)
    for table in run.tables:
        yield {
            "dagster/row_count": table.published.rows,
            "dagster/column_lineage": lineage_of(table.metric, dg.AssetKey(["curated", "analytics", "events"])),
            "read": read_of(
                "curated/analytics/events", f"generation {table.published.generation}, {table.published.fingerprint}"
            ),
            "service": run.service.name,
            "engine": "athena",
            "dagster/uri": table.url,
            "bytes": table.bytes,
            "bytes_read": table.bytes_scanned,
            "estimated_cost_usd": table.usd,
            "blocks_bytes_read": run.bytes_scanned - tables_bytes,
            "blocks_cost_usd": run.usd - tables_usd,
            "queries": run.queries,
            "duration_s": round(table.seconds, 3),
            "execution_date": str(table.published.execution_date),
            "first_day": str(table.published.first_day),
            "last_day": str(table.published.last_day),
            "days_rebuilt": len(run.days),
            "time_zone": run.service.time_zone,
            "location": table.published.location,
            "objects_swept": run.swept,
            "page": run.page,
            "chart": dg.MetadataValue.md(_chart(run, table.metric)),
        }


def _chart(run: AthenaRun, metric: str) -> str:
    svg = picture(metric, run.rows.get(metric, []))[0]
    return f"![{metric} of {run.service.name}](data:image/svg+xml;base64,{b64encode(svg.encode()).decode()})"
