"""The metrics of a service as assets `summaries/<service>/<metric>`: one operation a service, any subset of metrics."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

import dagster as dg

from data_platform.analytics.athena import checks as athena_checks
from data_platform.analytics.blocks import refresh_blocks
from data_platform.analytics.charts import chart
from data_platform.analytics.checks import check_names, check_summary
from data_platform.analytics.export import export_summary
from data_platform.analytics.metrics import METRICS, table_of
from data_platform.analytics.page import publish_page
from data_platform.analytics.report import Executions, reported
from data_platform.analytics.sql_files import statement
from data_platform.analytics.summaries import DATABASE, Summary, rebuild_summaries
from data_platform.assets.athena_summaries import rebuild_on_athena
from data_platform.assets.keys import Stage, summaries_op, summary_key
from data_platform.assets.metadata import read_of
from data_platform.assets.summary_columns import lineage_of, schema_of
from data_platform.catalog.models import Service
from data_platform.clients import aws, clickhouse
from data_platform.errors import ConfigurationError
from data_platform.loading.lock import PartitionLocks, worker_name
from data_platform.resources.settings import SettingsResource
from data_platform.settings import Settings

Engine = Literal["clickhouse", "athena"]
# What an engine reads: Athena needs no ClickHouse.
EVENTS = {
    "clickhouse": dg.AssetKey([Stage.CLICKHOUSE.value, "analytics", "events"]),
    "athena": dg.AssetKey([Stage.CURATED.value, "analytics", "events"]),
}


class SummaryConfig(dg.Config):
    """`full`: compute every row anew instead of those that may have changed. `engine`: this one, not the service's."""

    full: bool = False
    engine: str = ""  # clickhouse or athena; Dagster's config knows no optional literals

    @property
    def chosen(self) -> Engine | None:
        """The engine that was asked for. Raises ConfigurationError for a name that is none."""
        match self.engine:
            case "":
                return None
            case "clickhouse" | "athena":
                return self.engine
            case _:
                raise ConfigurationError(f"no engine {self.engine!r}", hint="engines: clickhouse, athena")


def with_defaults(service: Service, settings: Settings) -> Service:
    """The service with the settings' MIN_DATA_DATE where the catalogue gives it none of its own."""
    if service.min_data_date is not None or settings.min_data_date is None:
        return service
    return service.model_copy(update={"min_data_date": settings.min_data_date})


def executions_tag(executions: Executions, summaries: Sequence[Summary], bytes_read: int, usd: float) -> dict[str, str]:
    """What a service's tables came to, as a tag of the run: seen on its page, of every service beside the others."""
    rows = sum(summary.rows for summary in summaries)
    return {
        f"metrics/{executions.service}": f"{executions.engine}: {executions.succeeded} of {executions.wanted} tables, "
        f"{rows:,} rows, {executions.seconds:.1f} s, {bytes_read:,} bytes read, {usd:.4f} USD"
    }


