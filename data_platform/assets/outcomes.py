"""What became of a day that was not made: held back or failed, why, and what the three retry mechanisms are told.

Each such day leaves an observation on the layer where it stopped: the reason stands in the UI beside the partition,
the repairing schedule reads it, and alerts are written from it.
"""

import traceback
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

import dagster as dg

from data_platform.assets.repair import Repair
from data_platform.clients import clickhouse, redshift
from data_platform.clients.classify import classify, explain
from data_platform.errors import RUN_AGAIN, TELL_THE_TEAM, Fault, PlatformError
from data_platform.unload.datasets import NotReadyError

# Read by the run-retries daemon, which knows nothing of faults.
MAX_RETRIES_TAG = "dagster/max_retries"
RETRY_STEP_FAILURES_TAG = "dagster/retry_on_asset_or_op_failure"
RESUMES_TAG = "dagster/is_resume_retry"
FAULT_TAG = "data_platform/fault"
RETRIED = frozenset({Fault.TRANSIENT, Fault.THROTTLED})
# What an op repeats by itself: what may pass and did not within the retries where it happened. About 5 and 10 s: a
# failover of a minute is the run-retries daemon's, a longer outage the repairing schedule's.
OP_RETRY = dg.RetryPolicy(max_retries=2, delay=5, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS)

# Names of an observation's metadata: what a person does, now or only where another attempt fails, too.
NEXT, IF_AGAIN = "next_step", "if_it_fails_again"
MAKE_AGAIN = "data-platform backfill"

Finished = tuple[dg.AssetKey, str]


class Outcome(StrEnum):
    """Why a day is missing."""

    HELD_BACK = "held back"  # its source is not complete: nothing is wrong
    FAILED = "failed"


@dataclass(frozen=True)
class DayOutcome:
    """A day that was not made: its fault decides who may try again, its hint tells a person what to do."""

    outcome: Outcome
    fault: Fault
    reason: str
    next_step: str

    def tried_again(self, repair: Repair, partition: str | None, now: datetime) -> str:
        """Who makes the day again without a person."""
        if self.outcome is Outcome.HELD_BACK:
            return repair.told_held_back(partition, now)
        return repair.told(partition, now) if self.fault in RETRIED else "not by itself"

    def observation(
        self, key: dg.AssetKey, partition: str | None, repair: Repair, now: datetime | None = None
    ) -> dg.AssetObservation:
        """The event that keeps it beside the partition, as it is `now`."""
        now = now or datetime.now(UTC)
        repaired = repair.last_try(partition, now) is not None
        held_back = self.outcome is Outcome.HELD_BACK
        step = self.next_step
        if held_back:
            step = (WAITS if repaired else WAITS_FOR_A_PERSON).format(file=_catalogue_file(key))
        waits = repaired and not held_back and self.fault in RETRIED
        return dg.AssetObservation(
            key,
            description=f"{self.outcome}: {self.reason}",
            partition=partition,
            metadata={
                "outcome": self.outcome.value,
                "fault": self.fault.value,
                "reason": self.reason,
                "tried_again": self.tried_again(repair, partition, now),
                IF_AGAIN if waits else NEXT: step,
                **({} if MAKE_AGAIN in step else _make_again(key, partition)),
            },
        )


NOTHING_FOUND = f"If doctor finds nothing and it fails again, {TELL_THE_TEAM}."
NEXT_STEP: Mapping[Fault, str] = {
    Fault.TRANSIENT: "See whether the system that is named is up: data-platform doctor. If it is not, tell whoever "
    f"runs it, and go on once it is up. {NOTHING_FOUND}",
    Fault.THROTTLED: "Let fewer runs go at once: in Dagster, Deployment, Concurrency, lower the limit of the engine's "
    "pool (redshift, clickhouse, athena or postgres). If nothing else was running, the engine is too small for this "
    "day: give it more memory or connections.",
    Fault.PERMANENT: "Correct the cause.",
    Fault.CONFIGURATION: "Run data-platform doctor: it tells which setting, right or table is missing, and how to "
    f"make it. {NOTHING_FOUND}",
    Fault.UNKNOWN: f"{RUN_AGAIN}. If it fails in the same way it is a mistake in the platform and not in the data: "
    f"{TELL_THE_TEAM}.",
}
WAITS = (
    "Nothing: it is asked every half hour and made once its source is complete. Too long? Ask whoever fills the "
    "source; source, condition (source.ready) and owner stand in {file}."
)
WAITS_FOR_A_PERSON = (
    "Ask whoever fills the source whether the day is complete there; source, condition (source.ready) and owner "
    "stand in {file}. Once it is complete, make the day again."
)
PACKAGE = Path(__file__).resolve().parents[1]


def _catalogue_file(key: dg.AssetKey) -> str:
    return f"catalog/datasets/{'/'.join(key.path[1:])}.yaml"


