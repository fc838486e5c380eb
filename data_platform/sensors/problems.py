"""What a person should know of an ended run: its failed days, its checks that did not pass, else its own failure.

Belongs here: reading a run's events. Does not: which runs, whom to tell (run_failure.py), the words around (alerts/).
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from urllib.parse import unquote

import dagster as dg

from data_platform.alerts.message import NOBODY, UNTOUCHED, Again, Problem, with_command
from data_platform.assets.checks import BOUNDARY
from data_platform.assets.checks import NEXT_STEP as STEP_OF_CHECK
from data_platform.assets.keys import Stage
from data_platform.assets.outcomes import FAULT_TAG, NEXT_STEP, RETRIED, Outcome, read_outcome
from data_platform.assets.repair import Repair
from data_platform.assets.standing import DESCRIPTIONS as STANDING
from data_platform.assets.standing import NO_DEAD_LETTERS
from data_platform.catalog import Catalog
from data_platform.errors import TELL_THE_TEAM, Fault
from data_platform.jobs.daily import (
    DATASETS_HOUR,
    STANDING_JOB,
    SUMMARIES,
    SUMMARIES_HOUR,
    daily_names,
    repairs,
    schedule_name,
)
from data_platform.jobs.loading import CATCH_UP, RECONCILIATION
from data_platform.jobs.unload_requests import JOB as UNLOAD_JOB
from data_platform.sensors.loading import NAME as LOAD_QUEUES
from data_platform.sensors.reconciliation import NAME as RECONCILIATION_SCHEDULE
from data_platform.sensors.unload_requests import NAME as UNLOAD_REQUESTS
from data_platform.sensors.unload_requests import REQUEST_TAG
from data_platform.sensors.user_statistics import JOB_NAME as STATISTICS_JOB
from data_platform.sensors.user_statistics import NAME as STATISTICS_DROPS

WILL_RETRY_TAG = "dagster/will_retry"
ENDED = "ended before it was finished"
WHAT_ENDED_IT = (
    "See in the run's log what ended it: mostly too little memory of the machine or container that runs Dagster's "
    "runs (give that more), or that this was stopped."
)
PROCESS_ENDED = (
    f"{WHAT_ENDED_IT} Then choose Re-execute from failure on the run's page: what is finished is left alone."
)
# What each check of a summary asks for, in words; its detail tells the first day on which it is not so.
SUMMARY_CHECKS = {
    "not_empty": "The table has no rows:",
    "not_stale": "The table was not made by the newest run:",
    "cohorts_add_up_to_dau": "The users of all cohorts of a day must be its daily active users;",
    "cohort_sizes_are_new_users": "The size of a day's cohort must be the number of its new users;",
    "mau_shows_the_dau": "Both tables must show the same daily active users;",
    "sessions_agree_with_dau": "Both tables must count the same sessions a day;",
    "funnel_starts_with_all_sessions": "The funnel of a day must start with all its sessions;",
    "events_add_up": "The events of all kinds must add up to the day's events;",
    "equals_raw_events": "The newest days, counted again from the raw events, must come to the same;",
    "equals_interval_algorithm": "Monthly active users computed in another way must be the same;",
    "equals_distinct_users": "Monthly active users counted one by one must be the same;",
    "equals_other_engine": "ClickHouse and Athena must have the same rows;",
}
RUN_AGAIN = {SUMMARIES: "data-platform metrics rebuild"}
BY_HAND = "Re-execute all on the run's page"
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
    now, repaired = now or datetime.now(UTC), repairs(catalog, lookback)
    days: set[tuple[str, str | None]] = set()
    for record in instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ASSET_OBSERVATION):
        event = record.asset_observation
        outcome = None if event is None else read_outcome(event)
        if event is None or outcome is None or outcome.outcome is not Outcome.FAILED:
            continue
        subject, owner = _subject(catalog, event.asset_key)
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
                again=tried_again(repaired.get(subject), outcome.fault, event.partition, now),
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
        yield _failure_itself(instance, catalog, run, lookback)


def failed_in(key: dg.AssetKey) -> str:
    """The words of a title for a day that failed at an asset: with its layer, where it is one of a dataset's."""
    return f"failed in its layer {key.path[0]}" if key.path[0] in set(Stage) and len(key.path) == 3 else "failed"


