"""What happened to unload requests outside of Dagster: tells of ended ones, runs those that nobody has claimed."""

import time
from collections.abc import Iterator
from datetime import timedelta

import dagster as dg

from data_platform.assets.unload_requests import tell
from data_platform.jobs.lookback import run_key
from data_platform.jobs.unload_requests import unload_request_job
from data_platform.resources.settings import SettingsResource

NAME = "unload_requests"
UNCLAIMED_FOR = timedelta(seconds=60)
INTERVAL_S = 30
DEADLINE_S = 40.0  # Dagster gives a tick 60 s
BATCH = 20  # runs a tick starts at most
REQUEST_TAG = "unload/request"
MAX_RUNS = 3  # that ended without claiming their request; then a person has to look


def key_of_next_run(instance: dg.DagsterInstance, request_id: str, attempt: int) -> str | None:
    """The key of the run that a waiting request needs; None while one is under way, or after MAX_RUNS in vain.

    One run per wait of a request (after a retry it waits anew), and another when that run ended before it had claimed
    the request: its process was killed, or the settings were wrong.
    """
    runs = instance.get_runs(dg.RunsFilter(tags={REQUEST_TAG: request_id}))
    ended = sum(run.is_finished for run in runs)
    if ended < len(runs) or ended >= MAX_RUNS + attempt:
        return None
    return run_key(request_id, str(attempt), str(ended))


def unload_requests_sensor(*, start: bool) -> dg.SensorDefinition:
    """Requests end in the API's process; this one sees them in the ledger, and works where no API process does."""

    @dg.sensor(
        name=NAME,
        job=unload_request_job,
        minimum_interval_seconds=INTERVAL_S,
        default_status=dg.DefaultSensorStatus.RUNNING if start else dg.DefaultSensorStatus.STOPPED,
        description="Reports ended unload requests; starts a run for one that was unclaimed for 60 s.",
    )
    def sensor(
        context: dg.SensorEvaluationContext, platform: SettingsResource
    ) -> Iterator[dg.RunRequest | dg.SkipReason]:
        from data_platform.clients import postgres
        from data_platform.ledger import unload_reports

        deadline = time.monotonic() + DEADLINE_S
        ledger = postgres.engine(platform.load(), pool_size=1)
        try:
            # Those that nobody works on first: to be told of can wait for the next tick.
            with ledger.connect() as connection:
                waiting = unload_reports.unclaimed(connection, UNCLAIMED_FOR, limit=BATCH)
            told = tell(ledger, context.instance.report_runless_asset_event, until=deadline)
        finally:
            ledger.dispose()
        asked = False
        for request in waiting:
            key = key_of_next_run(context.instance, request.request_id, request.attempt)
            if key is None:
                context.log.info(
                    "%s waits: a run is under way for it, or %d were in vain", request.request_id, MAX_RUNS
                )
                continue
            asked = True
            yield dg.RunRequest(
                run_key=key,
                run_config={"ops": {"run_unload_request": {"config": {"request_id": request.request_id}}}},
                tags={REQUEST_TAG: request.request_id},
            )
        if not asked:
            yield dg.SkipReason(f"{told} requests have ended; none waits that needs a run")

    return sensor
