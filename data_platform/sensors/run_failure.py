"""Ended runs -> messages to owners: grouped over runs and partitions, once, with the reason and the next step.

A plain sensor over ended runs, not Dagster's run-failure sensor: that one is called once per run, so a backfill of 100
runs would send 100 messages. A message that was not taken is tried again for ATTEMPTS ticks, then left to the log.
"""

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import dagster as dg
from pydantic import BaseModel, ConfigDict, ValidationError

from data_platform.alerts.delivery import Delivered, deliver
from data_platform.alerts.message import NOBODY, Problem, group
from data_platform.alerts.routes import read_routes, route_of
from data_platform.assets.outcomes import NEXT_STEP, Outcome, read_outcome
from data_platform.catalog import Catalog
from data_platform.errors import Fault
from data_platform.resources.settings import SettingsResource

NAME = "alerts"
INTERVAL_S = 60
DEADLINE_S = 40.0  # Dagster gives a tick 60 s
BATCH = 50
ATTEMPTS = 5
WILL_RETRY_TAG = "dagster/will_retry"
PROCESS_ENDED = (
    "See in the run's log what ended it: mostly memory, or a machine that went away. Then choose Re-execute from "
    "failure on its page: days that are finished are left alone."
)


class Cursor(BaseModel):
    """How far ended runs were looked at: up to `after` (UTC), the `seen` runs of that very moment included."""

    model_config = ConfigDict(extra="forbid")

    v: int = 1
    after: datetime
    seen: list[str] = []
    attempts: int = 0


def read_cursor(text: str | None, now: datetime) -> Cursor:
    """The cursor, or one that begins now: history is not alerted, and neither is one that cannot be read."""
    try:
        return Cursor.model_validate_json(text or "")
    except ValidationError:
        return Cursor(after=now)


def alert_sensor(catalog: Catalog, status: dg.DefaultSensorStatus) -> dg.SensorDefinition:
    """The sensor that tells owners of failed days and checks."""

    @dg.sensor(
        name=NAME,
        minimum_interval_seconds=INTERVAL_S,
        default_status=status,
        description="Tells owners, by Slack and e-mail, what failed and what to do. Off unless routes are configured.",
    )
    def tick(context: dg.SensorEvaluationContext, platform: SettingsResource) -> Any:
        deadline = time.monotonic() + DEADLINE_S
        settings, now = platform.load(), datetime.now(UTC)
        routes = read_routes(settings)
        cursor = read_cursor(context.cursor, now)
        records, problems = _problems(context.instance, catalog, cursor, deadline)
        left: list[str] = []
        sent = 0
        for alert in group(problems, env=settings.env, dagster_url=settings.dagster_url):
            route = route_of(routes, alert.owner)
            if route is None:
                continue
            if time.monotonic() > deadline:
                left.append(alert.title)
                continue
            outcomes = deliver(settings, route, alert)
            arrived = any(each.delivered is Delivered.SENT for each in outcomes)
            sent += arrived
            bad = [each for each in outcomes if each.delivered is not Delivered.SENT]
            for each in bad:
                context.log.warning("not sent: %s: %s: %s", alert.title, each.channel, each.reason)
            if bad and not arrived:
                left.append(alert.title)
        if left and cursor.attempts + 1 < ATTEMPTS:
            following = cursor.model_copy(update={"attempts": cursor.attempts + 1})
        else:
            following = _advanced(cursor, records)
        return dg.SensorResult(
            cursor=following.model_dump_json(),
            skip_reason=dg.SkipReason(f"{len(records)} ended runs, {sent} messages, {len(left)} not sent"),
        )

    return tick


def _advanced(cursor: Cursor, records: list[dg.RunRecord]) -> Cursor:
    after, seen = cursor.after, list(cursor.seen)
    for record in records:
        moment = record.update_timestamp
        if moment > after:
            after, seen = moment, []
        seen.append(record.dagster_run.run_id)
    return Cursor(after=after, seen=seen)


