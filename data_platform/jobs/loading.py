"""Two jobs around the loader agent: catch-up while it is away, and the daily reconciliation with S3.

Both do what the agent does, with its code; the agent and they may run at once.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import dagster as dg
from pydantic import Field

from data_platform.assets.keys import Stage, partitions_of, stage_key
from data_platform.assets.outcomes import stop_retries
from data_platform.catalog import load_catalog
from data_platform.catalog.models import Mode
from data_platform.errors import PlatformError
from data_platform.resources.settings import SettingsResource

CATCH_UP = "load_catch_up"
RECONCILIATION = "load_reconciliation"
CATCH_UP_S = 1800.0
WORKERS = 4
SHOWN = 3  # files named in a message


class CatchUp(dg.Config):
    """Domains to load until their queues are empty."""

    domains: list[str]


class Reconciliation(dg.Config):
    """The days to compare; yesterday without any."""

    days: list[str] = Field(default_factory=list)


def still_waiting(domains: Sequence[str]) -> PlatformError:
    """What a catch-up ends with that has had its time; the next one goes on."""
    return PlatformError(
        f"after {CATCH_UP_S / 60:.0f} minutes of loading, messages still wait in the load queues of "
        f"{', '.join(domains)}",
        hint="what was loaded stays, nothing is lost. Start a loader that goes on by itself: data-platform loader",
    )


def cannot_be_loaded(bucket: str, failed: Mapping[str, str]) -> PlatformError:
    """What a reconciliation ends with; `failed` has the reason by key in `bucket`."""
    shown = "; ".join(f"s3://{bucket}/{key}: {reason}" for key, reason in list(failed.items())[:SHOWN])
    more = f"; and {len(failed) - SHOWN} more, in the run's metadata under failed" if len(failed) > SHOWN else ""
    what = "file on S3 that no event announced is" if len(failed) == 1 else "files on S3 that no event announced are"
    return PlatformError(
        f"{len(failed)} {what} not in ClickHouse and cannot be loaded, so their rows are missing there: {shown}{more}",
        hint="a file that _manifest.json beside it lists is the platform's: data-platform backfill DATASET --from "
        "DAY --to DAY (both stand in its key, DATASET/ds=DAY); if it fails again, correct the column at the source "
        "or in the catalogue. It is closed once the backfill has passed. A file that it does not list was put there by "
        "somebody else: ask the dataset's owner (owner in catalog/datasets/DATASET.yaml) whether its rows are needed. "
        "If they are, have a file that fits put in its place. If not, or if nobody knows it, move it out of the "
        "curated bucket rather than delete it; it is closed once it is out",
    )


@dg.op(name="load_until_empty", tags={"kind": "clickhouse"})
def _catch_up(context: dg.OpExecutionContext, config: CatchUp, platform: SettingsResource) -> None:
    """Load what the queues hold, then end."""
    from data_platform.jobs.reporting import LoadReporter
    from data_platform.loading.agent import Agent

    settings = platform.load()
    catalog = load_catalog(settings.catalog)
    reporter = LoadReporter(context.instance.report_runless_asset_event, catalog)
    agent = Agent(settings, catalog, config.domains, workers=WORKERS, on_loaded=reporter.loaded)
    try:
        agent.start()
        empty = agent.until_empty(CATCH_UP_S)
    finally:
        agent.stop()
        reporter.close()
    tally = agent.tally
    context.add_output_metadata(
        {"objects": tally.objects, "rows": tally.rows, "failed": tally.failed, "dead_letters": tally.dead_lettered}
    )
    if not empty:
        raise still_waiting(config.domains)


@dg.op(name="load_what_is_missing", tags={"kind": "clickhouse"})
def _reconcile(context: dg.OpExecutionContext, config: Reconciliation, platform: SettingsResource) -> None:
    """List the days' prefixes, compare with the register, load what no event ever announced."""
    from data_platform.loading.reconcile import find_gaps, mend
    from data_platform.loading.warehouse import open_warehouse

    settings = platform.load()
    catalog = load_catalog(settings.catalog)
    days = [date.fromisoformat(day) for day in config.days] or [datetime.now(UTC).date() - timedelta(days=1)]
    warehouse = open_warehouse(settings)
    objects = rows = 0
    failed: dict[str, str] = {}
    for gap in find_gaps(warehouse, list(catalog.datasets.values()), days):
        mended = mend(warehouse, gap)
        objects += mended.objects
        rows += mended.rows
        failed |= mended.failed
        context.log.warning("%s %s: %d objects had no event", gap.dataset.key, gap.ds, len(gap.missing))
        context.log_event(
            dg.AssetMaterialization(
                stage_key(Stage.CLICKHOUSE, gap.dataset),
                partition=None if partitions_of(gap.dataset) is None or gap.dataset.mode is Mode.SNAPSHOT
                else gap.ds.isoformat(),
                metadata={"loaded_rows": mended.rows, "objects": mended.objects, "loaded_by": "reconciliation"},
            )
        )  # fmt: skip
    warehouse.client.close()
    context.add_output_metadata({"objects": objects, "rows": rows, "failed": dg.MetadataValue.json(failed)})
    if failed:
        raise cannot_be_loaded(settings.curated_bucket, failed)


def catch_up_job() -> Any:
    """The job that loads until the queues are empty."""

    @dg.job(name=CATCH_UP, description="Loads what the queues hold while no agent does.", hooks={stop_retries})
    def job() -> None:
        _catch_up()

    return job


def reconciliation_job() -> Any:
    """The job that finds and loads objects whose event never came."""

    @dg.job(
        name=RECONCILIATION, description="Finds and loads objects on S3 whose event never came.", hooks={stop_retries}
    )
    def job() -> None:
        _reconcile()

    return job