def _make_again(key: dg.AssetKey, partition: str | None) -> dict[str, str]:
    """The command for a day of a dataset, for who stands in front of it."""
    if len(key.path) != 3 or partition is None:
        return {}
    return {"make_again": f"{MAKE_AGAIN} {'/'.join(key.path[1:])} --from {partition} --to {partition}"}


def outcome_of(error: BaseException) -> DayOutcome:
    """What an error means for its day."""
    fault = classify(error)
    if isinstance(error, PlatformError):
        reason, hint = error.message, error.hint
    else:
        reason, hint = explain(error), None
        if fault is Fault.UNKNOWN:
            reason = f"an error in the platform's own code, {reason}{_place(error)}"
    if isinstance(error, NotReadyError):
        return DayOutcome(Outcome.HELD_BACK, fault, reason[:2000], WAITS.format(file="the dataset's catalogue file"))
    return DayOutcome(Outcome.FAILED, fault, reason[:2000], hint or _step_of(error, fault))


def _step_of(error: BaseException, fault: Fault) -> str:
    """What to do about an error that does not say so itself."""
    if fault is Fault.THROTTLED:
        match type(error).__module__.partition(".")[0]:
            case "clickhouse_connect":
                return clickhouse.FEWER
            case "redshift_connector":
                return redshift.NO_SESSION
            case _:
                pass
    return NEXT_STEP[fault]


def _place(error: BaseException) -> str:
    """Where in the platform an error came from: the innermost of its own lines, empty where there is none."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if path.is_relative_to(PACKAGE):
            return f" (data_platform/{path.relative_to(PACKAGE).as_posix()}, line {frame.lineno})"
    return ""


def read_outcome(observation: dg.AssetObservation) -> DayOutcome | None:
    """The outcome in an observation; None for an observation of another kind."""
    texts = {name: str(value.value) for name, value in observation.metadata.items() if hasattr(value, "value")}
    try:
        step = texts[IF_AGAIN] if IF_AGAIN in texts else texts[NEXT]
        return DayOutcome(Outcome(texts["outcome"]), Fault(texts["fault"]), texts["reason"], step)
    except (KeyError, ValueError):
        return None


def worst(faults: Sequence[Fault]) -> Fault:
    """The fault that decides for a run with several: one that must not be repeated outweighs all that may."""
    order = (Fault.PERMANENT, Fault.CONFIGURATION, Fault.UNKNOWN, Fault.TRANSIENT, Fault.THROTTLED)
    return next(fault for fault in order if fault in faults)


def tell_run_retries(instance: dg.DagsterInstance, run_id: str, fault: Fault) -> None:
    """Put on the run what the run-retries daemon reads: one more run for what may pass, none for what may not."""
    retried = fault in RETRIED
    tags = {FAULT_TAG: fault.value, MAX_RETRIES_TAG: "1" if retried else "0"}
    if retried:
        tags[RETRY_STEP_FAILURES_TAG] = "true"
    instance.add_run_tags(run_id, tags)


@contextmanager
def retried_only_if_it_may_pass(context: dg.AssetExecutionContext) -> Generator[None]:
    """Around an op with OP_RETRY: the policy would repeat every exception, also a missing setting or a bug."""
    try:
        yield
    except (dg.Failure, dg.RetryRequested):
        raise
    except Exception as error:  # whatever it is: what is not told otherwise, the policy repeats
        outcome = outcome_of(error)
        tell_run_retries(context.instance, context.run.run_id, outcome.fault)
        message = f"{outcome.reason}\n  -> {outcome.next_step}"
        raise dg.Failure(message, allow_retries=outcome.fault in RETRIED) from error


@dg.failure_hook(name="stop_retries_of_permanent_failures")
def stop_retries(context: dg.HookContext) -> None:
    """Any op's failure tells the run-retries daemon whether another run makes sense.

    A dataset's op has told it already, for all of its days.
    """
    error = context.op_exception
    if error is None or isinstance(error, dg.Failure):
        return
    tell_run_retries(context.instance, context.run_id, classify(error))


def finished_partitions(instance: dg.DagsterInstance, run: dg.DagsterRun, *, again: bool) -> set[Finished]:
    """Layers of days that need no second go: checkpointed by this run's earlier attempt or by the run it resumes.

    `again` says that this is not the op's first attempt. A person's "re-execute all" has neither: it does all again.
    """
    runs = [run.run_id] if again else []
    if run.tags.get(RESUMES_TAG) == "true":
        runs += [run_id for run_id in (run.parent_run_id, run.root_run_id) if run_id is not None]
    found: set[Finished] = set()
    for run_id in dict.fromkeys(runs):
        for record in instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION):
            event = record.asset_materialization
            if event is not None and event.partition is not None:
                found.add((event.asset_key, event.partition))
    return found
