"""A range of days of one dataset through its layers, as one run in this process: planned, shown, resumable.

A backfill that ended before its time (killed, interrupted, some days failed) is resumed by the same call: the days
that its run has checkpointed in every wanted layer are left alone.
"""

import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import dagster as dg

from data_platform.assets.keys import Stage, partitions_of, stage_key, stages_of
from data_platform.catalog import Catalog
from data_platform.catalog.models import Dataset
from data_platform.errors import ConfigurationError, PlatformError
from data_platform.jobs.daily import job_name_of

RANGE_START_TAG = "dagster/asset_partition_range_start"
RANGE_END_TAG = "dagster/asset_partition_range_end"
BACKFILL_TAG = "data_platform/backfill"
POLL_S = 0.5
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@dataclass(frozen=True)
class Checkpoint:
    """One layer of one day, as Dagster's event log has it."""

    stage: Stage
    day: str
    rows: int
    bytes: int


@dataclass(frozen=True)
class BackfillPlan:
    """What will run: the days of the range, those already done by the run that is resumed, the layers."""

    dataset: Dataset
    stages: tuple[Stage, ...]
    days: tuple[str, ...]  # empty for a snapshot
    done: frozenset[str]
    resumes: str | None

    @property
    def remaining(self) -> tuple[str, ...]:
        """The days to do, in order."""
        return tuple(day for day in self.days if day not in self.done)

    @property
    def tag(self) -> str:
        """Names this backfill among the runs, so that the same call finds it again."""
        days = f"{self.days[0]}..{self.days[-1]}" if self.days else "snapshot"
        return f"{self.dataset.key} {days} {'+'.join(self.stages)}"


@dataclass(frozen=True)
class BackfillResult:
    """How the run ended; `reason` says why it failed."""

    run_id: str
    success: bool
    reason: str | None


def plan_backfill(
    catalog: Catalog,
    instance: dg.DagsterInstance,
    key: str,
    *,
    first: date | None = None,
    last: date | None = None,
    stages: Sequence[Stage] | None = None,
    restart: bool = False,
) -> BackfillPlan:
    """Plan the days `first`..`last` (both included) of the dataset `key` through `stages` (default: all it has).

    Raises ConfigurationError for days outside the dataset's, for layers it does not have, for an unknown dataset.
    """
    dataset = catalog.dataset(key)
    available = stages_of(dataset)
    wanted = tuple(stage for stage in available if stages is None or stage in stages)
    lacking = [stage.value for stage in stages or () if stage not in available]
    if lacking:
        raise ConfigurationError(f"{key} has no layer {', '.join(lacking)}", hint=f"its layers: {', '.join(available)}")
    days = _days(dataset, first, last)
    plan = BackfillPlan(dataset, wanted, days, frozenset(), None)
    previous = None if restart else _unfinished(instance, plan)
    if previous is None:
        return plan
    checkpoints = checkpoints_of(instance, previous, plan)
    done = frozenset(day for day in days if all((stage, day) in checkpoints for stage in wanted))
    return BackfillPlan(dataset, wanted, days, done, previous)


def run_backfill(
    definitions: dg.Definitions,
    catalog: Catalog,
    instance: dg.DagsterInstance,
    plan: BackfillPlan,
    on_checkpoint: Callable[[Checkpoint], None] = lambda _: None,
) -> BackfillResult:
    """Run the plan's remaining days as one run in this process, reporting each layer of each day as it is finished."""
    job = definitions.resolve_job_def(job_name_of(catalog, plan.dataset))
    run_id = str(uuid.uuid4())
    tags = {BACKFILL_TAG: plan.tag}
    op_name = f"{plan.dataset.domain}__{plan.dataset.name}"
    config: dict[str, object] = dict(QUIET)
    if plan.remaining:
        tags |= {RANGE_START_TAG: plan.remaining[0], RANGE_END_TAG: plan.remaining[-1]}
        config["ops"] = {op_name: {"config": {"only": list(plan.remaining)}}}
    ended = threading.Event()
    watcher = threading.Thread(target=_watch, args=(instance, run_id, plan, on_checkpoint, ended), daemon=True)
    watcher.start()
    try:
        result = job.execute_in_process(
            instance=instance,
            run_id=run_id,
            run_config=config,
            tags=tags,
            asset_selection=[stage_key(stage, plan.dataset) for stage in plan.stages],
            raise_on_error=False,
        )
    finally:
        ended.set()
        watcher.join()
    return BackfillResult(run_id, result.success, None if result.success else _reason(result))