def tried_again(repair: Repair | None, fault: Fault, day: str | None, now: datetime) -> Again | None:
    """Who tries a failed day again by itself, if anybody does; `repair` is the one of its dataset."""
    last = None if repair is None or fault not in RETRIED else repair.last_try(day, now)
    if repair is None or last is None:
        return None
    return Again(repair.schedule, "it", repair.when, f"Until then {READERS}.", last.isoformat())


def job_tried_again(catalog: Catalog, job: str, lookback: int) -> Again | None:
    """Who starts a run of a job again that was killed or failed for a reason that may pass; a day's is told apart."""
    day = "Until then what it had not finished is as it was before."
    if job in daily_names(catalog):
        when = f"every day at {DATASETS_HOUR:02}:00 UTC"
        return Again(schedule_name(job), f"what is missing of the last {lookback} days", when, day)
    daily = f"every day at {SUMMARIES_HOUR:02}:00 UTC"
    until = "until three runs failed"
    told = {
        SUMMARIES: (schedule_name(SUMMARIES), "it", daily, day),
        STANDING_JOB: (schedule_name(STANDING_JOB), "it", "every hour", "Nobody is told of missing days until then."),
        RECONCILIATION: (RECONCILIATION_SCHEDULE, "it", "every day at 03:45 UTC", day),
        CATCH_UP: (f"The sensor {LOAD_QUEUES}", "it", "within minutes, while messages wait", "The messages are safe."),
        STATISTICS_JOB: (
            f"The sensor {STATISTICS_DROPS}",
            "the file",
            f"{until}; then the alarm StatisticsDLQMessages rings",
            "The table user_statistics has the parts of the file that were finished.",
        ),
        UNLOAD_JOB: (
            f"The sensor {UNLOAD_REQUESTS}",
            "the request",
            f"{until}; where its query had begun, a running process of the API writes down how it ended",
            "Its caller sees it as running.",
        ),
    }
    return Again(*told[job]) if job in told else None


