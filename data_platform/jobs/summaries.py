"""Running the product metrics in this process, as one Dagster run."""

import dagster as dg

from data_platform.errors import PlatformError
from data_platform.jobs.backfill import QUIET
from data_platform.jobs.processes import process_tags


def run_summaries(definitions: dg.Definitions, instance: dg.DagsterInstance) -> dict[str, int]:
    """Rebuild every metric of every service; returns rows by `<service>/<metric>`. Raises PlatformError on failure."""
    result = definitions.resolve_job_def("summaries").execute_in_process(
        instance=instance, run_config=QUIET, tags=process_tags(), raise_on_error=False
    )
    if not result.success:
        raise PlatformError("the summaries failed", hint=f"see run {result.run_id} in Dagster")
    rows: dict[str, int] = {}
    for event in result.get_asset_materialization_events():
        materialization = event.materialization
        count = materialization.metadata.get("dagster/row_count")
        rows["/".join(materialization.asset_key.path[1:])] = int(getattr(count, "value", 0) or 0)
    return rows