def checkpoints_of(
    instance: dg.DagsterInstance, run_id: str, plan: BackfillPlan
) -> Mapping[tuple[Stage, str], Checkpoint]:
    """The layers of days that a run has finished, from the event log."""
    stages = {stage_key(stage, plan.dataset): stage for stage in stages_of(plan.dataset)}
    found: dict[tuple[Stage, str], Checkpoint] = {}
    for record in instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION):
        event = record.asset_materialization
        if event is None or event.asset_key not in stages:
            continue
        stage, day = stages[event.asset_key], event.partition or ""
        metadata = event.metadata
        rows = metadata.get("dagster/partition_row_count", metadata.get("dagster/row_count"))
        size = metadata.get("bytes")
        found[stage, day] = Checkpoint(
            stage, day, int(getattr(rows, "value", 0) or 0), int(getattr(size, "value", 0) or 0)
        )
    return found


def _days(dataset: Dataset, first: date | None, last: date | None) -> tuple[str, ...]:
    if partitions_of(dataset) is None:
        return ()
    if first is None or last is None:
        raise ConfigurationError(f"{dataset.key} is daily: name its days", hint="--from YYYY-MM-DD --to YYYY-MM-DD")
    if last < first:
        raise ConfigurationError(f"--to {last} is before --from {first}")
    start, end = dataset.start, dataset.end
    if (start is not None and first < start) or (end is not None and last > end):
        raise ConfigurationError(f"{first}..{last} is not within the days of {dataset.key}: {start}..{end or 'today'}")
    return tuple((first + timedelta(days=n)).isoformat() for n in range((last - first).days + 1))


def _unfinished(instance: dg.DagsterInstance, plan: BackfillPlan) -> str | None:
    """The newest run of this very backfill, if it did not succeed."""
    runs = instance.get_runs(filters=dg.RunsFilter(tags={BACKFILL_TAG: plan.tag}), limit=1)
    if not runs or runs[0].status is dg.DagsterRunStatus.SUCCESS:
        return None
    return runs[0].run_id


def _watch(
    instance: dg.DagsterInstance,
    run_id: str,
    plan: BackfillPlan,
    on_checkpoint: Callable[[Checkpoint], None],
    ended: threading.Event,
) -> None:
    """Tell of checkpoints as the event log gets them, so that what is shown is what Dagster knows."""
    told: set[tuple[Stage, str]] = set()
    last_round = False
    while not last_round:
        last_round = ended.wait(POLL_S)
        for key, checkpoint in checkpoints_of(instance, run_id, plan).items():
            if key not in told:
                told.add(key)
                on_checkpoint(checkpoint)


def _reason(result: dg.ExecuteInProcessResult) -> str:
    for event in result.all_events:
        if event.is_step_failure:
            failure = event.step_failure_data
            if failure.user_failure_data is not None and failure.user_failure_data.description:
                return failure.user_failure_data.description
            if failure.error is not None:
                return failure.error.message.strip()
    return "the run failed; see its log in Dagster"


def require_success(result: BackfillResult) -> None:
    """Raise PlatformError with the run's reason when it failed."""
    if not result.success:
        raise PlatformError(
            result.reason or "the run failed", hint="the same command again takes up where this run ended"
        )
