"""Ended runs -> messages to owners: grouped over runs and partitions, once, with the reason and the next step.

A plain sensor over ended runs, not Dagster's run-failure sensor: that one is called once per run, so a backfill of 100
runs would send 100 messages. A message that was not taken is tried again for ATTEMPTS ticks, then left to the log.
"""

import time
from datetime import UTC, datetime
from typing import Any, Literal

import dagster as dg
from pydantic import Field

from data_platform.alerts.delivery import Delivered, deliver
from data_platform.alerts.message import Problem, group
from data_platform.alerts.routes import read_routes, route_of
from data_platform.catalog import Catalog
from data_platform.resources.settings import SettingsResource
from data_platform.sensors.cursors import SensorCursor, read_cursor
from data_platform.sensors.problems import problems_of_run

NAME = "alerts"
INTERVAL_S = 60
DEADLINE_S = 40.0  # Dagster gives a tick 60 s
BATCH = 50
ATTEMPTS = 5
NOT_SENT = (
    f"an alert was not taken by its channel; {ATTEMPTS} ticks try, then it stands here only. Is the channel right "
    "(DATA_PLATFORM_ALERT_ROUTES, DATA_PLATFORM_ALERT_SENDER)? %s (%s: %s)"
)


class Cursor(SensorCursor):
    """How far ended runs were looked at: up to `after` (UTC), the `seen` runs of that very moment included."""

    v: Literal[1] = 1
    after: datetime
    seen: list[str] = Field(default_factory=list[str])
    attempts: int = 0


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
        cursor = read_cursor(context.cursor, Cursor(after=now))  # without one nothing of the past is told
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
                context.log.warning(NOT_SENT, alert.title, each.channel, each.reason)
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
