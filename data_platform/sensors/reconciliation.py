"""Once a day: yesterday's prefixes on S3 against the register, by a run that loads what no event announced."""

from datetime import timedelta
from typing import Any

import dagster as dg

NAME = "load_reconciliation_schedule"
CRON = "45 3 * * *"  # UTC: yesterday's late files and their events have come


def reconciliation_schedule(job: Any, status: dg.DefaultScheduleStatus) -> dg.ScheduleDefinition:
    """The schedule; its run compares the day before the tick's."""

    @dg.schedule(
        name=NAME,
        job=job,
        cron_schedule=CRON,
        execution_timezone="UTC",
        default_status=status,
        description="Finds and loads yesterday's objects whose event never came.",
    )
    def tick(context: dg.ScheduleEvaluationContext) -> Any:
        day = (context.scheduled_execution_time.date() - timedelta(days=1)).isoformat()
        return dg.RunRequest(
            run_key=f"reconciliation-{day}",
            run_config={"ops": {"load_what_is_missing": {"config": {"days": [day]}}}},
        )

    return tick
