"""The catalogue against the live ClickHouse: reads the live tables, shows the difference, applies what is safe.

What may be changed is decided in table_changes.py. Nothing here drops a column, a table or a row.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from data_platform.catalog import ddl
from data_platform.catalog.load import Catalog
from data_platform.catalog.table_changes import Change, Kind, LiveColumn, LiveTable, dataset_changes

TableName = tuple[str, str]  # database, table

_DATABASES = "SELECT name FROM system.databases WHERE name IN {databases:Array(String)}"
_TABLES = """
SELECT database, name, engine, engine_full, partition_key, sorting_key, comment, ifNull(total_rows, 0)
FROM system.tables
WHERE database IN {databases:Array(String)} AND name IN {tables:Array(String)}
"""
_COLUMNS = """
SELECT database, table, name, type, comment
FROM system.columns
WHERE database IN {databases:Array(String)} AND table IN {tables:Array(String)}
ORDER BY database, table, position
"""


class Rows(Protocol):
    """An answer."""

    @property
    def result_rows(self) -> Sequence[Sequence[Any]]:
        """The rows, as sequences of values."""
        ...


class Client(Protocol):
    """What is needed of a ClickHouse client (clickhouse-connect's fits)."""

    def query(self, query: str, /, *, parameters: dict[str, Any]) -> Rows:
        """Rows of a SELECT with bound parameters."""
        ...

    def command(self, cmd: str, /) -> object:
        """Execute one statement."""
        ...


def diff(catalog: Catalog, client: Client, *, cluster: str | None = None) -> list[Change]:
    """What `apply` would do, and what it would refuse or only reports, in the order of execution; empty: nothing."""
    databases = sorted(catalog.domains)
    tables = sorted({name for each in catalog.datasets.values() for name in (each.name, each.storage_name)})
    parameters: dict[str, Any] = {"databases": databases, "tables": tables}
    existing = {str(name) for (name,) in client.query(_DATABASES, parameters={"databases": databases}).result_rows}
    live = _live_tables(client, parameters)
    return list(_changes(catalog, existing, live, cluster))


def apply(catalog: Catalog, client: Client, *, cluster: str | None = None) -> list[Change]:
    """Execute every safe change of `diff` and return the whole diff as it was. Refused ones are left as they are."""
    found = diff(catalog, client, cluster=cluster)
    for change in found:
        if change.statement is not None:
            client.command(change.statement)
    return found


def _changes(
    catalog: Catalog, databases: set[str], live: Mapping[TableName, LiveTable], cluster: str | None
) -> Iterator[Change]:
    for domain in catalog.domains:
        if domain not in databases:
            yield Change(Kind.CREATE, domain, "database is missing", ddl.database_ddl(domain, cluster=cluster))
    for dataset in catalog.datasets.values():
        stored = live.get((dataset.domain, dataset.storage_name))
        shown = live.get((dataset.domain, dataset.name))
        yield from dataset_changes(dataset, stored, shown, cluster=cluster)


def _live_tables(client: Client, parameters: dict[str, Any]) -> dict[TableName, LiveTable]:
    columns: dict[TableName, list[LiveColumn]] = {}
    for database, table, name, type_, comment in client.query(_COLUMNS, parameters=parameters).result_rows:
        columns.setdefault((str(database), str(table)), []).append(LiveColumn(str(name), str(type_), str(comment)))
    return {
        (str(database), str(name)): LiveTable(
            engine=str(engine),
            engine_full=str(engine_full),
            partition_key=str(partition_key),
            sorting_key=str(sorting_key),
            comment=str(comment),
            rows=int(rows),
            columns=tuple(columns.get((str(database), str(name)), ())),
        )
        for database, name, engine, engine_full, partition_key, sorting_key, comment, rows in client.query(
            _TABLES, parameters=parameters
        ).result_rows
    }
