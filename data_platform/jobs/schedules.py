"""What runs by the clock: each domain's day with the repair of the days before, summaries, standing checks.

Nothing here starts by itself: the settings' allow-list names what does (`none` in dev). A tick that is evaluated twice
asks for the same run keys, and Dagster starts a key once.
"""

from collections.abc import Collection, Iterable, Sequence
from datetime import UTC
from typing import Any

import dagster as dg

from data_platform.catalog.models import Dataset
from data_platform.errors import ConfigurationError
from data_platform.jobs.daily import AssetJob, DailyJob, Schedule, schedule_name
from data_platform.jobs.lookback import last_days, needs_of, ranges_of
from data_platform.settings import Settings, variable_of

STANDING_CHECKS_CRON = "20 * * * *"  # after the loads of the full hour


class AllowList:
    """Which schedules and sensors start by themselves: the names in the settings."""

    def __init__(self, settings: Settings) -> None:
        self._names = {name for name in settings.schedules.split(",") if name != "none"}

    def allows(self, name: str) -> bool:
        """Whether what is called `name` is on the list."""
        return "all" in self._names or name in self._names

    def jobs(self, entries: Iterable[DailyJob]) -> list[AssetJob]:
        """The jobs a sensor may start here: those whose schedule is on the list, all where none is.

        A site that runs one domain by the clock does not want a sensor to start the others.
        """
        jobs = [entry.job for entry in entries]
        return [job for job in jobs if self.allows(schedule_name(job.name))] or jobs

    def schedule(self, name: str) -> dg.DefaultScheduleStatus:
        """The state a schedule begins with."""
        return dg.DefaultScheduleStatus.RUNNING if self.allows(name) else dg.DefaultScheduleStatus.STOPPED

    def sensor(self, name: str) -> dg.DefaultSensorStatus:
        """The state a sensor begins with."""
        return dg.DefaultSensorStatus.RUNNING if self.allows(name) else dg.DefaultSensorStatus.STOPPED

    def refuse_unknown(self, known: Collection[str]) -> None:
        """Raise ConfigurationError for a name that nothing has: what its author meant to start would not."""
        unknown = sorted(self._names - {"all"} - set(known))
        if unknown:
            raise ConfigurationError(
                f"{variable_of('schedules')} names what does not exist: {', '.join(unknown)}",
                hint=f"known: none, all, {', '.join(sorted(known))}",
            )


def daily_schedules(jobs: Iterable[DailyJob], allowed: AllowList, *, lookback: int) -> list[Schedule]:
    """A schedule per daily job: datasets by day with lookback, the others as a whole."""
    return [
        _lookback_schedule(entry, allowed, lookback=lookback) if entry.partitioned else _plain_schedule(entry, allowed)
        for entry in jobs
    ]


def standing_schedule(job: AssetJob, allowed: AllowList) -> Schedule:
    """The hourly reconciliation of what should be there with what is."""
    name = schedule_name(job.name)
    return dg.ScheduleDefinition(
        name=name,
        job=job,
        cron_schedule=STANDING_CHECKS_CRON,
        execution_timezone="UTC",
        default_status=allowed.schedule(name),
        description="Every hour: is the newest expected day there, is no partition left failed.",
    )


def nothing_needed(datasets: Sequence[Dataset], lookback: int) -> str:
    """Why a tick started nothing."""
    keys = ", ".join(dataset.key for dataset in datasets)
    return (
        f"the last {lookback} days of {keys} need nothing: each is made, being made, or failed for good and waits for "
        "a person (see the check no_partition_left_failed)"
    )


def _plain_schedule(entry: DailyJob, allowed: AllowList) -> Schedule:
    name = schedule_name(entry.job.name)
    return dg.ScheduleDefinition(
        name=name,
        job=entry.job,
        cron_schedule=f"0 {entry.hour} * * *",
        execution_timezone="UTC",
        default_status=allowed.schedule(name),
    )


def _lookback_schedule(entry: DailyJob, allowed: AllowList, *, lookback: int) -> Schedule:
    name = schedule_name(entry.job.name)
    datasets: Sequence[Dataset] = entry.datasets

    @dg.schedule(
        name=name,
        job=entry.job,
        cron_schedule=f"0 {entry.hour} * * *",
        execution_timezone="UTC",
        default_status=allowed.schedule(name),
        description=f"The day before, and what the {lookback} days before still need: missing, failed, outdated.",
    )
    def tick(context: dg.ScheduleEvaluationContext) -> Any:
        now = context.scheduled_execution_time.astimezone(UTC)
        needs = [
            need
            for dataset in datasets
            for need in needs_of(context.instance, dataset, last_days(dataset, now, lookback))
        ]
        if not needs:
            return dg.SkipReason(nothing_needed(datasets, lookback))
        return [each.request(name, now.isoformat()) for each in ranges_of(needs)]

    return tick
