"""Which of the last days a dataset still needs, from which layer on, and as which runs. Decides; starts nothing.

A day is needed when it was never made, when its run failed for a reason that may pass, or when an earlier layer is
newer than a later one. A day that failed for good waits for a person; a day that is being made is left alone.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum

import dagster as dg

from data_platform.assets.keys import DATASET_TAG, Stage, partitions_of, stage_key, stages_of
from data_platform.assets.outcomes import RETRIED, DayOutcome, Outcome, read_outcome
from data_platform.catalog.models import Dataset, Mode

RANGE_START_TAG = "dagster/asset_partition_range_start"
RANGE_END_TAG = "dagster/asset_partition_range_end"
REASON_TAG = "data_platform/reason"
# A tick never asks for more: a catalogue that is new or was down for a week must not fill the queue at once. What is
# left is still needed at the next tick.
MAX_RUNS = 20
RUN_KEY_LENGTH = 32


class Reason(StrEnum):
    """Why a day is wanted."""

    NEW = "new day"
    MISSING = "missing"
    FAILED = "failed before"
    OUTDATED = "an earlier layer is newer"
    RESTATED = "restated at its source"
    READY = "its source is complete now"
    LATE = "logs came late"


@dataclass(frozen=True)
class Need:
    """A day of a dataset to make, through `stages`."""

    dataset: Dataset
    day: str
    stages: tuple[Stage, ...]
    reason: Reason


@dataclass(frozen=True)
class DayRange:
    """Days that follow each other and that one run makes, for every asset in `keys`."""

    first: str
    last: str
    keys: tuple[dg.AssetKey, ...]
    datasets: tuple[str, ...]
    reasons: tuple[Reason, ...]

    def request(self, asked_by: str, tick: str, job: str | None = None) -> dg.RunRequest:
        """The run request; the same `asked_by` and `tick` give the same key, so a repeated tick starts nothing."""
        keys = [key.to_user_string() for key in self.keys]
        return dg.RunRequest(
            run_key=run_key(asked_by, tick, self.first, self.last, *keys),
            job_name=job,
            asset_selection=list(self.keys),
            tags={
                RANGE_START_TAG: self.first,
                RANGE_END_TAG: self.last,
                REASON_TAG: ", ".join(self.reasons),
                **({DATASET_TAG: self.datasets[0]} if len(self.datasets) == 1 else {}),
            },
        )


def run_key(*parts: str) -> str:
    """A short key that is the same for the same parts: PostgreSQL indexes it, and a row of an index is limited."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:RUN_KEY_LENGTH]


def last_days(dataset: Dataset, now: datetime, lookback: int) -> tuple[str, ...]:
    """The last `lookback` complete days (UTC) before `now` that the dataset has, oldest first; none for a snapshot."""
    if dataset.mode is Mode.SNAPSHOT:
        return ()
    newest = now.date() - timedelta(days=1)
    first = max(newest - timedelta(days=lookback - 1), dataset.start or date.min)
    last = min(newest, dataset.end or newest)
    return tuple((first + timedelta(days=n)).isoformat() for n in range((last - first).days + 1))


def needs_of(instance: dg.DagsterInstance, dataset: Dataset, days: Sequence[str]) -> list[Need]:
    """Which of `days` the dataset needs, by Dagster's event log; oldest first."""
    partitions = partitions_of(dataset)
    if partitions is None or not days:
        return []
    stages = stages_of(dataset)
    status: dict[Stage, dict[str, str]] = {}
    newest: dict[Stage, dict[str, int]] = {}
    for stage in stages:
        key = stage_key(stage, dataset)
        found = instance.get_status_by_partition(key, list(days), partitions) or {}
        status[stage] = {day: each.value for day, each in found.items() if each is not None}
        newest[stage] = dict(
            instance.get_latest_storage_id_by_partition(key, dg.DagsterEventType.ASSET_MATERIALIZATION, set(days))
        )
    failed = [day for day in days if any(status[stage].get(day) == "FAILED" for stage in stages)]
    outcomes = last_outcomes(instance, dataset, failed)
    needs: list[Need] = []
    for day in days:
        states = [status[stage].get(day) for stage in stages]
        if "IN_PROGRESS" in states:
            continue
        if day in failed and not _worth_another_run(outcomes.get(day)):
            continue
        first = _first_needed(states, [newest[stage].get(day) for stage in stages])
        if first is None:
            continue
        reason = Reason.FAILED if day in failed else Reason.OUTDATED if states[first] else Reason.MISSING
        if reason is Reason.MISSING and day == days[-1]:
            reason = Reason.NEW
        needs.append(Need(dataset, day, stages[first:], reason))
    return needs


