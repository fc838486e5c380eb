"""OpenTelemetry logs came for days that are made already -> these days again. What is late is taken in within minutes.

A tick starts runs and never takes their word: a message is deleted once the curated days of its object are made of it,
so one that a tick or a run was lost for comes again. Once a day the newest folders are looked through for logs whose
message never came. Today's logs wait for the daily schedule: their day is still being written.
"""

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

import dagster as dg

from data_platform.assets.keys import partitions_of, stage_key, stages_of
from data_platform.catalog import Catalog
from data_platform.catalog.models import Dataset, OtelLogsSource
from data_platform.clients import aws
from data_platform.clients.inbox import Inbox, Message, MessageError, parse_message
from data_platform.curation.event_index import EventIndex, IndexCache, month_of, refresh_index
from data_platform.curation.events import staleness
from data_platform.jobs.daily import DailyJob
from data_platform.jobs.lookback import DayRange, Reason, contiguous, run_key
from data_platform.provisioning.routes import event_logs_route
from data_platform.resources.settings import SettingsResource
from data_platform.sensors.cursors import SensorCursor, read_cursor
from data_platform.settings import Settings

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

NAME = "event_logs"
INTERVAL_S = 300  # a day is curated anew as a whole: what comes in five minutes is taken in together
DEADLINE_S = 40.0  # Dagster gives a tick 60 s
RECEIVE_S, WAIT_S = 10.0, 1  # of it, and of that for one answer
LOOK_BACK_DAYS = 7  # whose folders are looked through once a day: a message that is lost is about a new object
MAX_RECEIVES = 3  # of a message that names no log
NAMES_NO_LOG = (
    f"message %s of the queue %s names no log; at its {MAX_RECEIVES}rd time it is a dead letter, and the alarm "
    "EventLogsDLQMessages rings: %s"
)
MAX_RUNS = 3  # over the same logs that failed; then a person has to look
MOST_RUNS = 10  # over the same logs, however they ended
LOGS_TAG = "data_platform/logs"


class Cursor(SensorCursor):
    """The UTC day on which the newest folders were looked through last."""

    v: Literal[1] = 1
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
            batch = inbox.receive(wait_s=WAIT_S)
            for message in batch:
                try:
                    keys = [each.key for each in parse_message(message.body) if each.bucket == bucket]
                except MessageError as error:
                    arrived.useless.append((message, error.message))
                    continue
                arrived.keys[message.id], arrived.messages[message.id] = keys, message
            if not batch:  # fewer than there is room for says nothing: SQS asks some of its servers first
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

    cache = IndexCache()

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
        cursor = read_cursor(context.cursor, Cursor())
        route, s3 = event_logs_route(settings, catalog), aws.s3(settings)
        inbox = Inbox(aws.sqs(settings), route.queue, route.dlq)
        arrived = _Arrived.receive(inbox, settings.raw_bucket)
        for message, reason in arrived.useless:
            context.log.warning(NAMES_NO_LOG, message.id, route.queue, reason)
            if message.receives >= MAX_RECEIVES:
                inbox.dead_letter(message, reason)
        lost = cursor.looked != today  # messages are looked for that never came
        requests: list[dg.RunRequest] = []
        waiting, given_up = set[str](), set[str]()  # keys of logs that are not taken in, and that will not be
        keys = {key for named in arrived.keys.values() for key in named}
        newest = (
            {f"{today - timedelta(days=n):year=%Y/month=%m}" for n in range(LOOK_BACK_DAYS + 1)} if lost else set[str]()
        )
        for dataset, prefix, job in sources if keys or lost else ():
            mine = {key for key in keys if key.startswith(prefix)}
            months = {month for key in mine if (month := month_of(key)) is not None} | newest
            index = refresh_index(s3, settings.raw_bucket, prefix.rstrip("/"), months=months, until=until, cache=cache)
            look = _look(settings, s3, dataset, index, mine, newest)
            wanted, hopeless = _requests(context.instance, dataset, look.stale, job.name)
            requests += wanted
            given_up |= {key for day in hopeless for key in look.keys.get(day, ())}
            waiting |= {key for day in look.stale for key in look.keys.get(day, ())} | look.unknown
            lost &= look.known
        for name, named in arrived.keys.items():
            if given_up & set(named):
                inbox.dead_letter(arrived.messages[name], f"the runs over its days failed {MAX_RUNS} times")
        inbox.delete([arrived.messages[name] for name, named in arrived.keys.items() if not waiting & set(named)])
        following = Cursor(looked=today if lost else cursor.looked)
        told = f"{len(arrived.keys)} messages; {len(waiting)} logs are not taken in yet"
        return dg.SensorResult(
            run_requests=requests,
            cursor=following.model_dump_json(),
            skip_reason=None if requests else dg.SkipReason(told),
        )

    return tick


@dataclass(frozen=True)
class _Look:
    """Days to make again with what demands it; the announced keys about each day; those nothing is known of yet."""

    stale: Mapping[str, str]
    keys: Mapping[str, set[str]]
    unknown: set[str]
    known: bool = True  # whether the index was finished in time


def _look(
    settings: Settings, s3: "S3Client", dataset: Dataset, index: EventIndex, announced: set[str], newest: set[str]
) -> _Look:
    """Which days the events of the `announced` keys belong to, and whether their partitions are made of them.

    `newest`: the same for all objects in the folders of these months; a day that was never made and that no message is
    about is the schedule's, or a backfill's.
    """
    if not index.complete:  # an object that is not decoded may have events of any day
        return _Look({}, {}, announced, known=False)
    partitions = partitions_of(dataset)
    first = partitions.get_first_partition_key() if partitions else None
    last = partitions.get_last_partition_key() if partitions else None
    if first is None or last is None:
        return _Look({}, {}, set())
    about: dict[str, set[str]] = defaultdict(set)
    for key, each in index.objects.items():
        if key in announced or month_of(key) in newest:
            for day in each.days:
                about[day.isoformat()].update({key} & announced)
    stale: dict[str, str] = {}
    for day, asking in about.items():
        if first <= day <= last:  # today's is not complete, others the dataset does not have
            found = staleness(settings, s3, dataset, index, date.fromisoformat(day))
            if found is not None and (asking or found.made):
                stale[day] = found.version
    return _Look(stale, about, set())


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
        if failures >= MAX_RUNS or len(runs) >= MOST_RUNS:
            given_up += days
        elif all(run.is_finished for run in runs):
            one = DayRange(first, last, keys, (dataset.key,), (Reason.LATE,))
            # A day may come back to what it was made of before: the runs there were tell this one from those.
            request = one.request(NAME, f"{mark} {len(runs)}", job)
            requests.append(request.with_replaced_attrs(tags={**request.tags, LOGS_TAG: mark}))
    return requests, given_up
