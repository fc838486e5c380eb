"""What happened to unload requests outside of Dagster: tells of ended ones, runs those that nobody has claimed."""

from collections.abc import Iterator
from datetime import timedelta

import dagster as dg

from data_platform.assets.unload_requests import tell
from data_platform.jobs.unload_requests import unload_request_job
from data_platform.resources.settings import SettingsResource

NAME = "unload_requests"
UNCLAIMED_FOR = timedelta(seconds=60)
INTERVAL_S = 30


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

        ledger = postgres.engine(platform.load(), pool_size=1)
        try:
            told = tell(ledger, context.instance.report_runless_asset_event)
            with ledger.connect() as connection:
                waiting = unload_reports.unclaimed(connection, UNCLAIMED_FOR)
        finally:
            ledger.dispose()
        if not waiting:
            yield dg.SkipReason(f"{told} requests have ended; none waits unclaimed")
        for request in waiting:
            yield dg.RunRequest(
                # One run per wait of a request: after a retry it waits anew.
                run_key=f"{request.request_id}/{request.attempt}",
                run_config={"ops": {"run_unload_request": {"config": {"request_id": request.request_id}}}},
                tags={"unload/request": request.request_id},
            )

    return sensor