def last_outcomes(instance: dg.DagsterInstance, dataset: Dataset, days: Iterable[str]) -> dict[str, DayOutcome]:
    """The newest outcome that was written down for each of `days`, of whichever layer."""
    wanted = list(days)
    newest: dict[str, tuple[int, DayOutcome]] = {}
    if not wanted:
        return {}
    for stage in stages_of(dataset):
        records = instance.fetch_observations(
            dg.AssetRecordsFilter(asset_key=stage_key(stage, dataset), asset_partitions=wanted), limit=10 * len(wanted)
        ).records
        for record in records:
            event = record.asset_observation
            outcome = None if event is None else read_outcome(event)
            if event is None or outcome is None or event.partition is None:
                continue
            if event.partition not in newest or newest[event.partition][0] < record.storage_id:
                newest[event.partition] = (record.storage_id, outcome)
    return {day: outcome for day, (_, outcome) in newest.items()}


def ranges_of(needs: Iterable[Need]) -> list[DayRange]:
    """As few runs as the needs allow: neighbouring days together, datasets with the same days and layers together.

    The newest days come first, and no more than MAX_RUNS are returned.
    """
    by_run: dict[tuple[Dataset, tuple[Stage, ...]], dict[str, Reason]] = defaultdict(dict)
    for need in needs:
        by_run[need.dataset, need.stages][need.day] = need.reason
    together: dict[tuple[str, str], list[tuple[Dataset, tuple[Stage, ...], set[Reason]]]] = defaultdict(list)
    for (dataset, stages), days in by_run.items():
        for first, last in contiguous(days):
            reasons = {reason for day, reason in days.items() if first <= day <= last}
            together[first, last].append((dataset, stages, reasons))
    ranges = [
        DayRange(
            first,
            last,
            tuple(stage_key(stage, dataset) for dataset, stages, _ in entries for stage in stages),
            tuple(sorted({dataset.key for dataset, _, _ in entries})),
            tuple(sorted({reason for _, _, reasons in entries for reason in reasons})),
        )
        for (first, last), entries in together.items()
    ]
    return sorted(ranges, key=lambda each: (each.last, each.first), reverse=True)[:MAX_RUNS]


def contiguous(days: Iterable[str]) -> list[tuple[str, str]]:
    """Days as ranges without gaps: a run's range plans every day in it, also those it would leave out."""
    ranges: list[tuple[str, str]] = []
    for day in sorted(days):
        if ranges and date.fromisoformat(day) - date.fromisoformat(ranges[-1][1]) == timedelta(days=1):
            ranges[-1] = (ranges[-1][0], day)
        else:
            ranges.append((day, day))
    return ranges


def _worth_another_run(outcome: DayOutcome | None) -> bool:
    """A run that left no outcome was killed: it may succeed. One that failed for good fails again."""
    return outcome is None or outcome.outcome is Outcome.HELD_BACK or outcome.fault in RETRIED


def _first_needed(states: Sequence[str | None], newest: Sequence[int | None]) -> int | None:
    """Position of the first layer to make: not made, failed, or older than the layer before it."""
    for position, state in enumerate(states):
        made = newest[position]
        before = newest[position - 1] if position else None
        if state != "MATERIALIZED" or made is None or (before is not None and before > made):
            return position
    return None
