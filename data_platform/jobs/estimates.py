"""What a backfill will come to, guessed from the days that were made last."""

from collections.abc import Mapping

import dagster as dg

from data_platform.assets.keys import Stage, stage_key
from data_platform.jobs.backfill import BackfillPlan

SAMPLE = 30  # of the newest materialisations of a layer


def estimated_bytes(instance: dg.DagsterInstance, plan: BackfillPlan) -> Mapping[Stage, int | None]:
    """Bytes each layer of the remaining days will come to, by the mean of the newest days of any range.

    None for a layer of which no day was made before.
    """
    count = len(plan.remaining) if plan.days else 1
    found: dict[Stage, int | None] = {}
    for stage in plan.stages:
        filters = dg.AssetRecordsFilter(asset_key=stage_key(stage, plan.dataset))
        sizes: list[int] = []
        for record in instance.fetch_materializations(filters, limit=SAMPLE).records:
            event = record.asset_materialization
            size = None if event is None else event.metadata.get("bytes")
            if size is not None and isinstance(size.value, int):
                sizes.append(size.value)
        found[stage] = round(sum(sizes) / len(sizes) * count) if sizes else None
    return found
