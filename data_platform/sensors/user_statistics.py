"""CSV drops on the queue -> runs. A tick starts; it deletes only messages whose file the ledger has finished.

A message stays on the queue while its file is worked on and comes again after the visibility time-out: by then the
ledger has the file and the tick lets the message go, or the run has died and the tick starts the next one.
"""

import hashlib
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import dagster as dg

from data_platform.assets.user_statistics import FILES, FILES_KEY, TABLE_KEY, partition_of
from data_platform.clients import aws, postgres
from data_platform.clients.inbox import BATCH, Inbox, Message, MessageError
from data_platform.errors import ConfigurationError
from data_platform.provisioning.routes import statistics_route
from data_platform.resources.settings import SettingsResource
from data_platform.statistics.inbox import parse_drops
from data_platform.statistics.outcome import TIMEOUT_S
from data_platform.statistics.runs import finished
from data_platform.statistics.source import FileVersion, find

NAME = "user_statistics_drops"
JOB_NAME = "user_statistics"
INTERVAL_S = 30
BUDGET_S = 20.0  # of a tick; the daemon gives up on one after 60 s
WAIT_S = 1
FILE_TAG = "data_platform/file_id"
MAX_RUNS = 3  # that failed; then a person has to look
MAX_RECEIVES = 3  # of a message that names no file there is
NAMES_NO_FILE = (
    f"message %s of the queue %s names no file; at its {MAX_RECEIVES}rd time it is a dead letter, and the alarm "
    "StatisticsDLQMessages rings: %s"
)
GIVEN_UP = (
    f"the runs over %s failed {MAX_RUNS} times, none is started any more. Why: data-platform statistics audit %s; then "
    "data-platform statistics apply %s"
)
UNFINISHED = (
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
)


@dataclass
class _Tick:
    """What one tick has found: the messages of each file, and those that lead nowhere with the reason."""

    files: dict[str, FileVersion] = field(default_factory=dict[str, FileVersion])
    messages: dict[str, list[Message]] = field(default_factory=dict[str, list[Message]])
    empty: list[Message] = field(default_factory=list[Message])
    useless: list[tuple[Message, str]] = field(default_factory=list[tuple[Message, str]])

    def add(self, s3: Any, message: Message) -> None:
        try:
            found = [find(s3, drop.bucket, drop.key, drop.version_id) for drop in parse_drops(message.body)]
        except (MessageError, ConfigurationError) as error:  # anything else fails the tick: the messages come again
            self.useless.append((message, error.message))
            return
        if not found:
            self.empty.append(message)
        for file in found:
            self.files[file.file_id] = file
            self.messages.setdefault(file.file_id, []).append(message)


def run_key(file_id: str, failures: int) -> str:
    """The key of the run that follows `failures` failed ones; the first is the hash of the object's identity."""
    return file_id if not failures else hashlib.sha256(f"{file_id}:{failures}".encode()).hexdigest()


def user_statistics_job() -> Any:
    """The job of one file, stopped by Dagster, too, when it has taken the 15 minutes it may take."""
    return dg.define_asset_job(
        JOB_NAME,
        selection=dg.AssetSelection.assets(FILES_KEY) | dg.AssetSelection.checks_for_assets(TABLE_KEY),
        description="Apply one CSV of user statistics.",
        tags={"dagster/max_runtime": str(int(TIMEOUT_S))},
    )


def user_statistics_sensor(job: Any, status: dg.DefaultSensorStatus) -> dg.SensorDefinition:
    """The sensor over `<env>-user-statistics-queue`."""

    @dg.sensor(
        name=NAME,
        job=job,
        minimum_interval_seconds=INTERVAL_S,
        default_status=status,
        description="CSV drops under incoming/ -> a run each.",
    )
    def user_statistics_drops(context: dg.SensorEvaluationContext, platform: SettingsResource) -> dg.SensorResult:
        begun = time.monotonic()
        settings = platform.load()
        route = statistics_route(settings)
        inbox = Inbox(aws.sqs(settings), route.queue, route.dlq)
        s3 = aws.s3(settings)
        tick = _Tick()
        while time.monotonic() - begun < BUDGET_S:
            messages = inbox.receive(wait_s=WAIT_S)
            for message in messages:
                tick.add(s3, message)
            if len(messages) < BATCH:
                break  # what is left comes with the next tick
        engine = postgres.engine(settings, pool_size=1)
        try:
            with engine.connect() as connection:
                done = finished(connection, tick.files)
        finally:
            engine.dispose()
        inbox.delete(_settled(tick, done))
        for message, reason in tick.useless:
            context.log.warning(NAMES_NO_FILE, message.id, route.queue, reason)
            if message.receives >= MAX_RECEIVES:
                inbox.dead_letter(message, reason)
        open_files = [file for file_id, file in tick.files.items() if file_id not in done]
        requests, given_up = _requests(context.instance, open_files)
        for file in given_up:
            context.log.error(GIVEN_UP, file.url, file.url, file.url)
            for message in tick.messages[file.file_id]:
                inbox.dead_letter(message, f"failed {MAX_RUNS} times")
        partitions = [request.partition_key for request in requests if request.partition_key is not None]
        return dg.SensorResult(
            run_requests=requests,
            skip_reason=None if requests else f"{len(tick.files)} files on the queue, none to start",
            dynamic_partitions_requests=[FILES.build_add_request(partitions)] if partitions else [],
        )

    return user_statistics_drops


def _settled(tick: _Tick, done: set[str]) -> list[Message]:
    """Messages whose files the ledger has finished, all of them."""
    waiting = {message.id for file_id in tick.files.keys() - done for message in tick.messages[file_id]}
    messages = {message.id: message for file_id in done for message in tick.messages[file_id]}
    return [*tick.empty, *(message for key, message in messages.items() if key not in waiting)]


def _requests(
    instance: dg.DagsterInstance, files: Iterable[FileVersion]
) -> tuple[list[dg.RunRequest], list[FileVersion]]:
    """A run for each file that has none under way; and the files whose runs have failed often enough."""
    requests: list[dg.RunRequest] = []
    given_up: list[FileVersion] = []
    for file in files:
        runs = instance.get_runs(dg.RunsFilter(tags={FILE_TAG: file.file_id}))
        if any(run.status in UNFINISHED for run in runs):
            continue
        failures = sum(run.status in {dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED} for run in runs)
        if failures >= MAX_RUNS:
            given_up.append(file)
            continue
        requests.append(
            dg.RunRequest(
                run_key=run_key(file.file_id, failures),
                partition_key=partition_of(file.identity),
                tags={FILE_TAG: file.file_id},
            )
        )
    return requests, given_up
