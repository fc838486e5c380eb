"""What an asset tells about its columns and where they come from: table schema and column lineage."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import dagster as dg

from data_platform.assets.keys import Stage, source_tables, stage_key, stages_of, table_key
from data_platform.catalog.models import Column, Dataset, OtelLogsSource, RedshiftSource

if TYPE_CHECKING:
    from sqlglot.lineage import Node


def read_of(source: str | Sequence[str], version: str, rows: int | None = None) -> dg.JsonMetadataValue:
    """What a materialisation was made of: the source or sources, the version of it that was read, its rows if known."""
    read = {"source": source if isinstance(source, str) else [*source], "version": version}
    return dg.MetadataValue.json(read if rows is None else {**read, "rows": rows})


def table_schema(dataset: Dataset, stage: Stage) -> dg.TableSchema:
    """The dataset's columns as the UI shows them: ClickHouse types, or Redshift's in the unload layer."""
    return dg.TableSchema(columns=[_column(column, stage) for column in dataset.columns])


def _column(column: Column, stage: Stage) -> dg.TableColumn:
    from data_platform.catalog.types import redshift_type

    type_ = redshift_type(column.clickhouse_type) if stage is Stage.UNLOAD else column.clickhouse_type.sql
    return dg.TableColumn(
        name=column.name,
        type=type_,
        description=column.description or None,
        constraints=dg.TableColumnConstraints(nullable=column.nullable),
    )


def column_lineage(dataset: Dataset, stage: Stage) -> dg.TableColumnLineage | None:
    """Per column the columns it is made from: read from the SQL at the source, by name from there on."""
    stages = stages_of(dataset)
    index = stages.index(stage)
    if index > 0:
        upstream = stage_key(stages[index - 1], dataset)
        return dg.TableColumnLineage(
            {column.name: [dg.TableColumnDep(upstream, column.name)] for column in dataset.columns}
        )
    if isinstance(dataset.source, OtelLogsSource):
        return None
    source = dataset.redshift
    if source.table is not None:
        upstream = table_key(source.table)
        return dg.TableColumnLineage(
            {column.name: [dg.TableColumnDep(upstream, column.name)] for column in dataset.columns}
        )
    return dg.TableColumnLineage({column.name: _sql_deps(dataset, source, column) for column in dataset.columns})


def _sql_deps(dataset: Dataset, source: RedshiftSource, column: Column) -> list[dg.TableColumnDep]:
    """The warehouse columns one output column is computed from."""
    from sqlglot.errors import SqlglotError
    from sqlglot.lineage import lineage

    try:
        root = lineage(column.name, source.sql or "", schema={}, dialect="redshift")
    except (SqlglotError, ValueError):
        # `select *` hides the columns from a parser without the warehouse's catalogue: no guess is made.
        return []
    leaves = [node for node in root.walk() if not node.downstream and node is not root]
    found = [(_table_of(node), node.name.rpartition(".")[2].strip('"')) for node in leaves]
    known = set(source_tables(dataset))
    deps = {(table, name): dg.TableColumnDep(table_key(table), name) for table, name in found if table in known}
    return list(deps.values())


def _table_of(node: "Node") -> str:
    from sqlglot import exp

    source = node.source
    if isinstance(source, exp.Table):
        return f"{source.db}.{source.name}".lstrip(".")
    return ""
