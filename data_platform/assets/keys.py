"""Asset keys, groups and partitions of the catalogue's datasets: the one place that spells them."""

from datetime import date, timedelta
from enum import StrEnum

import dagster as dg

from data_platform.catalog.models import Dataset, Mode, OtelLogsSource, RedshiftSource, Service

RAW_LOGS = dg.AssetKey(["raw", "otel_logs"])
# On every run over a single dataset: dagster.yaml lets one of them go at a time.
DATASET_TAG = "data_platform/dataset"


class Stage(StrEnum):
    """The layers a dataset goes through, in order."""

    UNLOAD = "unload"
    CURATED = "curated"
    CLICKHOUSE = "clickhouse"


def stages_of(dataset: Dataset) -> tuple[Stage, ...]:
    """The layers of a dataset: only what comes from Redshift is unloaded."""
    if isinstance(dataset.source, RedshiftSource):
        return (Stage.UNLOAD, Stage.CURATED, Stage.CLICKHOUSE)
    return (Stage.CURATED, Stage.CLICKHOUSE)


def stage_key(stage: Stage, dataset: Dataset) -> dg.AssetKey:
    """`<stage>/<domain>/<name>`."""
    return dg.AssetKey([stage.value, dataset.domain, dataset.name])


def table_key(schema_and_table: str) -> dg.AssetKey:
    """`redshift/<schema>/<table>`: a table in the warehouse, which the platform reads and does not make."""
    return dg.AssetKey(["redshift", *schema_and_table.lower().split(".")])


def summary_key(service: Service, metric: str) -> dg.AssetKey:
    """`summaries/<service>/<metric>`."""
    return dg.AssetKey(["summaries", service.prefix, metric])


def summaries_op(service: Service) -> str:
    """Name of the operation that computes a service's summaries."""
    return f"summaries__{service.prefix}"


def upstream_keys(stage: Stage, dataset: Dataset) -> list[dg.AssetKey]:
    """What a layer of a dataset reads."""
    stages = stages_of(dataset)
    index = stages.index(stage)
    if index > 0:
        return [stage_key(stages[index - 1], dataset)]
    if isinstance(dataset.source, OtelLogsSource):
        return [RAW_LOGS]
    return [table_key(table) for table in source_tables(dataset)]


def source_tables(dataset: Dataset) -> list[str]:
    """The `schema.table` names a dataset's Redshift source reads, in order of appearance."""
    source = dataset.redshift
    if source.table is not None:
        return [source.table]
    # Only datasets with SQL of their own pay for the parser when the code location loads.
    import sqlglot
    from sqlglot import exp

    statement = sqlglot.parse_one(source.sql or "", dialect="redshift")
    aliases = {cte.alias_or_name for cte in statement.find_all(exp.CTE)}
    names = [f"{t.db}.{t.name}" for t in statement.find_all(exp.Table) if t.db or t.name not in aliases]
    return list(dict.fromkeys(name.lstrip(".") for name in names))


def partitions_of(dataset: Dataset) -> dg.DailyPartitionsDefinition | None:
    """The days of a daily dataset, both ends included; None for a snapshot."""
    if dataset.mode is Mode.SNAPSHOT:
        return None
    start = dataset.start or date(2020, 1, 1)
    end = None if dataset.end is None else (dataset.end + timedelta(days=1)).isoformat()
    return dg.DailyPartitionsDefinition(start_date=start.isoformat(), end_date=end)
