"""Who makes a day again by itself after a failure that may pass: its daily schedule, until the day is too old for it.

Decides; what is said of it in the UI stands here, what is said in a message in sensors/problems.py.
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from data_platform.settings import variable_of

ASKED_BY = "source_changes"  # the sensor that asks for days whose source is not complete
SWITCH = "Dagster, Automation"  # where a schedule or sensor is seen to be off


@dataclass(frozen=True)
class Repair:
    """A dataset's daily schedule, with the UTC hour of its tick and how many days back it repairs (DAYS; 0: none)."""

    schedule: str
    hour: int
    lookback: int

    @property
    def when(self) -> str:
        """The ticks in words."""
        return f"every day at {self.hour:02}:00 UTC"

    def last_try(self, day: str | None, now: datetime) -> date | None:
        """The date (UTC) of the last tick that still makes `day`; None where no tick after `now` does.

        A snapshot has no day and is not repaired: the schedule takes a new one.
        """
        if day is None:
            return None
        last = date.fromisoformat(day) + timedelta(days=self.lookback)
        at = now.astimezone(UTC)
        following = at.date() + timedelta(days=at.hour >= self.hour)
        return last if following <= last else None

    def told(self, day: str | None, now: datetime) -> str:
        """What stands beside a day that failed for a reason that may pass."""
        if day is None:
            return f"{self.schedule} takes a new snapshot {self.when}; if it is off ({SWITCH}), nothing does"
        last = self.last_try(day, now)
        if last is None:
            return self._too_old
        return (
            f"by {self.schedule}, {self.when}, for the last time on {last} (it looks at the last {self.days}); if the "
            f"schedule is off ({SWITCH}), nothing does: act now"
        )

    def told_held_back(self, day: str | None, now: datetime) -> str:
        """What stands beside a day whose source was not complete."""
        last = self.last_try(day, now)
        if last is None:
            return self._too_old
        return (
            f"by the sensor {ASKED_BY} every half hour and by {self.schedule} {self.when}, for the last time on {last} "
            f"(they look at the last {self.days}); if both are off ({SWITCH}), nothing does: make it by hand once its "
            "source is complete"
        )

    @property
    def _too_old(self) -> str:
        return f"not by itself: the day is older than the last {self.days}"

    @property
    def days(self) -> str:
        """How far back, with the setting that says so."""
        return f"{self.lookback} days, {variable_of('lookback_days')}"
