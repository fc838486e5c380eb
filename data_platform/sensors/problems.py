"""What a person should know of an ended run: its failed days, its checks that did not pass, else its own failure.

Belongs here: reading a run's events. Does not: which runs, whom to tell (run_failure.py), the words around (alerts/).
"""

from collections.abc import Iterator
from datetime import UTC, datetime

import dagster as dg

from data_platform.alerts.message import NOBODY, UNTOUCHED, Problem
from data_platform.assets.checks import NEXT_STEP as STEP_OF_CHECK
from data_platform.assets.keys import Stage
from data_platform.assets.outcomes import NEXT_STEP, RETRIED, Outcome, read_outcome
from data_platform.assets.standing import DESCRIPTIONS as STANDING
from data_platform.assets.standing import NO_DEAD_LETTERS
from data_platform.catalog import Catalog
from data_platform.catalog.models import Dataset
from data_platform.errors import Fault
from data_platform.jobs.daily import DATASETS_HOUR, daily_names, job_name_of
from data_platform.jobs.lookback import last_days

WILL_RETRY_TAG = "dagster/will_retry"
ENDED = "its process ended before it was finished"
PROCESS_ENDED = (
    "See in the run's log what ended it, mostly too little memory (give it more) or a machine that went away. Then "
    "choose Re-execute from failure on the run's page: days that are finished are left alone."
)
READERS = "readers have the day as it was before, or not at all"
DAY_MISSING = f"{UNTOUCHED} R{READERS[1:]}."


def problems_of_run(
    instance: dg.DagsterInstance, catalog: Catalog, run: dg.DagsterRun, *, lookback: int, now: datetime | None = None
) -> Iterator[Problem]:
    """What is wrong in an ended run; the daily schedules repair the last `lookback` days before `now`.

    Nothing for a run that is repeated by itself: the last one of the series speaks.
    """
    if run.status is dg.DagsterRunStatus.FAILURE and run.tags.get(WILL_RETRY_TAG) == "true":
        return
    now = now or datetime.now(UTC)
    days: set[tuple[str, str | None]] = set()
    for record in instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ASSET_OBSERVATION):
        event = record.asset_observation
        outcome = None if event is None else read_outcome(event)
        if event is None or outcome is None or outcome.outcome is not Outcome.FAILED:
            continue
        subject, owner = _subject(catalog, event.asset_key)
        dataset = catalog.datasets.get(subject)
        days.add((subject, event.partition))
        if run.status is dg.DagsterRunStatus.FAILURE:
            yield Problem(
                owner,
                subject,
                failed_in(event.asset_key),
                event.partition,
                outcome.reason,
                outcome.next_step,
                run.run_id,
                again=tried_again(catalog, dataset, outcome.fault, event.partition, now, lookback),
                effect=DAY_MISSING,
            )
    for record in instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION):
        event = record.dagster_event
        evaluation = None if event is None else event.asset_check_evaluation_data
        if evaluation is None or evaluation.passed or evaluation.severity is not dg.AssetCheckSeverity.ERROR:
            continue
        subject, owner = _subject(catalog, evaluation.asset_key)
        if (subject, evaluation.partition) not in days:  # else the day's failure tells it already
            yield problem_of_check(evaluation, owner, subject, run.run_id)
    if run.status is dg.DagsterRunStatus.FAILURE and not days:
        yield _failure_itself(instance, catalog, run)


def failed_in(key: dg.AssetKey) -> str:
    """The words of a title for a day that failed at an asset: with its layer, where it is one of a dataset's."""
    return f"failed in its layer {key.path[0]}" if key.path[0] in set(Stage) and len(key.path) == 3 else "failed"


def tried_again(
    catalog: Catalog, dataset: Dataset | None, fault: Fault, day: str | None, now: datetime, lookback: int
) -> str:
    """Who tries a failed day again by itself; empty where nobody does."""
    if dataset is None or fault not in RETRIED or day not in last_days(dataset, now, lookback):
        return ""
    return f"{_by_schedule(job_name_of(catalog, dataset), 'it')}. Until then {READERS}"


