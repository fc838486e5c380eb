"""One dataset against its live table: which statements bring it up to date, what is refused and why. Pure.

Safe is what leaves every stored value as it is and gives no row a value nobody wrote: a nullable column may be added,
a type may be widened, comments, settings and retention may be set. Anything else needs a person.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from data_platform.catalog import ddl, types
from data_platform.catalog.models import Dataset, Mode

_ENGINES = {"MergeTree", "ReplicatedMergeTree", "SharedMergeTree"}
_TTL = re.compile(r"\bTTL `?_ds`? \+ toIntervalDay\((\d+)\)")


class Kind(StrEnum):
    """What becomes of a difference."""

    CREATE = "create"
    ALTER = "alter"
    REFUSED = "refused"  # applying it could lose or invent values: a person decides
    EXTRA = "extra"  # in the live table only; reported, never dropped


@dataclass(frozen=True, slots=True)
class Change:
    """One difference: of what (`market.flights`, `market.flights.carrier`), in words, and the SQL that settles it."""

    kind: Kind
    target: str
    detail: str
    statement: str | None = None


@dataclass(frozen=True, slots=True)
class LiveColumn:
    """A row of system.columns."""

    name: str
    type: str
    comment: str


@dataclass(frozen=True, slots=True)
class LiveTable:
    """A row of system.tables with its columns in order."""

    engine: str
    engine_full: str
    partition_key: str
    sorting_key: str
    comment: str
    rows: int
    columns: tuple[LiveColumn, ...]


def dataset_changes(
    dataset: Dataset, stored: LiveTable | None, shown: LiveTable | None, *, cluster: str | None = None
) -> list[Change]:
    """All differences of a dataset: its stored table, and for a snapshot the view `shown` under its own name."""
    if dataset.mode is Mode.DAILY:
        return list(_stored_changes(dataset, stored, cluster))
    if shown is not None and shown.engine != "View":
        reason = f"is a {shown.engine} table where the view of the newest snapshot belongs; rename or drop it"
        return [Change(Kind.REFUSED, f"{dataset.domain}.{dataset.name}", reason)]
    changes = list(_stored_changes(dataset, stored, cluster))
    if not any(change.kind is Kind.REFUSED for change in changes):
        changes += _view_changes(dataset, stored, shown, cluster)
    return changes


def _stored_changes(dataset: Dataset, live: LiveTable | None, cluster: str | None) -> Iterator[Change]:
    target = f"{dataset.domain}.{dataset.storage_name}"
    if live is None:
        yield Change(Kind.CREATE, target, "table is missing", ddl.table_ddl(dataset, cluster=cluster))
        return
    unfit = list(_unfit(dataset, live))
    if unfit:
        yield from (Change(Kind.REFUSED, target, reason) for reason in unfit)
        return
    alter = _Alter(dataset, target, cluster)
    yield from _column_changes(dataset, live, alter)
    if live.comment != dataset.description:
        detail = f"description is {live.comment!r}"
        yield alter.change(detail, f"MODIFY COMMENT {ddl.literal(dataset.description)}")
    yield from _retention_changes(dataset, live, alter)
    for name, value in ddl.storage_settings(dataset, cluster):
        found = re.search(rf"\b{name} = (\d+)", live.engine_full)
        if found is None or int(found[1]) != value:
            detail = f"setting {name} is {found[1] if found else 'not set'}, not {value}"
            yield alter.change(detail, f"MODIFY SETTING {name} = {value}")


@dataclass(frozen=True, slots=True)
class _Alter:
    """Makes the ALTER statements of one table."""

    dataset: Dataset
    target: str
    cluster: str | None

    def change(self, detail: str, action: str, *, column: str | None = None) -> Change:
        table = ddl.qualified(self.dataset.domain, self.dataset.storage_name)
        statement = f"ALTER TABLE {table}{ddl.on_cluster(self.cluster)} {action}"
        return Change(Kind.ALTER, f"{self.target}.{column}" if column else self.target, detail, statement)


def _unfit(dataset: Dataset, live: LiveTable) -> Iterator[str]:
    """Differences for which a table has to be made anew."""
    if live.engine not in _ENGINES:
        yield f"has the engine {live.engine}; the platform's tables are MergeTree"
        return
    if _names(live.partition_key) != [ddl.DS]:
        yield f"is partitioned by {live.partition_key or 'nothing'}, not by _ds; make it anew and load it again"
    if _names(live.sorting_key) != list(dataset.order_by):
        yield (
            f"is sorted by ({', '.join(_names(live.sorting_key))}), not by ({', '.join(dataset.order_by)}); "
            "make it anew and load it again, or put the old order into the catalogue"
        )


def _names(key: str) -> list[str]:
    """Columns of a key; newer servers keep the brackets around a single one."""
    return [part.strip().strip("`") for part in key.strip().strip("()").split(",") if part.strip()]


def _column_changes(dataset: Dataset, live: LiveTable, alter: _Alter) -> Iterator[Change]:
    existing = {column.name: column for column in live.columns}
    after: str | None = None
    for name, type_, comment in ddl.columns_of(dataset):
        column = existing.get(name)
        if column is None:
            change = _added(dataset, name, live, alter, after)
            yield change
            if change.statement is None:
                continue
        else:
            yield from _retyped(dataset, column, types.parse(type_), alter)
            if column.comment != comment:
                action = f"COMMENT COLUMN {ddl.quote(name)} {ddl.literal(comment)}"
                yield alter.change(f"comment is {column.comment!r}", action, column=name)
        after = name
    wanted = {name for name, _, _ in ddl.columns_of(dataset)}
    for column in live.columns:
        if column.name not in wanted:
            reason = f"{column.type} is in the table only; its values stay, loads leave it empty"
            yield Change(Kind.EXTRA, f"{alter.target}.{column.name}", reason)


def _added(dataset: Dataset, name: str, live: LiveTable, alter: _Alter, after: str | None) -> Change:
    column = next((each for each in dataset.columns if each.name == name), None)
    if column is None:
        return Change(Kind.REFUSED, f"{alter.target}.{name}", "the platform's column is missing; make the table anew")
    kind = column.clickhouse_type
    # A row that is there already would read 0 or '' where nobody wrote one; an empty map says that nothing is there.
    if live.rows and not kind.nullable and not kind.inner:
        reason = f"{kind.sql} is missing and {live.rows} rows are there that have no value; make it nullable"
        return Change(Kind.REFUSED, f"{alter.target}.{name}", reason)
    where = f"AFTER {ddl.quote(after)}" if after else "FIRST"
    return alter.change(
        f"{kind.sql} is missing", f"ADD COLUMN IF NOT EXISTS {ddl.column_ddl(column)} {where}", column=name
    )


def _retyped(dataset: Dataset, live: LiveColumn, wanted: types.ColumnType, alter: _Alter) -> Iterator[Change]:
    try:
        found = types.parse(live.type)
    except ValueError:
        found = None
    if found == wanted:
        return
    detail = f"is {live.type}, not {wanted.sql}"
    target = f"{alter.target}.{live.name}"
    if live.name in {*dataset.order_by, ddl.DS}:
        yield Change(Kind.REFUSED, target, f"{detail}; a column of the sorting or partition key keeps its type")
    elif found is None or not types.widens(found, wanted):
        yield Change(Kind.REFUSED, target, f"{detail}; not every value of {live.type} is one of {wanted.sql}")
    else:
        column = next((each for each in dataset.columns if each.name == live.name), None)
        text = ddl.column_ddl(column) if column is not None else f"{ddl.quote(live.name)} {wanted.sql}"
        yield alter.change(detail, f"MODIFY COLUMN {text}", column=live.name)


def _retention_changes(dataset: Dataset, live: LiveTable, alter: _Alter) -> Iterator[Change]:
    found = _TTL.search(live.engine_full)
    days = int(found[1]) if found else None
    if days == dataset.retention_days:
        return
    if dataset.retention_days is None:
        yield alter.change(f"retention is {days} days, not for ever", "REMOVE TTL")
    else:
        detail = f"retention is {'for ever' if days is None else f'{days} days'}, not {dataset.retention_days} days"
        yield alter.change(detail, f"MODIFY TTL {ddl.ttl_expression(dataset.retention_days)}")


def _view_changes(
    dataset: Dataset, stored: LiveTable | None, shown: LiveTable | None, cluster: str | None
) -> Iterator[Change]:
    target, statement = f"{dataset.domain}.{dataset.name}", ddl.view_ddl(dataset, cluster=cluster)
    if shown is None:
        yield Change(Kind.CREATE, target, "view of the newest snapshot is missing", statement)
        return
    wanted = [(name, type_) for name, type_, _ in ddl.columns_of(dataset)]
    if [(column.name, _canonical(column.type)) for column in shown.columns] != wanted:
        detail = "view has other columns than its table" if stored else "view has lost its table"
        yield Change(Kind.ALTER, target, detail, statement)


def _canonical(text: str) -> str:
    try:
        return types.parse(text).sql
    except ValueError:
        return text