def summary_assets(entry: Service, settings: Settings | None = None) -> dg.AssetsDefinition:
    """All metrics of one service, with their checks; the engine is the catalogue's, else the settings'."""
    engine: Engine = entry.engine or (settings.metrics_engine if settings is not None else "clickhouse")
    names = athena_checks.check_names if engine == "athena" else check_names

    @dg.multi_asset(
        name=summaries_op(entry),
        specs=[
            dg.AssetSpec(
                summary_key(entry, metric.name),
                deps=[EVENTS[engine]],
                description=f"{metric.description} A day is a calendar day in {entry.time_zone}.",
                group_name="summaries",
                kinds={engine, "sql"},
                owners=[entry.owner],
                skippable=True,
                metadata={
                    "dagster/table_name": f"{DATABASE}.{table_of(entry, metric.name)}",
                    "dagster/column_schema": schema_of(metric.name),
                    "dagster/column_lineage": lineage_of(metric.name, EVENTS[engine]),
                    "sql": dg.MetadataValue.md(f"```sql\n{statement(f'metrics/{metric.name}')}\n```"),
                },
                tags={"service": entry.name},
            )
            for metric in METRICS.values()
        ],
        check_specs=[
            dg.AssetCheckSpec(name, asset=summary_key(entry, metric)) for metric in METRICS for name in names(metric)
        ],
        can_subset=True,
        pool=engine,
    )
    def rebuild(context: dg.AssetExecutionContext, config: SummaryConfig, platform: SettingsResource) -> Iterator[Any]:
        settings = platform.load()
        service = with_defaults(entry, settings)
        run_date = datetime.now(UTC).date()
        chosen = [metric for metric in METRICS if summary_key(service, metric) in context.selected_asset_keys]
        if (config.chosen or engine) == "athena":
            yield from rebuild_on_athena(context, settings, service, chosen, run_date, full=config.full)
            return
        client = clickhouse.connect(settings, query_tags={"run": context.run.run_id, "service": service.name})
        executions = Executions(service.name, "clickhouse", len(chosen))
        try:
            s3 = aws.s3(settings)
            locks = PartitionLocks(client, worker_name(), settings.loader_lease_s)
            with reported(aws.cloudwatch(settings), settings.env, executions, classify=clickhouse.classify):
                refreshed = refresh_blocks(client, locks, [service], cluster=settings.clickhouse_cluster)
                summaries = rebuild_summaries(
                    client, locks, service, chosen, run_date, full=config.full, cluster=settings.clickhouse_cluster
                )
                executions.succeeded = len(summaries)
            bytes_read = refreshed.bytes_read + sum(summary.bytes_read for summary in summaries)
            context.instance.add_run_tags(
                context.run.run_id, executions_tag(executions, summaries, bytes_read, usd=0.0)
            )
            results: list[dg.MaterializeResult[Any]] = []
            for metric, summary in zip(chosen, summaries, strict=True):
                url, size = export_summary(client, s3, settings.curated_bucket, service, metric)
                results.append(
                    dg.MaterializeResult(
                        asset_key=summary_key(service, metric),
                        metadata={
                            "dagster/row_count": summary.rows,
                            "dagster/column_lineage": lineage_of(metric, EVENTS["clickhouse"]),
                            "read": read_of(EVENTS["clickhouse"].to_user_string(), f"revision {refreshed.revision}"),
                            "service": service.name,
                            "dagster/uri": url,
                            "bytes": size,
                            "bytes_read": summary.bytes_read,
                            "estimated_cost_usd": 0.0,  # ClickHouse is not paid by the byte
                            "blocks_bytes_read": refreshed.bytes_read,
                            "blocks_duration_s": round(refreshed.seconds, 3),
                            "duration_s": round(summary.seconds, 3),
                            "execution_date": str(run_date),
                            "first_day": str(summary.first_day),
                            "last_day": str(summary.last_day),
                            "days_computed": summary.days,
                            "days_rebuilt": len(refreshed.days.get(service.name, ())),
                            "time_zone": service.time_zone,
                            "chart": dg.MetadataValue.md(chart(client, service, metric)),
                        },
                    )
                )
            page = publish_page(client, s3, settings.curated_bucket, service)
            selected_checks = context.selected_asset_check_keys
            for metric, result in zip(chosen, results, strict=True):
                key = summary_key(service, metric)
                # After all tables: the checks compare them with each other.
                checks = check_summary(client, service, metric, run_date)
                yield dg.MaterializeResult(asset_key=key, metadata={**(result.metadata or {}), "page": page})
                for check in checks:
                    if dg.AssetCheckKey(key, check.name) in selected_checks:
                        yield dg.AssetCheckResult(
                            asset_key=key,
                            check_name=check.name,
                            passed=check.passed,
                            severity=dg.AssetCheckSeverity.ERROR,
                            metadata={"detail": check.detail},
                        )
        finally:
            client.close()

    return rebuild
