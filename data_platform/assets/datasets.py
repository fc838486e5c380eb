"""Datasets as assets: one operation a dataset with a layer per asset, a range of days per run, an event per day.

The layers of a day follow each other inside the operation, so a run is one process start whatever the range. Each
finished layer of each day is checkpointed within half a second; nothing is emitted at the end, or success would write
every event again. A day that fails costs only itself.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any

import dagster as dg

from data_platform.assets.checks import StageChecks, check_specs
from data_platform.assets.days import DayDone, Emit, Told, run_days
from data_platform.assets.keys import DATASET_TAG, Stage, partitions_of, stage_key, stages_of, upstream_keys
from data_platform.assets.metadata import column_lineage, table_schema
from data_platform.assets.outcomes import (
    MAKE_AGAIN,
    OP_RETRY,
    RETRIED,
    DayOutcome,
    Outcome,
    finished_partitions,
    outcome_of,
    retried_only_if_it_may_pass,
    tell_run_retries,
    worst,
)
from data_platform.assets.repair import Repair
from data_platform.assets.stages import StageResult, StageRunner
from data_platform.catalog.models import Dataset
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


NAMED = 5  # days named in a message

LoggedEvent = dg.AssetMaterialization | dg.AssetCheckEvaluation


class RangeConfig(dg.Config):
    """Which days of the run's range to do; all of them when `only` is left out."""

    only: list[str] | None = None


@dataclass
class _Failures:
    """The days that were not made, with what became of each; days held back by their source are no failure."""

    outcomes: dict[str, DayOutcome] = field(default_factory=dict[str, DayOutcome])

    @property
    def failed(self) -> dict[str, DayOutcome]:
        """The days that failed."""
        return {day: each for day, each in self.outcomes.items() if each.outcome is Outcome.FAILED}

    def raise_if_any(self, context: dg.AssetExecutionContext, dataset: Dataset, repair: Repair, days: int) -> None:
        failed = self.failed
        if not failed:
            return
        fault = worst([each.fault for each in failed.values()])
        tell_run_retries(context.instance, context.run.run_id, fault)
        raise dg.Failure(
            failure_of(dataset, failed, days, repair, datetime.now(UTC)),
            metadata={day: dg.MetadataValue.text(each.reason) for day, each in list(failed.items())[:50]},
            # Finished days are left alone by a retry; a permanent failure among the others would only fail again.
            allow_retries=fault in RETRIED,
        )


def failure_of(dataset: Dataset, failed: Mapping[str, DayOutcome], days: int, repair: Repair, now: datetime) -> str:
    """What a run ends with in which some of its `days` failed: which, the first one's reason, who tries them again."""
    ordered = sorted(failed)
    day, first = ordered[0], failed[ordered[0]]
    named = ", ".join(ordered[:NAMED]) + (f" and {len(ordered) - NAMED} more" if len(ordered) > NAMED else "")
    others = "" if len(failed) == 1 else f" ({day}; each day's own reason: Dagster, Catalog, its layers, tab Events)"
    again = "" if partitions_of(dataset) is None else f" --from {day} --to {ordered[-1]}"
    who = first.tried_again(repair, None if partitions_of(dataset) is None else day, now)
    return (
        f"{dataset.key}: {len(failed)} of {days} days failed: {named}: {first.reason}{others}\n  -> "
        f"{first.next_step.rstrip('.')}. Tried again: {who}. By hand: {MAKE_AGAIN} {dataset.key}{again}"
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


def dataset_assets(dataset: Dataset, repair: Repair) -> dg.AssetsDefinition:
    """All layers of a dataset as one operation; any subset of them can be run. `repair` tries again what may pass."""
    partitions = partitions_of(dataset)
    op_name = f"{dataset.domain}__{dataset.name}"

    @dg.multi_asset(
        name=op_name,
        specs=[stage_spec(stage, dataset) for stage in stages_of(dataset)],
        check_specs=check_specs(dataset),
        partitions_def=partitions,
        backfill_policy=dg.BackfillPolicy.single_run() if partitions is not None else None,
        can_subset=True,
        retry_policy=OP_RETRY,
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
        _tag_run(context, dataset)
        with retried_only_if_it_may_pass(context):
            _run_days(context, platform, dataset, repair, selected, days, partitioned=partitions is not None)
        yield from ()

    return run_dataset


def _tag_run(context: dg.AssetExecutionContext, dataset: Dataset) -> None:
    """Runs launched from an asset's page carry no tag of ours: those queued behind this one must know its dataset."""
    run, own = context.run, {stage_key(stage, dataset) for stage in stages_of(dataset)}
    if DATASET_TAG not in run.tags and run.asset_selection and run.asset_selection <= own:
        context.instance.add_run_tags(run.run_id, {DATASET_TAG: dataset.key})


def _run_days(
    context: dg.AssetExecutionContext,
    platform: SettingsResource,
    dataset: Dataset,
    repair: Repair,
    stages: Sequence[Stage],
    days: Sequence[str],
    *,
    partitioned: bool,
) -> None:
    from data_platform.resources.event_log import stored_together

    runner = StageRunner(platform.load(), context.run.run_id, log=context.log.warning)
    checks = StageChecks(runner, dataset, frozenset(context.selected_asset_check_keys))
    lineage = {stage: column_lineage(dataset, stage) for stage in stages}
    finished = finished_partitions(context.instance, context.run, again=context.retry_number > 0)
    failures = _Failures()

    def work(stage: Stage, day: str, emit: Emit[LoggedEvent]) -> None:
        result = None
        if stage in stages and (stage_key(stage, dataset), day) not in finished:
            result = runner.run(stage, dataset, date.fromisoformat(day))
            emit(_event(stage, dataset, day if partitioned else None, result, lineage[stage]))
        checks.ask(stage, date.fromisoformat(day), emit, made=result)

    try:
        # Closing ends the threads before the connections they use.
        with closing(run_days(work, stages_of(dataset), days, name=dataset.key)) as portions:
            for steps in portions:
                with stored_together(context.instance):
                    for step in steps:
                        _tell(context, dataset, repair, step, failures, partitioned=partitioned)
    finally:
        runner.close()
    failures.raise_if_any(context, dataset, repair, len(days))


def _tell(
    context: dg.AssetExecutionContext,
    dataset: Dataset,
    repair: Repair,
    step: Told[LoggedEvent] | DayDone,
    failures: _Failures,
    *,
    partitioned: bool,
) -> None:
    """Into Dagster's event log: what a layer has made or found, why a day was not made."""
    if isinstance(step, Told):
        # Check evaluations are logged as well as the events its signature names.
        context.log_event(step.event)  # pyright: ignore[reportArgumentType]
    elif step.error is not None:  # a day that is made tells so itself, by its events
        failures.outcomes[step.day] = outcome = outcome_of(step.error)
        key = stage_key(step.stage, dataset)
        context.log_event(outcome.observation(key, step.day if partitioned else None, repair))
        if outcome.outcome is Outcome.HELD_BACK:
            context.log.warning("%s of %s is held back: %s", dataset.key, step.day, outcome.reason)
        else:
            context.log.error("%s of %s failed in its layer %s", dataset.key, step.day, step.stage, exc_info=step.error)


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
