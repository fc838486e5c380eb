"""What the platform reads and does not make, as assets without an operation: warehouse tables and raw logs."""

from collections.abc import Iterable

import dagster as dg

from data_platform.assets.keys import RAW_LOGS, source_tables, table_key
from data_platform.catalog.models import Dataset, OtelLogsSource, RedshiftSource


def source_specs(datasets: Iterable[Dataset]) -> list[dg.AssetSpec]:
    """One spec per warehouse table that any dataset reads, and one for the raw OpenTelemetry logs."""
    tables: dict[str, str] = {}
    logs = False
    for dataset in datasets:
        logs = logs or isinstance(dataset.source, OtelLogsSource)
        if isinstance(dataset.source, RedshiftSource):
            tables.update(dict.fromkeys(source_tables(dataset), dataset.domain))
    specs = [
        dg.AssetSpec(
            table_key(table),
            description=f"Table `{table}` of the warehouse.",
            group_name=domain,
            kinds={"redshift", "table"},
            metadata={"dagster/table_name": table},
        )
        for table, domain in sorted(tables.items())
    ]
    if logs:
        specs.append(
            dg.AssetSpec(
                RAW_LOGS,
                description="OpenTelemetry logs as the Collector's S3 exporter writes them.",
                group_name="analytics",
                kinds={"s3", "opentelemetry"},
            )
        )
    return specs
