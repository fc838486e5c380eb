"""The source changed a day that was made already, or completed one that was held back -> that day is wanted again.

What was seen is an observation on the warehouse table, per day. A day is wanted while a change seen is newer than its
unload, so a tick that dies between the observation and the run request loses nothing, and the run key, made of the
change itself, starts nothing twice.
"""

import time
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any, Literal

import dagster as dg

from data_platform.assets.keys import Stage, source_tables, stage_key, stages_of, table_key
from data_platform.assets.outcomes import Outcome
from data_platform.catalog import Catalog
from data_platform.catalog.models import Dataset, Mode, RedshiftSource
from data_platform.clients import redshift
from data_platform.clients.classify import classify, explain
from data_platform.errors import Fault
from data_platform.jobs.daily import job_names
from data_platform.jobs.lookback import DayRange, Reason, contiguous, last_days, last_outcomes, run_key
from data_platform.quality.source import EMPTY, fingerprints
from data_platform.resources.settings import SettingsResource
from data_platform.sensors.cursors import SensorCursor, read_cursor
from data_platform.settings import Settings
from data_platform.unload.datasets import NotReadyError, check_ready

if TYPE_CHECKING:
    from redshift_connector import Connection

NAME = "source_changes"
INTERVAL_S = 1800  # each look reads the rows of the last days at the warehouse
DEADLINE_S = 40.0  # Dagster gives a tick 60 s
BATCH = 20  # datasets a tick
NOT_COMPARED = "%s was not compared with its source, which a later tick does: %s"
AWAY = frozenset({Fault.TRANSIENT, Fault.THROTTLED})  # the others would be asked in vain


class Cursor(SensorCursor):
    """The dataset at which the next tick begins; all are looked at in turn."""

    v: Literal[1] = 1
    next: str = ""


@dataclass(frozen=True)
class Seen:
    """The newest fingerprint seen of a day, and whether it differed from the one before."""

    fingerprint: str
    changed: bool
    storage_id: int


@dataclass(frozen=True)
class Look:
    """What a look at one dataset's source came to: observations to write; days to make, with what demands each."""

    events: Sequence[dg.AssetObservation] = ()
    restated: Mapping[str, str] = field(default_factory=dict[str, str])
    ready: Mapping[str, str] = field(default_factory=dict[str, str])


def restated_sensor(catalog: Catalog, status: dg.DefaultSensorStatus, *, lookback: int, jobs: Sequence[Any]) -> Any:
    """The sensor over all daily datasets that come from Redshift and that one of `jobs` makes.

    A dataset whose table is gone or closed to us is passed over with a warning; when Redshift itself is away, the tick
    ends with what it has found, and the next one goes on there.
    """
    names, made = job_names(catalog), {job.name for job in jobs}
    datasets = [
        dataset
        for dataset in catalog.datasets.values()
        if isinstance(dataset.source, RedshiftSource) and dataset.mode is Mode.DAILY and names[dataset.key] in made
    ]

    @dg.sensor(
        name=NAME,
        jobs=list(jobs),
        minimum_interval_seconds=INTERVAL_S,
        default_status=status,
        description=f"Finds days of the last {lookback} whose rows changed in Redshift, or that became complete there.",
    )
    def tick(context: dg.SensorEvaluationContext, platform: SettingsResource) -> Any:
        deadline = time.monotonic() + DEADLINE_S
        settings, now = platform.load(), datetime.now(UTC)
        requests: list[dg.RunRequest] = []
        events: list[dg.AssetObservation] = []
        looked = 0
        turn = in_turn(datasets, read_cursor(context.cursor, Cursor()).next)
        with _session(settings) as connection:
            for dataset in turn[:BATCH]:
                if time.monotonic() > deadline:
                    break
                try:
                    look = look_at(context.instance, settings, connection, dataset, last_days(dataset, now, lookback))
                except Exception as error:
                    # The driver's: of one dataset where Redshift answers, of all where it does not; a bug is raised.
                    fault, lost = classify(error), redshift.is_lost(error)
                    if fault is Fault.UNKNOWN and not lost:
                        raise
                    context.log.warning(NOT_COMPARED, dataset.key, explain(error))
                    if lost or fault in AWAY:  # a lost answer to a question matters to nobody
                        break
                    look = Look()
                looked += 1
                events += look.events
                requests += requests_of(dataset, look.restated, Reason.RESTATED, names[dataset.key])
                requests += requests_of(dataset, look.ready, Reason.READY, names[dataset.key])
        following = turn[looked % len(turn)].key if turn else ""
        return dg.SensorResult(
            run_requests=requests,
            asset_events=events,
            cursor=Cursor(next=following).model_dump_json(),
            skip_reason=None if requests else dg.SkipReason(f"{looked} of {len(datasets)} datasets are as they were"),
        )

    return tick


@contextmanager
def _session(settings: Settings) -> "Generator[Connection]":
    """A session of Redshift. One that was lost cannot be closed, which must not undo what was found before."""
    connection = redshift.connect(settings)
    try:
        yield connection
    finally:
        with suppress(Exception):
            connection.close()


