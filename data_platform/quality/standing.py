"""What should be there by now, whoever was to make it: the newest day each table is expected to hold.

Asked of the loader's register in ClickHouse: freshness by events turns green when an old partition is backfilled.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING

from data_platform.catalog.models import Dataset, Mode
from data_platform.quality.finding import Finding, make_again

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

LATEST = "latest_day_is_there"
NONE_FAILED = "no_partition_left_failed"
NAMED = 10  # days named in a sentence
REASONS = 3  # told in a sentence
# Registered days: partitions that were rebuilt, and objects that were loaded by their events.
_REGISTERED = """
SELECT domain, table, groupUniqArray(ds) FROM
(
    SELECT domain, table, ds FROM platform.partitions WHERE state = 'done' AND ds IN {days:Array(Date)}
    UNION ALL
    SELECT domain, table, ds FROM platform.objects WHERE state = 'loaded' AND ds IN {days:Array(Date)}
)
GROUP BY domain, table
"""


def expected_days(dataset: Dataset, now: datetime, *, default_hours: float) -> tuple[date, ...]:
    """The days of which one has to be there at `now` (UTC): the newest a daily dataset owes, or any recent snapshot.

    Empty where nothing is owed yet.
    """
    late = timedelta(hours=dataset.freshness_hours or default_hours)
    newest = (now - late).date() - timedelta(days=1)  # the newest day that ended at least `late` ago
    if dataset.mode is Mode.SNAPSHOT:
        return tuple(newest + timedelta(days=n) for n in range((now.date() - newest).days + 1))
    day = newest if dataset.end is None else min(newest, dataset.end)
    return () if dataset.start is not None and day < dataset.start else (day,)


def registered_days(client: "Client", days: Iterable[date]) -> dict[tuple[str, str], set[date]]:
    """Which of `days` each table holds, by (domain, table), according to the register."""
    rows = client.query(_REGISTERED, parameters={"days": sorted(set(days))}).result_rows
    return {(str(domain), str(table)): set(found) for domain, table, found in rows}


def judge_latest(
    dataset: Dataset, expected: tuple[date, ...], registered: Mapping[tuple[str, str], set[date]]
) -> Finding:
    """Whether one of the expected days is there."""
    if not expected:
        return Finding(LATEST, True, "Nothing is expected yet.")
    found = set(expected) & registered.get((dataset.domain, dataset.name), set())
    if found:
        return Finding(LATEST, True, f"{max(found)} is there.", facts={"newest_expected": max(found).isoformat()})
    day = expected[0]
    return Finding(
        LATEST,
        False,
        f"{dataset.key}: {day} should be in ClickHouse by now and is not.",
        step=f"See what held it back: Dagster, Catalog, clickhouse/{dataset.key} and the layers before it, tab "
        f"Events, {day}. Where it has no events, nobody asked for it: turn on its daily schedule (Dagster, "
        f"Automation; for good in DATA_PLATFORM_SCHEDULES). To make it now: {make_again(dataset, day)}",
        facts={"newest_expected": day.isoformat()},
    )


@dataclass(frozen=True)
class Left:
    """What is known of a day that is left failed: the layer it stopped in, why, what to do."""

    layer: str
    reason: str
    step: str


def judge_failed(dataset: Dataset, failed: Mapping[str, Left]) -> Finding:
    """Whether any partition is left failed; `failed` by day."""
    if not failed:
        return Finding(NONE_FAILED, True, "No partition is left failed.", facts={"failed_partitions": 0})
    days = sorted(failed)
    alike: dict[Left, list[str]] = defaultdict(list)
    for day in days:
        alike[failed[day]].append(day)
    ordered = sorted(alike.items(), key=lambda each: -len(each[1]))
    shown = ordered[:REASONS]
    whys = "; ".join(f"{_named(of)} in the layer {left.layer}: {_ended(left.reason, '')}" for left, of in shown)
    several = len(ordered) > 1
    steps = " ".join(f"{f'{_named(of)}: ' if several else ''}{_ended(left.step)}" for left, of in shown)
    assets = ", ".join(sorted({f"{left.layer}/{dataset.key}" for left in alike}))
    more = f"; and {len(ordered) - REASONS} more reasons" if len(ordered) > REASONS else ""
    return Finding(
        NONE_FAILED,
        False,
        f"{dataset.key}: {'1 day is' if len(days) == 1 else f'{len(days)} days are'} left failed: {whys}{more}.",
        step=f"{steps} (Each day's own reason and next step: Dagster, Catalog, {assets}, tab Events, the day's newest "
        "observation. A day that is tried again by itself, as its tried_again says there, may wait for that.) Then "
        "make them again, which is also safe for the good days between: "
        f"data-platform backfill {dataset.key} --from {days[0]} --to {days[-1]}",
        facts={"failed_partitions": len(days), "newest_failed": days[-1]},
    )


def _named(days: Sequence[str]) -> str:
    return ", ".join(days) if len(days) <= NAMED else f"{', '.join(days[:NAMED])} and {len(days) - NAMED} more"


def _ended(text: str, stop: str = ".") -> str:
    """`text` as a sentence that ends with `stop`."""
    return f"{text[:1].upper() if stop else text[:1]}{text[1:].rstrip('.')}{stop}"
