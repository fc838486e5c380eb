"""A range of days of one dataset through its layers, as one run in this process: planned, shown, resumable.

A backfill that ended before its time (killed, interrupted, some days failed) is resumed by the same call: the days
that its runs have checkpointed in every wanted layer are left alone.
"""

import logging
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import date, timedelta

import dagster as dg

from data_platform.assets.keys import DATASET_TAG, Stage, partitions_of, stage_key, stages_of
from data_platform.catalog import Catalog
from data_platform.catalog.models import Dataset
from data_platform.errors import ConfigurationError, PlatformError
from data_platform.jobs.daily import job_name_of
from data_platform.jobs.processes import end_abandoned, process_tags, runs_here

log = logging.getLogger(__name__)

RANGE_START_TAG = "dagster/asset_partition_range_start"
RANGE_END_TAG = "dagster/asset_partition_range_end"
BACKFILL_TAG = "data_platform/backfill"
RESUMES_TAG = "data_platform/resumes"
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
    """What will run: the days of the range, those already done by the runs that are resumed, the layers."""

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
    def partitions(self) -> int:
        """How many layers of days there are to do."""
        return len(self.stages) * (len(self.remaining) if self.days else 1)

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

    Runs whose process is gone are ended first. Raises ConfigurationError for days outside the dataset's, for layers it
    does not have, for an unknown dataset, and while the same backfill is running.
    """
    dataset = catalog.dataset(key)
    available = stages_of(dataset)
    wanted = tuple(stage for stage in available if stages is None or stage in stages)
    lacking = [stage.value for stage in stages or () if stage not in available]
    if lacking:
        raise ConfigurationError(f"{key} has no layer {', '.join(lacking)}", hint=f"its layers: {', '.join(available)}")
    days = _days(dataset, first, last)
    plan = BackfillPlan(dataset, wanted, days, frozenset(), None)
    end_abandoned(instance)
    newest = _newest_run(instance, plan)
    if newest is not None and not newest.is_finished and runs_here(newest):
        raise ConfigurationError(
            f"this backfill is running already, as run {newest.run_id[:8]}",
            hint="wait for it, or terminate the run in Dagster",
        )
    if restart or newest is None or newest.status is dg.DagsterRunStatus.SUCCESS:
        return plan
    checkpoints: dict[tuple[Stage, str], Checkpoint] = {}
    for run in _chain(instance, newest):
        checkpoints.update(checkpoints_of(instance, run.run_id, plan))
    done = frozenset(day for day in days if all((stage, day) in checkpoints for stage in wanted))
    # Its process ended behind the last checkpoint: one day is done again, so that there is a run that ends.
    done -= {days[-1]} if days and len(done) == len(days) else set[str]()
    return replace(plan, done=done, resumes=newest.run_id)


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
    tags = {BACKFILL_TAG: plan.tag, DATASET_TAG: plan.dataset.key, **process_tags()}
    if plan.resumes is not None:
        tags[RESUMES_TAG] = plan.resumes
    op_name = f"{plan.dataset.domain}__{plan.dataset.name}"
    config: dict[str, object] = dict(QUIET)
    if plan.remaining:
        tags |= {RANGE_START_TAG: plan.remaining[0], RANGE_END_TAG: plan.remaining[-1]}
        config["ops"] = {op_name: {"config": {"only": list(plan.remaining)}}}
    ended = threading.Event()
    with ThreadPoolExecutor(1, thread_name_prefix="checkpoints") as pool:
        watcher = pool.submit(_watch, instance, run_id, plan, on_checkpoint, ended)
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
    failure = watcher.exception()
    if failure is not None:  # the run is done whether or not somebody could watch
        log.warning("the progress of run %s could not be followed: %s", run_id, failure)
    return BackfillResult(run_id, result.success, None if result.success else _reason(result))


def checkpoints_of(
    instance: dg.DagsterInstance, run_id: str, plan: BackfillPlan
) -> Mapping[tuple[Stage, str], Checkpoint]:
    """The layers of days that a run has finished, from the event log."""
    return {(found.stage, found.day): found for found, _ in _checkpoints_after(instance, run_id, plan, None)}


def _checkpoints_after(
    instance: dg.DagsterInstance, run_id: str, plan: BackfillPlan, cursor: str | None
) -> Iterator[tuple[Checkpoint, str]]:
    """Checkpoints behind `cursor` in the order they were written, each with the cursor to go on from."""
    stages = {stage_key(stage, plan.dataset): stage for stage in stages_of(plan.dataset)}
    page = instance.get_records_for_run(run_id, cursor, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
    for record in page.records:
        event = record.asset_materialization
        if event is None or event.asset_key not in stages:
            continue
        metadata = event.metadata
        rows = metadata.get("dagster/partition_row_count", metadata.get("dagster/row_count"))
        size = metadata.get("bytes")
        checkpoint = Checkpoint(
            stages[event.asset_key],
            event.partition or "",
            int(getattr(rows, "value", 0) or 0),
            int(getattr(size, "value", 0) or 0),
        )
        yield checkpoint, page.cursor


def _days(dataset: Dataset, first: date | None, last: date | None) -> tuple[str, ...]:
    partitions = partitions_of(dataset)
    if partitions is None:
        if first is not None or last is not None:
            raise ConfigurationError(f"{dataset.key} is a snapshot and has no days", hint="leave --from and --to out")
        return ()
    if first is None or last is None:
        raise ConfigurationError(f"{dataset.key} is daily: name its days", hint="--from YYYY-MM-DD --to YYYY-MM-DD")
    if last < first:
        raise ConfigurationError(f"--to {last} is before --from {first}")
    start, end = partitions.get_first_partition_key(), partitions.get_last_partition_key()
    if start is None or end is None or first.isoformat() < start or last.isoformat() > end:
        raise ConfigurationError(
            f"{first}..{last} is not within the days of {dataset.key}: {start or dataset.start}..{end or 'none yet'}",
            hint="its days are `start` and `end` in the catalogue; without an end, the last full UTC day",
        )
    return tuple((first + timedelta(days=n)).isoformat() for n in range((last - first).days + 1))


def _newest_run(instance: dg.DagsterInstance, plan: BackfillPlan) -> dg.DagsterRun | None:
    """The newest run of this very backfill."""
    runs = instance.get_runs(filters=dg.RunsFilter(tags={BACKFILL_TAG: plan.tag}), limit=1)
    return runs[0] if runs else None


def _chain(instance: dg.DagsterInstance, newest: dg.DagsterRun) -> Iterator[dg.DagsterRun]:
    """The run, the one it resumed, the one that one resumed, ... back to a run that began from nothing."""
    run: dg.DagsterRun | None = newest
    while run is not None:
        yield run
        earlier = run.tags.get(RESUMES_TAG)
        run = None if earlier is None else instance.get_run_by_id(earlier)


def _watch(
    instance: dg.DagsterInstance,
    run_id: str,
    plan: BackfillPlan,
    on_checkpoint: Callable[[Checkpoint], None],
    ended: threading.Event,
) -> None:
    """Tell of checkpoints as the event log gets them, so that what is shown is what Dagster knows."""
    cursor: str | None = None
    last_round = False
    while not last_round:
        last_round = ended.wait(POLL_S)
        for checkpoint, behind in _checkpoints_after(instance, run_id, plan, cursor):
            cursor = behind
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
        reason, _, hint = (result.reason or "the run failed").partition("\n  -> ")
        step = f"{hint.rstrip('.')}. The" if hint else "the"
        raise PlatformError(reason, hint=f"{step} same command again takes up where this run ended")
