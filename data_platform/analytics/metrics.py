"""The metrics: what each is called, says and depends on. A new metric is an entry here and its SQL file.

`affected` turns what changed in the building blocks into the rows to redo. It may name a day too many, never one too
few: what it leaves out is taken over from the old table.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date

from data_platform.analytics.days import DAY
from data_platform.catalog.models import Service
from data_platform.errors import ConfigurationError


@dataclass(frozen=True)
class Changes:
    """Days of a service whose events or sessions changed, and the first and last day with events now."""

    events: frozenset[date]
    sessions: frozenset[date]
    first_day: date
    last_day: date

    @property
    def days(self) -> list[date]:
        """Every day from the first to the last with events."""
        return [self.first_day + DAY * n for n in range((self.last_day - self.first_day).days + 1)]

    def since(self, days: frozenset[date]) -> set[date]:
        """All days from the first of `days` on: a user's first day may have moved to or from it."""
        return {day for day in self.days if days and day >= min(days)}


@dataclass(frozen=True)
class Metric:
    """One summary table per service, `{prefix}_<name>_summary`, computed by `sql/metrics/<name>.sql`."""

    name: str
    description: str
    affected: Callable[[Changes], set[date]]
    day: str = "activity_date"  # the column that names a row's day; the table is sorted by it, then by `key`
    key: tuple[str, ...] = ()
    every_day: bool = False  # has a row for days without events too


def _same_day(changes: Changes) -> set[date]:
    return set(changes.events)


def _sessions(changes: Changes) -> set[date]:
    return set(changes.sessions)


def _since_or_session(changes: Changes) -> set[date]:
    return changes.since(changes.events) | set(changes.sessions)


def _since(changes: Changes) -> set[date]:
    return changes.since(changes.events)


def _month(changes: Changes) -> set[date]:
    # The longest month so far reaches 30 days back.
    return {day + DAY * n for day in changes.events for n in range(31)}


def _all(changes: Changes) -> set[date]:
    return set(changes.days)


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("mau", "Monthly active users: last 30 and 28 days, month to date, stickiness.", _month, every_day=True),
        Metric("dau", "Daily active users: new and returning, sessions started, events.", _since_or_session),
        Metric("retention", "Users who came back 1, 7, 30 days after their first day, or later.", _all, "cohort_date"),
        Metric("conversion", "Sessions with a product view, and with an add-to-cart after one.", _sessions),
        Metric("user_cohort", "New, recent, active and veteran users of each day.", _since, key=("cohort",)),
        Metric("session_metrics", "Events and seconds per session: mean, median, percentiles.", _sessions),
        Metric(
            "event_distribution", "Events and users by event name, share of the day.", _same_day, key=("event_name",)
        ),
    )
}


def metric_called(name: str) -> Metric:
    """The metric of this name. Raises ConfigurationError with the names there are."""
    if name not in METRICS:
        raise ConfigurationError(f"no metric {name!r}", hint=f"metrics: {', '.join(METRICS)}")
    return METRICS[name]


def table_of(service: Service, metric: str) -> str:
    """Name of a metric's table in the analytics database: `<prefix>_<metric>_summary`."""
    return f"{service.prefix}_{metric}_summary"
