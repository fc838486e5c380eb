"""OpenTelemetry logs came for days that are made already -> these days again. What is late is taken in within minutes.

A tick starts runs and never takes their word: a message is deleted once the curated days of its object are made of it,
so one that a tick, a run or a message was lost for comes again. Once a day all days are looked at, for events that
never came. Today's logs wait for the daily schedule: their day is still being written.
"""

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import BaseModel, ConfigDict, ValidationError

from data_platform.assets.keys import stage_key, stages_of
from data_platform.catalog import Catalog
from data_platform.catalog.models import Dataset, OtelLogsSource
from data_platform.clients import aws
from data_platform.clients.inbox import BATCH, Inbox, Message, MessageError, parse_message
from data_platform.curation.event_index import EventIndex, refresh_index
from data_platform.curation.events import staleness
from data_platform.jobs.daily import DailyJob
from data_platform.jobs.lookback import DayRange, Reason, contiguous, run_key
from data_platform.provisioning.routes import event_logs_route
from data_platform.resources.settings import SettingsResource
from data_platform.settings import Settings

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

NAME = "event_logs"
INTERVAL_S = 300  # a day is curated anew as a whole: what comes in five minutes is taken in together
DEADLINE_S = 40.0  # Dagster gives a tick 60 s
RECEIVE_S = 10.0  # of it
MAX_RECEIVES = 3  # of a message that names no log
MAX_RUNS = 3  # over the same logs that failed; then a person has to look
LOGS_TAG = "data_platform/logs"


class Cursor(BaseModel):
    """The UTC day on which all days were looked at last."""

    model_config = ConfigDict(extra="forbid")

    v: int = 1
    looked: date | None = None


@dataclass
class _Arrived:
    """The messages of a tick with the keys each names, and those that name none, with the reason."""

    keys: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    messages: dict[str, Message] = field(default_factory=dict[str, Message])
    useless: list[tuple[Message, str]] = field(default_factory=list[tuple[Message, str]])

    @classmethod
    def receive(cls, inbox: Inbox, bucket: str) -> "_Arrived":
        """What waits in the queue, for RECEIVE_S at most."""
        arrived, started = cls(), time.monotonic()
        while time.monotonic() - started < RECEIVE_S:
            batch = inbox.receive(wait_s=0)
            for message in batch:
                try:
                    keys = [each.key for each in parse_message(message.body) if each.bucket == bucket]
                except MessageError as error:
                    arrived.useless.append((message, error.message))
                    continue
                arrived.keys[message.id], arrived.messages[message.id] = keys, message
            if len(batch) < BATCH:
                break
        return arrived


def event_logs_sensor(
    catalog: Catalog, status: dg.DefaultSensorStatus, *, jobs: Sequence[DailyJob]
) -> dg.SensorDefinition:
    """The sensor over `<env>-event-logs-queue`, for the datasets of `jobs` that are made of OpenTelemetry logs."""
    sources = [
        (dataset, f"{dataset.source.prefix}/", entry.job)
        for entry in jobs
        for dataset in entry.datasets
        if isinstance(dataset.source, OtelLogsSource)
    ]

    @dg.sensor(
        name=NAME,
        jobs=list({job.name: job for _, _, job in sources}.values()),
        minimum_interval_seconds=INTERVAL_S,
        default_status=status,
        description="Logs that came late -> the days of their events curated and loaded again.",
    )
    def tick(context: dg.SensorEvaluationContext, platform: SettingsResource) -> Any:
        until = time.monotonic() + DEADLINE_S
        settings, today = platform.load(), datetime.now(UTC).date()
        cursor = read_cursor(context.cursor)
        route, s3 = event_logs_route(settings, catalog), aws.s3(settings)
        inbox = Inbox(aws.sqs(settings), route.queue, route.dlq)
        arrived = _Arrived.receive(inbox, settings.raw_bucket)
        for message, reason in arrived.useless:
            context.log.warning("message %s names no log: %s", message.id, reason)
            if message.receives >= MAX_RECEIVES:
                inbox.dead_letter(message, reason)
        everything = cursor.looked != today
        requests: list[dg.RunRequest] = []
        waiting, given_up = set[str](), set[str]()  # keys of logs that are not taken in, and that will not be
        keys = {key for named in arrived.keys.values() for key in named}
        for dataset, prefix, job in sources if keys or everything else ():
            mine = {key for key in keys if key.startswith(prefix)}
            index = refresh_index(s3, settings.raw_bucket, prefix.rstrip("/"), until=until)
            look = _look(settings, s3, dataset, index, mine, today, everything=everything, until=until)
            wanted, hopeless = _requests(context.instance, dataset, look.stale, job.name)
            requests += wanted
            given_up |= {key for day in hopeless for key in look.keys.get(day, ())}
            waiting |= {key for day in look.stale for key in look.keys.get(day, ())} | look.unknown
            everything &= look.whole
        for name, named in arrived.keys.items():
            if given_up & set(named):
                inbox.dead_letter(arrived.messages[name], f"the runs over its days failed {MAX_RUNS} times")
        inbox.delete([arrived.messages[name] for name, named in arrived.keys.items() if not waiting & set(named)])
        following = Cursor(looked=today if everything else cursor.looked)
        told = f"{len(arrived.keys)} messages; {len(waiting)} logs are not taken in yet"
        return dg.SensorResult(
            run_requests=requests,
            cursor=following.model_dump_json(),
            skip_reason=None if requests else dg.SkipReason(told),
        )

    return tick