def look_at(
    instance: dg.DagsterInstance,
    settings: Settings,
    connection: "Connection",
    dataset: Dataset,
    days: Sequence[str],
) -> Look:
    """Compare `days` of a dataset with its source. Raises the driver's errors."""
    if not days:
        return Look()
    found = fingerprints(connection, dataset, date.fromisoformat(days[0]), date.fromisoformat(days[-1]))
    events, restated = compare(instance, dataset, days, found)
    return Look(events, restated, _now_ready(instance, settings, dataset, days))


def in_turn(datasets: Sequence[Dataset], first: str) -> list[Dataset]:
    """All datasets, beginning with the one called `first` or the next after it by name."""
    ordered = sorted(datasets, key=lambda dataset: dataset.key)
    at = next((n for n, dataset in enumerate(ordered) if dataset.key >= first), 0)
    return ordered[at:] + ordered[:at]


def compare(
    instance: dg.DagsterInstance, dataset: Dataset, days: Sequence[str], found: Mapping[str, str]
) -> tuple[list[dg.AssetObservation], dict[str, str]]:
    """Observations to write for what is new, and the days to make again with the fingerprint that demands it.

    Only days that were unloaded count: what was never made is the schedule's.
    """
    unloaded = instance.get_latest_storage_id_by_partition(
        stage_key(Stage.UNLOAD, dataset), dg.DagsterEventType.ASSET_MATERIALIZATION, set(days)
    )
    seen = last_seen(instance, dataset, unloaded)
    events: list[dg.AssetObservation] = []
    wanted: dict[str, str] = {}
    for day, made in unloaded.items():
        mark = found.get(day, EMPTY)
        before = seen.get(day)
        if before is None or before.fingerprint != mark:
            events.append(_observation(dataset, day, mark, changed=before is not None))
        if before is not None and (before.fingerprint != mark or (before.changed and before.storage_id > made)):
            wanted[day] = mark
    return events, wanted


def last_seen(instance: dg.DagsterInstance, dataset: Dataset, days: Iterable[str]) -> dict[str, Seen]:
    """The newest fingerprint seen of each day."""
    wanted = sorted(days)
    if not wanted:
        return {}
    seen: dict[str, Seen] = {}
    filters = dg.AssetRecordsFilter(
        asset_key=_source_key(dataset), asset_partitions=[_mark(dataset, d) for d in wanted]
    )
    for record in instance.fetch_observations(filters, limit=20 * len(wanted)).records:
        event = record.asset_observation
        if event is None or event.partition is None:
            continue
        day = event.partition.rpartition("/")[2]
        if day not in seen:  # the newest comes first
            seen[day] = Seen(
                str(event.metadata["fingerprint"].value), bool(event.metadata["changed"].value), record.storage_id
            )
    return seen


def requests_of(dataset: Dataset, wanted: Mapping[str, str], reason: Reason, job: str) -> list[dg.RunRequest]:
    """Runs of `job` over neighbouring days; the key names what was seen, so the same change is asked for once."""
    keys = tuple(stage_key(stage, dataset) for stage in stages_of(dataset))
    requests: list[dg.RunRequest] = []
    for first, last in contiguous(wanted):
        marks = [wanted[day] for day in sorted(wanted) if first <= day <= last]
        one = DayRange(first, last, keys, (dataset.key,), (reason,))
        requests.append(one.request(NAME, run_key(dataset.key, reason, *marks), job))
    return requests


def _now_ready(
    instance: dg.DagsterInstance, settings: Settings, dataset: Dataset, days: Sequence[str]
) -> dict[str, str]:
    """Days that were held back and whose readiness condition holds now."""
    if dataset.redshift.ready is None:
        return {}
    made = instance.get_latest_storage_id_by_partition(
        stage_key(Stage.UNLOAD, dataset), dg.DagsterEventType.ASSET_MATERIALIZATION, set(days)
    )
    ready: dict[str, str] = {}
    for day, outcome in last_outcomes(instance, dataset, [day for day in days if day not in made]).items():
        if outcome.outcome is not Outcome.HELD_BACK:
            continue
        try:
            check_ready(settings, dataset, date.fromisoformat(day))
        except NotReadyError:
            continue
        ready[day] = f"ready {day}"
    return ready


def _observation(dataset: Dataset, day: str, mark: str, *, changed: bool) -> dg.AssetObservation:
    rows = int(mark.partition("-")[0])
    return dg.AssetObservation(
        _source_key(dataset),
        partition=_mark(dataset, day),
        description=f"{dataset.key} {day}: {rows:,} rows" + (", changed since it was last seen" if changed else ""),
        metadata={"fingerprint": mark, "changed": changed, "rows": rows},
    )


def _source_key(dataset: Dataset) -> dg.AssetKey:
    """The table the fingerprint is kept on: the first one that the dataset reads."""
    return table_key(source_tables(dataset)[0])


def _mark(dataset: Dataset, day: str) -> str:
    """Several datasets may read one table: each has marks of its own on it."""
    return f"{dataset.key}/{day}"
