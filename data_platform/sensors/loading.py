"""Messages wait and nobody receives them -> a catch-up run of the domain. A tick only looks at the queues' depth."""

import time
from typing import Any, Literal

import dagster as dg
from pydantic import Field

from data_platform.catalog import load_catalog
from data_platform.jobs.loading import CATCH_UP
from data_platform.jobs.lookback import run_key
from data_platform.resources.settings import SettingsResource
from data_platform.sensors.cursors import SensorCursor, read_cursor
from data_platform.sensors.depths import ask_depths

NAME = "load_queue_depth"
INTERVAL_S = 60
DEADLINE_S = 40.0
NOT_ASKED = "the load queue of %s was not asked for its depth, which the next tick does: %s"
STILL_TICKS = 2  # an agent between two receives looks away, too


class Cursor(SensorCursor):
    """How many ticks in a row a domain's messages waited with none in flight."""

    v: Literal[2] = 2
    still: dict[str, int] = Field(default_factory=dict[str, int])


def load_queue_sensor(job: Any, status: dg.DefaultSensorStatus) -> dg.SensorDefinition:
    """The sensor over every domain's queue."""

    @dg.sensor(
        name=NAME,
        job=job,
        minimum_interval_seconds=INTERVAL_S,
        default_status=status,
        description="Starts a catch-up run when messages wait in a load queue and no agent receives them.",
    )
    def tick(context: dg.SensorEvaluationContext, platform: SettingsResource) -> Any:
        deadline = time.monotonic() + DEADLINE_S
        settings = platform.load()
        catalog = load_catalog(settings.catalog)
        cursor = read_cursor(context.cursor, Cursor())
        still: dict[str, int] = {}
        for domain, depth in ask_depths(settings, catalog.domains, deadline):
            if isinstance(depth, str):  # what is not known counts as it was
                context.log.warning(NOT_ASKED, domain, depth)
                still |= {domain: cursor.still[domain]} if domain in cursor.still else {}
            elif depth.waiting and not depth.in_flight:
                still[domain] = cursor.still.get(domain, 0) + 1
        wanted = sorted(domain for domain, ticks in still.items() if ticks >= STILL_TICKS)
        last = _last_run(context.instance)
        if not wanted or (last is not None and not last.is_finished):
            text = Cursor(still=still).model_dump_json()
            waiting = ", ".join(f"{domain} waits" for domain in still) or "nothing waits unattended"
            return dg.SensorResult(cursor=text, skip_reason=dg.SkipReason(waiting))
        # The key names the run before: the same for a tick that is evaluated twice, a new one for a lost cursor.
        request = dg.RunRequest(
            run_key=run_key(CATCH_UP, "" if last is None else last.run_id),
            run_config={"ops": {"load_until_empty": {"config": {"domains": wanted}}}},
            tags={"domains": ",".join(wanted)},
        )
        return dg.SensorResult([request], cursor=Cursor().model_dump_json())

    return tick


def _last_run(instance: dg.DagsterInstance) -> dg.DagsterRun | None:
    """The newest catch-up run."""
    runs = instance.get_runs(dg.RunsFilter(job_name=CATCH_UP), limit=1)
    return runs[0] if runs else None
