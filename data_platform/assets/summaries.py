"""The metrics of a service as assets `summaries/<service>/<metric>`: one operation a service, any subset of metrics."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from data_platform.analytics.summaries import DATABASE, METRICS, rebuild_summary, table_of
from data_platform.assets.keys import Stage, summary_key
from data_platform.catalog.models import Service
from data_platform.clients import clickhouse
from data_platform.resources.settings import SettingsResource

EVENTS = dg.AssetKey([Stage.CLICKHOUSE.value, "analytics", "events"])
DESCRIPTIONS = {
    "dau": "Daily active users: new and returning, sessions started, events.",
    "mau": "Monthly active users: last 30 and 28 days, month to date, stickiness.",
}


def summary_assets(service: Service) -> dg.AssetsDefinition:
    """All metrics of one service."""

    @dg.multi_asset(
        name=f"summaries__{service.prefix}",
        specs=[
            dg.AssetSpec(
                summary_key(service, metric),
                deps=[EVENTS],
                description=f"{DESCRIPTIONS[metric]} A day is a calendar day in {service.time_zone}.",
                group_name="summaries",
                kinds={"clickhouse", "sql"},
                owners=[service.owner],
                skippable=True,
                metadata={"dagster/table_name": f"{DATABASE}.{table_of(service, metric)}"},
                tags={"service": service.name},
            )
            for metric in METRICS
        ],
        can_subset=True,
        pool="clickhouse",
    )
    def rebuild(context: dg.AssetExecutionContext, platform: SettingsResource) -> Iterator[Any]:
        client = clickhouse.connect(platform.load())
        try:
            for metric in METRICS:
                key = summary_key(service, metric)
                if key not in context.selected_asset_keys:
                    continue
                summary = rebuild_summary(client, service, metric, datetime.now(UTC).date())
                yield dg.MaterializeResult(
                    asset_key=key,
                    metadata={
                        "dagster/row_count": summary.rows,
                        "duration_s": round(summary.seconds, 3),
                        "first_day": str(summary.first_day),
                        "last_day": str(summary.last_day),
                        "time_zone": service.time_zone,
                    },
                )
        finally:
            client.close()

    return rebuild
