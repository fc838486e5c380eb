"""CSV drops in this process: what Dagster's daemon does with the ticks of their sensor, without one."""

import time
from typing import Any

import dagster as dg

from data_platform.assets.user_statistics import FILES
from data_platform.errors import PlatformError
from data_platform.jobs.backfill import QUIET
from data_platform.jobs.processes import process_tags
from data_platform.resources.settings import SettingsResource

SENSOR, JOB = "user_statistics_drops", "user_statistics"


def run_drops(definitions: dg.Definitions, instance: dg.DagsterInstance, *, wait_s: float) -> int:
    """Tick until drops have come, and run each of them. Returns how many.

    Raises PlatformError when none comes within `wait_s` seconds, when a run fails or one of its checks.
    """
    sensor = definitions.resolve_sensor_def(SENSOR)
    job = definitions.resolve_job_def(JOB)
    deadline = time.monotonic() + wait_s
    requests: list[dg.RunRequest] = []
    while not requests:
        if time.monotonic() > deadline:
            raise PlatformError(
                f"no CSV drop was announced by the queue within {wait_s:.0f} s",
                hint="the bucket's notification may be missing: data-platform provision makes it",
            )
        resources = {"platform": SettingsResource()}
        result: Any = sensor(dg.build_sensor_context(instance, definitions=definitions, resources=resources))
        for wanted in result.dynamic_partitions_requests or ():
            instance.add_dynamic_partitions(FILES.name or "", list(wanted.partition_keys))
        requests = list(result.run_requests or ())
    for request in requests:
        done = job.execute_in_process(
            instance=instance,
            run_config=dict(QUIET),
            partition_key=request.partition_key,
            tags={**request.tags, **process_tags()},
            raise_on_error=False,
        )
        failed = [check.check_name for check in done.get_asset_check_evaluations() if not check.passed]
        if failed or not done.success:
            reason = f"its checks {', '.join(failed)} failed" if failed else f"see run {done.run_id} in Dagster"
            raise PlatformError(
                f"{request.partition_key} was not applied: {reason}", hint="data-platform statistics history"
            )
    return len(requests)