def read_cursor(text: str | None) -> Cursor:
    """The cursor; one that cannot be read begins again: all days are looked at once more."""
    try:
        return Cursor.model_validate_json(text or "{}")
    except ValidationError:
        return Cursor()


@dataclass(frozen=True)
class _Look:
    """Days to make again with what demands it; the keys about each day; keys nothing is known of yet.

    `whole`: all that was to be looked at was.
    """

    stale: Mapping[str, str]
    keys: Mapping[str, set[str]]
    unknown: set[str]
    whole: bool


def _look(
    settings: Settings,
    s3: "S3Client",
    dataset: Dataset,
    index: EventIndex,
    keys: set[str],
    today: date,
    *,
    everything: bool,
    until: float,
) -> _Look:
    """Which days the events of `keys` belong to and whether their partitions are made of them.

    `everything`: also all other days that were ever made, the newest first, as far as the time goes.
    """
    if not index.complete:  # an object that is not decoded may have events of any day
        return _Look({}, {}, keys, whole=False)
    touched: dict[str, set[str]] = defaultdict(set)
    for key in keys & index.objects.keys():  # an object that is gone again has none
        for day in index.objects[key].days:
            touched[day.isoformat()].add(key)
    stale: dict[str, str] = {}
    whole = True
    for day in sorted(index.days(), reverse=True):
        announced = day.isoformat() in touched
        if day >= today or not (announced or everything):
            continue
        if not announced and time.monotonic() >= until:
            whole = False
            continue
        found = staleness(settings, s3, dataset, index, day)
        # A day that was never made and that no message is about is the schedule's, or a backfill's.
        if found is not None and (announced or found.made):
            stale[day.isoformat()] = found.version
    return _Look(stale, touched, set(), whole)


def _requests(
    instance: dg.DagsterInstance, dataset: Dataset, stale: Mapping[str, str], job: str
) -> tuple[list[dg.RunRequest], list[str]]:
    """A run over neighbouring days unless one for the same logs is under way; and the days whose runs failed too often.

    The mark on a run names the logs that its days are to be made of: the same logs start one run, or the next one
    after a failed one.
    """
    keys = tuple(stage_key(stage, dataset) for stage in stages_of(dataset))
    requests: list[dg.RunRequest] = []
    given_up: list[str] = []
    for first, last in contiguous(stale):
        days = [day for day in sorted(stale) if first <= day <= last]
        mark = run_key(dataset.key, *(f"{day} {stale[day]}" for day in days))
        runs = instance.get_runs(dg.RunsFilter(tags={LOGS_TAG: mark}))
        failures = sum(run.is_failure_or_canceled for run in runs)
        if failures >= MAX_RUNS:
            given_up += days
        elif all(run.is_finished for run in runs):
            one = DayRange(first, last, keys, (dataset.key,), (Reason.LATE,))
            request = one.request(NAME, f"{mark} {failures}", job)
            requests.append(request.with_replaced_attrs(tags={**request.tags, LOGS_TAG: mark}))
    return requests, given_up