def problem_of_check(evaluation: dg.AssetCheckEvaluation, owner: str, subject: str, run_id: str) -> Problem:
    """A check that did not pass, in words."""
    measured = {name: value.value for name, value in evaluation.metadata.items() if hasattr(value, "value")}
    step = str(measured.pop(STEP_OF_CHECK, ""))
    if evaluation.description:
        reason = evaluation.description.removesuffix(step).strip()
    elif "detail" in measured:
        reason = f"{SUMMARY_CHECKS.get(evaluation.check_name, '')} {measured['detail']}.".strip()
    else:
        reason = "; ".join(f"{name} is {value}" for name, value in measured.items()) or "the check tells nothing"
    asset = evaluation.asset_key.to_user_string()
    where = f"(all its numbers: Dagster, Catalog, {asset}, tab Checks, {evaluation.check_name})"
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
        rebuild = "data-platform metrics rebuild"
        if evaluation.check_name == "equals_other_engine":
            rebuild = f"{rebuild} --engine clickhouse, then {rebuild} --engine athena"
        asset = evaluation.asset_key.to_user_string()
        return (
            f"Bring all tables up to date: {rebuild}. If the check fails again, compute the tables anew: in Dagster, "
            f"Catalog, {asset} (and the other table, where two are named), Materialize, with full: true in its "
            f"config. If it still fails, it is a mistake in the platform: {TELL_THE_TEAM}."
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
        case _ if evaluation.check_name in BOUNDARY.values():
            return "Readers may see other rows than the layer before holds."
        case _:
            return "The rows are in place and readers see them."


def _failure_itself(instance: dg.DagsterInstance, catalog: Catalog, run: dg.DagsterRun, lookback: int) -> Problem:
    """A run that failed and left no outcome: its op's error, or that its process ended."""
    failed = _op_error(instance, run)
    fault = Fault(run.tags.get(FAULT_TAG, Fault.UNKNOWN.value))
    if failed is None:
        process, step = _process(run)
        reason = f"{process} {ENDED}{_said_of_the_end(instance, run)}"
    else:
        reason, _, hint = failed.partition("\n  -> ")
        step = hint or NEXT_STEP[fault]
        if fault is Fault.CONFIGURATION or not hint:
            step = with_command(step, RUN_AGAIN.get(run.job_name, BY_HAND))
    # What is left of a catch-up is the next one's, whatever ended it.
    passes = failed is None or fault in RETRIED or run.job_name == CATCH_UP
    again = job_tried_again(catalog, run.job_name, lookback) if passes else None
    keys = sorted(run.asset_selection or (), key=lambda key: tuple(key.path))
    subject, owner = _subject(catalog, keys[0]) if len({tuple(key.path[1:]) for key in keys}) == 1 else (None, None)
    domain = catalog.domains.get(run.tags.get("domain", ""))
    return Problem(
        owner or (NOBODY if domain is None else domain.owner),
        subject or f"job {run.job_name}",
        "failed",
        run.tags.get("dagster/partition"),
        reason,
        step,
        run.run_id,
        again=again,
        effect=f"{UNTOUCHED} What it was to make is as it was before.",
    )


def _process(run: dg.DagsterRun) -> tuple[str, str]:
    """A run's process by what it worked on, and what a person does after it was killed."""
    partition = run.tags.get("dagster/partition")
    if run.job_name == UNLOAD_JOB and (request := run.tags.get(REQUEST_TAG)):
        return f"the process of the unload request {request}", (
            f"The sensor starts three runs of a request and no more: how many there were, Dagster tells in Runs, tag "
            f"{REQUEST_TAG}:{request}. After the third: {WHAT_ENDED_IT} Then restart the API where it is deployed, or "
            "run data-platform api there if none runs: it takes up every request that is left."
        )
    if run.job_name == STATISTICS_JOB and partition:
        url = unquote(partition).rpartition("@")[0] or unquote(partition)
        return f"the process that applied {url}", (
            f"{WHAT_ENDED_IT} Then apply the file by hand, which goes on where it ended and is safe beside the sensor: "
            f"data-platform statistics apply {url}"
        )
    return "its process", PROCESS_ENDED


def _op_error(instance: dg.DagsterInstance, run: dg.DagsterRun) -> str | None:
    """What the op that failed says, in its own words; None where no op failed."""
    found = None
    for record in instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE):
        data = record.dagster_event.step_failure_data if record.dagster_event is not None else None
        if data is None:
            continue
        if data.user_failure_data is not None and data.user_failure_data.description:
            found = data.user_failure_data.description
        elif data.error is not None:
            error = data.error.cause or data.error  # Dagster wraps what the op raised
            text = error.message.strip()
            ours = text.startswith("data_platform.")
            found = text.partition(": ")[2] if ours else f"an error in the platform's own code, {text}"
    return found


def _said_of_the_end(instance: dg.DagsterInstance, run: dg.DagsterRun) -> str:
    """What Dagster said when it found the run ended: it was never launched, took too long, ..."""
    for record in instance.all_logs(run.run_id, of_type=dg.DagsterEventType.RUN_FAILURE):
        event = record.dagster_event
        if event is not None and event.message:
            return f" ({event.message.strip().rstrip('.')})"
    return ""


def _subject(catalog: Catalog, key: dg.AssetKey) -> tuple[str, str]:
    """A dataset or service with its owner; any other asset by its key, owned by nobody."""
    if len(key.path) == 3 and (dataset := catalog.datasets.get("/".join(key.path[1:]))) is not None:
        return dataset.key, dataset.owner
    if key.path[0] == "summaries":
        for service in catalog.services.values():
            if service.prefix == key.path[1]:
                return key.to_user_string(), service.owner
    return key.to_user_string(), NOBODY
