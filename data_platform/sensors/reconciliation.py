"""Once a day: the last days' prefixes on S3 against the register, by a run that loads what no event announced."""

from datetime import timedelta
from typing import Any

import dagster as dg

from data_platform.jobs.lookback import run_key

NAME = "load_reconciliation_schedule"
CRON = "45 3 * * *"  # UTC: yesterday's late files and their events have come
DAYS = 3  # a run that failed for an engine's outage is made good by the next ones


def reconciliation_schedule(job: Any, status: dg.DefaultScheduleStatus) -> dg.ScheduleDefinition:
    """The schedule; its run compares the days before the tick's."""

    @dg.schedule(
        name=NAME,
        job=job,
        cron_schedule=CRON,
        execution_timezone="UTC",
        default_status=status,
        description=f"Finds and loads objects of the last {DAYS} days whose event never came.",
    )
    def tick(context: dg.ScheduleEvaluationContext) -> Any:
        today = context.scheduled_execution_time.date()
        days = [(today - timedelta(days=n)).isoformat() for n in range(DAYS, 0, -1)]
        return dg.RunRequest(
            run_key=run_key(NAME, days[-1]),
            run_config={"ops": {"load_what_is_missing": {"config": {"days": days}}}},
        )

    return tick