def _problems(
    instance: dg.DagsterInstance, catalog: Catalog, cursor: Cursor, deadline: float
) -> tuple[list[dg.RunRecord], list[Problem]]:
    """Ended runs that were not looked at yet, oldest first, and what is wrong in them."""
    # Runs are asked for from the cursor's moment on, that moment included: several may have ended in it.
    found = instance.get_run_records(
        filters=dg.RunsFilter(
            statuses=[dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.SUCCESS],
            updated_after=datetime.fromtimestamp(cursor.after.timestamp() - 0.001, UTC),
        ),
        limit=BATCH + len(cursor.seen),
        order_by="update_timestamp",
        ascending=True,
    )
    records: list[dg.RunRecord] = []
    problems: list[Problem] = []
    for record in found:
        run = record.dagster_run
        if run.run_id in cursor.seen or record.update_timestamp < cursor.after:
            continue
        if time.monotonic() > deadline:
            break
        records.append(record)
        problems += problems_of_run(instance, catalog, run)
    return records, problems


def problems_of_run(instance: dg.DagsterInstance, catalog: Catalog, run: dg.DagsterRun) -> Iterator[Problem]:
    """What a person should know of an ended run: failed days, checks that did not pass, else the failure itself.

    Nothing for a run that is repeated by itself: the last one of the series speaks.
    """
    if run.status is dg.DagsterRunStatus.FAILURE and run.tags.get(WILL_RETRY_TAG) == "true":
        return
    days: set[tuple[str, str | None]] = set()
    for record in instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ASSET_OBSERVATION):
        event = record.asset_observation
        outcome = None if event is None else read_outcome(event)
        if event is None or outcome is None or outcome.outcome is not Outcome.FAILED:
            continue
        subject, owner = _subject(catalog, event.asset_key)
        days.add((subject, event.partition))
        if run.status is dg.DagsterRunStatus.FAILURE:
            yield Problem(owner, subject, "failed", event.partition, outcome.reason, outcome.next_step, run.run_id)
    for record in instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION):
        event = record.dagster_event
        evaluation = None if event is None else event.asset_check_evaluation_data
        if evaluation is None or evaluation.passed or evaluation.severity is not dg.AssetCheckSeverity.ERROR:
            continue
        subject, owner = _subject(catalog, evaluation.asset_key)
        if (subject, evaluation.partition) in days:
            continue  # the day's failure tells it already
        what = f"check {evaluation.check_name} did not pass"
        reason, step = reason_of_check(evaluation), step_of_check(evaluation)
        yield Problem(owner, subject, what, evaluation.partition, reason, step, run.run_id)
    if run.status is dg.DagsterRunStatus.FAILURE and not days:
        yield _failure_itself(instance, catalog, run)


def reason_of_check(evaluation: dg.AssetCheckEvaluation) -> str:
    """Its sentence; of a check that has none, what it measured."""
    if evaluation.description:
        return evaluation.description
    measured = {name: value.value for name, value in evaluation.metadata.items() if hasattr(value, "value")}
    if "detail" in measured:
        return str(measured["detail"])
    return "; ".join(f"{name} is {value}" for name, value in measured.items()) or "the check tells nothing"


def step_of_check(evaluation: dg.AssetCheckEvaluation) -> str:
    """Where to look, and what puts it right where one command does."""
    key = evaluation.asset_key
    where = f"Its numbers are in the check {evaluation.check_name} of {key.to_user_string()}, in Dagster."
    match key.path[0]:
        case "summaries":
            again = "data-platform metrics rebuild; if it differs again, materialise it in Dagster with full: true."
            return f"Bring it up to date: {again} {where}"
        case "user_statistics":
            return f"data-platform statistics audit FILE tells every word; the file is the run's partition. {where}"
        case _:
            return f"Do what the reason says. {where}"


def _failure_itself(instance: dg.DagsterInstance, catalog: Catalog, run: dg.DagsterRun) -> Problem:
    """A run that failed and left no outcome: its op's error, or that its process ended."""
    reason, step = "its process ended before it was finished", PROCESS_ENDED
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
    return Problem(
        owner or (NOBODY if domain is None else domain.owner),
        subject or f"job {run.job_name}",
        "failed",
        run.tags.get("dagster/partition"),
        reason,
        hint or step,
        run.run_id,
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