def _by_schedule(job: str, what: str) -> str:
    """A promise that holds while the schedule is on, and what to do where it is not."""
    return (
        f"{job}_schedule tries {what} again every day at {DATASETS_HOUR:02}:00 UTC; if it is off (Dagster, "
        "Automation), do now what stands below"
    )


def problem_of_check(evaluation: dg.AssetCheckEvaluation, owner: str, subject: str, run_id: str) -> Problem:
    """A check that did not pass, in words."""
    measured = {name: value.value for name, value in evaluation.metadata.items() if hasattr(value, "value")}
    step = str(measured.pop(STEP_OF_CHECK, ""))
    if evaluation.description:
        reason = evaluation.description.removesuffix(step).strip()
    elif "detail" in measured:
        reason = str(measured["detail"])
    else:
        reason = "; ".join(f"{name} is {value}" for name, value in measured.items()) or "the check tells nothing"
    where = f"(all its numbers: Dagster, {evaluation.asset_key.to_user_string()}, check {evaluation.check_name})"
    return Problem(
        owner,
        subject,
        f"check {evaluation.check_name} did not pass",
        evaluation.partition,
        reason,
        f"{step or _step(evaluation)} {where}",
        run_id,
        effect=_effect(evaluation),
    )


def _step(evaluation: dg.AssetCheckEvaluation) -> str:
    """What puts it right, for a check that does not say so itself."""
    if evaluation.asset_key.path[0] == "summaries":
        return (
            "Bring all tables up to date: data-platform metrics rebuild. If it differs again, choose Materialize on "
            "the asset in Dagster, with full: true in its config."
        )
    return "See what it measured, correct the cause, and run the check again (Checks, Execute)."


def _effect(evaluation: dg.AssetCheckEvaluation) -> str:
    """What a check that did not pass means for readers."""
    match evaluation.asset_key.path[0]:
        case "summaries":
            return "Readers of this table see numbers that are wrong."
        case "user_statistics":
            return "Readers of user_statistics may see wrong values."
        case _ if evaluation.check_name in {*STANDING, NO_DEAD_LETTERS}:
            return "Readers lack rows that should be there."
        case _:
            return "The rows are in place and readers see them."


def _failure_itself(instance: dg.DagsterInstance, catalog: Catalog, run: dg.DagsterRun) -> Problem:
    """A run that failed and left no outcome: its op's error, or that its process ended."""
    reason, step = ENDED, PROCESS_ENDED
    for record in instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE):
        data = record.dagster_event.step_failure_data if record.dagster_event is not None else None
        if data is None:
            continue
        step = NEXT_STEP[Fault.UNKNOWN]
        told = data.user_failure_data.description if data.user_failure_data is not None else None
        reason = told or (data.error.message.strip() if data.error is not None else reason)
    keys = sorted(run.asset_selection or (), key=lambda key: tuple(key.path))
    subject, owner = _subject(catalog, keys[0]) if len({tuple(key.path[1:]) for key in keys}) == 1 else (None, None)
    reason, _, hint = reason.partition("\n  -> ")
    domain = catalog.domains.get(run.tags.get("domain", ""))
    # A run that left no outcome was killed: what is missing of the last days is made by the next one.
    killed = reason == ENDED and run.job_name in daily_names(catalog)
    again = _by_schedule(run.job_name, "what is missing of the last days") if killed else ""
    return Problem(
        owner or (NOBODY if domain is None else domain.owner),
        subject or f"job {run.job_name}",
        "failed",
        run.tags.get("dagster/partition"),
        reason,
        hint or step,
        run.run_id,
        again=again,
        effect=f"{UNTOUCHED} What it was to make is as it was before.",
    )


def _subject(catalog: Catalog, key: dg.AssetKey) -> tuple[str, str]:
    """A dataset or service with its owner; any other asset by its key, owned by nobody."""
    if len(key.path) == 3 and (dataset := catalog.datasets.get("/".join(key.path[1:]))) is not None:
        return dataset.key, dataset.owner
    if key.path[0] == "summaries":
        for service in catalog.services.values():
            if service.prefix == key.path[1]:
                return key.to_user_string(), service.owner
    return key.to_user_string(), NOBODY
