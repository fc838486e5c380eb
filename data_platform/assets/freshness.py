"""When each table is late: one default for all that people read, the catalogue's word where a dataset has its own.

Dagster's freshness looks at the newest event of an asset, whichever partition it was for: backfilling 2013 turns it
green. So it only says that work is going on; whether the latest expected day is there is a check (standing.py).
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta

import dagster as dg

from data_platform.assets.keys import Stage, stage_key
from data_platform.catalog import Catalog
from data_platform.catalog.models import Dataset

Asset = dg.AssetsDefinition | dg.AssetSpec
# From one day's event to the next: a day, and what the later one may be late.
CYCLE = timedelta(hours=24)


def freshness_of(dataset: Dataset, *, default_hours: float, today: datetime) -> dg.FreshnessPolicy | None:
    """When the dataset's table fails to be fresh; None for a history that is closed, which never gets a new day."""
    if dataset.end is not None and dataset.end < today.date():
        return None
    return policy(dataset.freshness_hours or default_hours)


def policy(hours: float) -> dg.FreshnessPolicy:
    """Warns half-way, fails when no event came for a cycle and `hours` hours."""
    late = timedelta(hours=hours)
    return dg.FreshnessPolicy.time_window(fail_window=CYCLE + late, warn_window=CYCLE + late / 2)


def with_freshness(
    assets: Iterable[Asset], catalog: Catalog, *, default_hours: float, today: datetime | None = None
) -> list[Asset]:
    """`assets` with a policy on every ClickHouse table and summary; a policy that an asset has is kept."""
    now = today or datetime.now(UTC)
    tables: Mapping[dg.AssetKey, dg.FreshnessPolicy | None] = {
        stage_key(Stage.CLICKHOUSE, dataset): freshness_of(dataset, default_hours=default_hours, today=now)
        for dataset in catalog.datasets.values()
    }
    default = policy(default_hours)

    def fresh(spec: dg.AssetSpec) -> dg.AssetSpec:
        found = tables.get(spec.key, default if spec.key.path[0] == "summaries" else None)
        return spec if found is None else dg.apply_freshness_policy(spec, found, overwrite_existing=False)

    return list(dg.map_asset_specs(fresh, list(assets)))
