"""Ended runs -> messages to owners: grouped over runs and partitions, once, with the reason and the next step.

A plain sensor over ended runs, not Dagster's run-failure sensor: that one is called once per run, so a backfill of 100
runs would send 100 messages. A message that was not taken is tried again for ATTEMPTS ticks, then left to the log.
"""

import time
from datetime import UTC, datetime
from typing import Any

import dagster as dg
from pydantic import BaseModel, ConfigDict, ValidationError

from data_platform.alerts.delivery import Delivered, deliver
from data_platform.alerts.message import Problem, group
from data_platform.alerts.routes import read_routes, route_of
from data_platform.catalog import Catalog
from data_platform.resources.settings import SettingsResource
from data_platform.sensors.problems import problems_of_run

NAME = "alerts"
INTERVAL_S = 60
DEADLINE_S = 40.0  # Dagster gives a tick 60 s
BATCH = 50
ATTEMPTS = 5


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
        records, problems = _problems(context.instance, catalog, cursor, deadline, lookback=settings.lookback_days)
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
    instance: dg.DagsterInstance, catalog: Catalog, cursor: Cursor, deadline: float, *, lookback: int
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
        problems += problems_of_run(instance, catalog, run, lookback=lookback)
    return records, problems
