"""The product metrics in this process: what is missing curated and loaded first, then one Dagster run."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import dagster as dg

from data_platform.analytics.export import PREFIX
from data_platform.analytics.metrics import METRICS
from data_platform.assets.keys import Stage, summaries_op, summary_key
from data_platform.catalog import Catalog
from data_platform.catalog.models import Dataset, OtelLogsSource, Service
from data_platform.clients import aws, clickhouse
from data_platform.curation.events import stale_days
from data_platform.curation.manifest import read_manifest
from data_platform.errors import ConfigurationError, PlatformError
from data_platform.jobs.backfill import QUIET, BackfillPlan, Checkpoint, require_success, run_backfill
from data_platform.jobs.processes import end_abandoned, process_tags
from data_platform.loading.register import Register, TablePartition
from data_platform.settings import Settings

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

Tell = Callable[[str], None]
DATABASE = "analytics"


@dataclass(frozen=True)
class TableResult:
    """One summary table after a run."""

    service: str
    metric: str
    table: str
    rows: int
    seconds: float
    bytes: int
    bytes_read: int
    estimated_cost_usd: float


@dataclass
class RunSummary:
    """What a run of the metrics came to, and which checks it failed."""

    status: str
    services: list[str]
    run_id: str
    output_location: str
    execution_time: float
    tables: list[TableResult] = field(default_factory=list[TableResult])
    curated_days: int = 0
    loaded_days: int = 0
    left_days: int = 0  # changed days outside the range that was asked for, and today
    blocks_bytes_read: int = 0
    blocks_cost_usd: float = 0.0
    failed_checks: list[str] = field(default_factory=list[str])

    @property
    def bytes_scanned(self) -> int:
        """Bytes the engine read for blocks and tables."""
        return self.blocks_bytes_read + sum(table.bytes_read for table in self.tables)

    @property
    def estimated_cost_usd(self) -> float:
        """What the engine charged for them."""
        return round(self.blocks_cost_usd + sum(table.estimated_cost_usd for table in self.tables), 6)

    def as_dict(self) -> dict[str, Any]:
        """The summary as it is printed and logged."""
        return {
            "status": self.status,
            "services": self.services,
            "run_id": self.run_id,
            "execution_summary": {
                "database": DATABASE,
                "output_location": self.output_location,
                "execution_time": round(self.execution_time, 3),
                "processed_services": len(self.services),
            },
            "tables": [asdict(table) for table in self.tables],
            "rows": sum(table.rows for table in self.tables),
            "bytes": sum(table.bytes for table in self.tables),
            "curated_days": self.curated_days,
            "loaded_days": self.loaded_days,
            "left_days": self.left_days,
            "bytes_scanned": self.bytes_scanned,
            "estimated_cost_usd": self.estimated_cost_usd,
            "failed_checks": self.failed_checks,
        }


def chosen_services(catalog: Catalog, names: Sequence[str] | None) -> list[Service]:
    """The services of these names, all without any. Raises ConfigurationError for unknown ones."""
    unknown = sorted(set(names or ()) - set(catalog.services))
    if unknown:
        raise ConfigurationError(f"no service {', '.join(unknown)}", hint=f"services: {', '.join(catalog.services)}")
    return [service for name, service in catalog.services.items() if not names or name in names]


def rebuild_metrics(
    settings: Settings,
    catalog: Catalog,
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    services: Sequence[Service],
    *,
    engine: str | None = None,
    first: date | None = None,
    last: date | None = None,
    tell: Tell = lambda _: None,
) -> RunSummary:
    """The tables of `services` from the raw logs as they are: curate and load what is missing, then compute.

    `engine` computes all of them there, whatever the catalogue says; with all services on Athena nothing is loaded.

    `first`..`last` limits which UTC days are curated and loaded; the tables show every day that is loaded, and days
    left out are taken in by the next run without limits. Raises PlatformError with the reason of a failed run.
    """
    end_abandoned(instance)
    curated = loaded = left = 0
    on_clickhouse = any((engine or each.engine or settings.metrics_engine) == "clickhouse" for each in services)
    stages = (Stage.CURATED, Stage.CLICKHOUSE) if on_clickhouse else (Stage.CURATED,)
    for dataset in catalog.datasets.values():
        if isinstance(dataset.source, OtelLogsSource):
            s3 = aws.s3(settings)
            changed = stale_days(settings, s3, dataset)
            stale = _between(changed, first, last)
            if stale:
                what = "curated and loaded" if on_clickhouse else "curated"
                tell(f"{len(stale)} days of {dataset.key} are {what}, {stale[0]} to {stale[-1]}")
                _run(definitions, catalog, instance, dataset, stale, stages, tell)
            unloaded = _unloaded_days(settings, s3, dataset) if on_clickhouse else []
            behind = _between(unloaded, first, last)
            if behind:
                tell(f"{len(behind)} days of {dataset.key} are loaded, {behind[0]} to {behind[-1]}")
                _run(definitions, catalog, instance, dataset, behind, (Stage.CLICKHOUSE,), tell)
            curated += len(stale)
            loaded += len(behind) + (len(stale) if on_clickhouse else 0)
            left += len({*changed, *unloaded} - {*stale, *behind})
    summary = run_summaries(definitions, instance, services, settings=settings, engine=engine)
    summary.curated_days, summary.loaded_days, summary.left_days = curated, loaded, left
    return summary


def run_summaries(
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    services: Sequence[Service] | None = None,
    *,
    settings: Settings | None = None,
    engine: str | None = None,
) -> RunSummary:
    """Compute every metric of `services` (all by default) as one Dagster run. Raises PlatformError on failure."""
    started = time.monotonic()
    job = definitions.resolve_job_def("summaries")
    selection = None
    if services is not None:
        selection = [summary_key(service, metric) for service in services for metric in METRICS]
    config: dict[str, Any] = dict(QUIET)
    if engine is not None and services is not None:
        config["ops"] = {summaries_op(service): {"config": {"engine": engine}} for service in services}
    result = job.execute_in_process(
        instance=instance, run_config=config, tags=process_tags(), raise_on_error=False, asset_selection=selection
    )
    if not result.success:
        raise PlatformError(f"the summaries failed: {_reason(result)}", hint=f"see run {result.run_id} in Dagster")
    made = [event.materialization for event in result.get_asset_materialization_events()]
    tables = [_table_result(each) for each in made]
    blocks = {each.asset_key.path[1]: int(_number(each, "blocks_bytes_read")) for each in made}  # once a service
    costs = {each.asset_key.path[1]: _number(each, "blocks_cost_usd") for each in made}
    failed = [
        f"{'/'.join(each.asset_key.path[1:])}: {each.check_name}: {each.metadata['detail'].value}"
        for each in result.get_asset_check_evaluations()
        if not each.passed
    ]
    bucket = "" if settings is None else settings.curated_bucket
    return RunSummary(
        status="SUCCESS" if not failed else "CHECKS_FAILED",
        services=sorted({table.service for table in tables}),
        run_id=result.run_id,
        output_location=f"s3://{bucket}/{PREFIX}",
        execution_time=time.monotonic() - started,
        tables=tables,
        blocks_bytes_read=sum(blocks.values()),
        blocks_cost_usd=sum(costs.values()),
        failed_checks=failed,
    )


def _run(
    definitions: dg.Definitions,
    catalog: Catalog,
    instance: dg.DagsterInstance,
    dataset: Dataset,
    days: Sequence[date],
    stages: tuple[Stage, ...],
    tell: Tell,
) -> None:
    span = [days[0] + timedelta(days=n) for n in range((days[-1] - days[0]).days + 1)]
    done = frozenset(day.isoformat() for day in set(span) - set(days))
    plan = BackfillPlan(dataset, stages, tuple(day.isoformat() for day in span), done, None)

    def told(checkpoint: Checkpoint) -> None:
        tell(f"{dataset.key} {checkpoint.day}: {checkpoint.stage.value}, {checkpoint.rows:,} rows")

    require_success(run_backfill(definitions, catalog, instance, plan, told))


def _unloaded_days(settings: Settings, s3: "S3Client", dataset: Dataset) -> list[date]:
    """Days with a curated partition of which ClickHouse does not hold the current generation."""
    behind: list[date] = []
    with clickhouse.connect(settings) as client:
        register = Register(client, "metrics")
        prefix = f"{dataset.domain}/{dataset.name}/ds="
        pages = s3.get_paginator("list_objects_v2").paginate(
            Bucket=settings.curated_bucket, Prefix=prefix, Delimiter="/"
        )
        for page in pages:
            for item in page.get("CommonPrefixes", []):
                day = date.fromisoformat(item.get("Prefix", "").removeprefix(prefix).rstrip("/"))
                stored = read_manifest(s3, settings.curated_bucket, dataset.domain, dataset.name, day)
                if stored is None or not stored.manifest.files:
                    continue
                partition = TablePartition(dataset.domain, dataset.name, day)
                if register.curated_generation(partition) != stored.manifest.generation:
                    behind.append(day)
    return behind


def _between(days: Sequence[date], first: date | None, last: date | None) -> list[date]:
    """The days within the range, yesterday at the latest: today's folder is still being written."""
    newest = min(last or date.max, datetime.now(UTC).date() - timedelta(days=1))
    return [day for day in days if (first or date.min) <= day <= newest]


def _table_result(materialization: dg.AssetMaterialization) -> TableResult:
    _, service, metric = materialization.asset_key.path
    return TableResult(
        str(getattr(materialization.metadata.get("service"), "value", service)),
        metric,
        f"{DATABASE}.{service}_{metric}_summary",
        int(_number(materialization, "dagster/row_count")),
        _number(materialization, "duration_s"),
        int(_number(materialization, "bytes")),
        int(_number(materialization, "bytes_read")),
        _number(materialization, "estimated_cost_usd"),
    )


def _number(materialization: dg.AssetMaterialization, name: str) -> float:
    return float(getattr(materialization.metadata.get(name), "value", 0) or 0)


def _reason(result: dg.ExecuteInProcessResult) -> str:
    for event in result.all_events:
        if event.is_step_failure and event.step_failure_data.error is not None:
            error = event.step_failure_data.error
            return (error.cause or error).message.strip()
    return "no step tells why"
