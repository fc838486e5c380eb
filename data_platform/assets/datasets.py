"""Datasets as assets: one operation a dataset with a layer per asset, a range of days per run, an event per day.

The layers of a day follow each other inside the operation, so a run is one process start whatever the range. Each
finished layer of each day is checkpointed at once; nothing is emitted at the end, or success would write every event
again. A day that fails costs only itself.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any

import dagster as dg

from data_platform.assets.keys import Stage, partitions_of, stage_key, stages_of, upstream_keys
from data_platform.assets.metadata import column_lineage, table_schema
from data_platform.assets.stages import StageResult, StageRunner, explain
from data_platform.catalog.models import Dataset
from data_platform.errors import Fault, PlatformError
from data_platform.resources.settings import SettingsResource

KINDS: Mapping[Stage, frozenset[str]] = {
    Stage.UNLOAD: frozenset({"redshift", "s3", "parquet"}),
    Stage.CURATED: frozenset({"s3", "parquet"}),
    Stage.CLICKHOUSE: frozenset({"clickhouse"}),
}
WHAT: Mapping[Stage, str] = {
    Stage.UNLOAD: "Taken out of Redshift by UNLOAD, proven file by file against its manifest.",
    Stage.CURATED: "Typed, sorted Parquet under `{key}/ds=.../`, committed by a manifest per generation.",
    Stage.CLICKHOUSE: "The table `{table}`: each day rebuilt from its curated files and swapped in one step.",
}


class RangeConfig(dg.Config):
    """Which days of the run's range to do; all of them when `only` is left out."""

    only: list[str] | None = None


@dataclass
class _Failures:
    """What went wrong, by day."""

    reasons: dict[str, str] = field(default_factory=dict[str, str])
    waiting: int = 0  # of them only to be asked again later

    def add(self, day: str, error: Exception) -> None:
        self.reasons[day] = explain(error)
        self.waiting += isinstance(error, PlatformError) and error.fault is Fault.THROTTLED

    def raise_if_any(self, dataset: Dataset, days: int) -> None:
        if not self.reasons:
            return
        first = next(iter(self.reasons.items()))
        raise dg.Failure(
            f"{dataset.key}: {len(self.reasons)} of {days} partitions failed; {first[0]}: {first[1]}",
            metadata={day: dg.MetadataValue.text(reason) for day, reason in list(self.reasons.items())[:50]},
            # What may pass was retried where it happened; running the whole range again is a person's decision.
            allow_retries=False,
        )


def stage_spec(stage: Stage, dataset: Dataset) -> dg.AssetSpec:
    """The asset of one layer of a dataset."""
    return dg.AssetSpec(
        stage_key(stage, dataset),
        deps=upstream_keys(stage, dataset),
        description=f"{dataset.description}\n\n{_what(stage, dataset)}",
        group_name=dataset.domain,
        kinds=set(KINDS[stage]),
        owners=[dataset.owner],
        skippable=True,
        metadata={
            "dagster/column_schema": table_schema(dataset, stage),
            "dagster/table_name": f"{dataset.domain}.{dataset.name}",
            "catalogue": f"catalog/datasets/{dataset.domain}/{dataset.name}.yaml",
        },
        tags={"domain": dataset.domain, "stage": stage.value},
    )


def _what(stage: Stage, dataset: Dataset) -> str:
    return WHAT[stage].format(key=dataset.key, table=f"{dataset.domain}.{dataset.name}")


def dataset_assets(dataset: Dataset) -> dg.AssetsDefinition:
    """All layers of a dataset as one operation; any subset of them can be run."""
    partitions = partitions_of(dataset)
    op_name = f"{dataset.domain}__{dataset.name}"

    @dg.multi_asset(
        name=op_name,
        specs=[stage_spec(stage, dataset) for stage in stages_of(dataset)],
        partitions_def=partitions,
        backfill_policy=dg.BackfillPolicy.single_run() if partitions is not None else None,
        can_subset=True,
        pool="clickhouse" if Stage.UNLOAD not in stages_of(dataset) else "redshift",
        op_tags={"domain": dataset.domain, "dataset": dataset.key},
    )
    def run_dataset(
        context: dg.AssetExecutionContext, config: RangeConfig, platform: SettingsResource
    ) -> Iterator[Any]:
        selected = [stage for stage in stages_of(dataset) if stage_key(stage, dataset) in context.selected_asset_keys]
        if partitions is None:
            days: Sequence[str] = [datetime.now(UTC).date().isoformat()]
        else:
            days = [day for day in context.partition_keys if config.only is None or day in config.only]
        _run_days(context, platform, dataset, selected, days, partitioned=partitions is not None)
        yield from ()

    return run_dataset


def _run_days(
    context: dg.AssetExecutionContext,
    platform: SettingsResource,
    dataset: Dataset,
    stages: Sequence[Stage],
    days: Sequence[str],
    *,
    partitioned: bool,
) -> None:
    runner = StageRunner(platform.load(), context.run.run_id, log=context.log.warning)
    lineage = {stage: column_lineage(dataset, stage) for stage in stages}
    failures = _Failures()
    try:
        for day in days:
            try:
                for stage in stages:
                    result = runner.run(stage, dataset, date.fromisoformat(day))
                    event = _event(stage, dataset, day if partitioned else None, result, lineage[stage])
                    context.log_event(event)
            except Exception as error:
                failures.add(day, error)
                context.log.exception("%s of %s failed", dataset.key, day)
    finally:
        runner.close()
    failures.raise_if_any(dataset, len(days))


def _event(
    stage: Stage, dataset: Dataset, partition: str | None, result: StageResult, lineage: dg.TableColumnLineage | None
) -> dg.AssetMaterialization:
    metadata = dict(result.metadata)
    if lineage is not None:
        metadata["dagster/column_lineage"] = lineage
    if partition is None:
        metadata["dagster/row_count"] = metadata.pop("dagster/partition_row_count")
    return dg.AssetMaterialization(
        stage_key(stage, dataset),
        partition=partition,
        metadata=metadata,
        tags={"dagster/data_version": result.version},
    )
