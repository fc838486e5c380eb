"""The contract of a partition's rows: columns by name, types by accurate casts, nulls only where allowed.

Nothing is guessed, filled in or cut: a missing or extra column, a null in a non-nullable column, a value that does not
fit its type is an error that names the column.
"""

from typing import TYPE_CHECKING

from data_platform.errors import PlatformError

if TYPE_CHECKING:
    import pyarrow as pa


class ContractError(PlatformError):
    """The source's rows do not fit the catalogue's columns."""


def check_columns(found: list[str], schema: "pa.Schema", *, where: str) -> None:
    """Raise ContractError naming every missing and extra column; the order is free."""
    missing = [name for name in schema.names if name not in found]
    extra = [name for name in found if name not in schema.names]
    doubled = sorted({name for name in found if found.count(name) > 1})
    parts = [
        f"{label} column{'s' if len(names) > 1 else ''} {', '.join(names)}"
        for label, names in (("missing", missing), ("extra", extra), ("doubled", doubled))
        if names
    ]
    if parts:
        raise ContractError(f"{where}: {'; '.join(parts)}", hint="the catalogue's columns and the source must agree")


def conform(batch: "pa.RecordBatch", schema: "pa.Schema", *, where: str) -> "pa.RecordBatch":
    """The batch with exactly `schema`, every value unchanged. Raises ContractError naming the column."""
    import pyarrow as pa

    check_columns(batch.schema.names, schema, where=where)
    columns: list[pa.Array] = []
    for field in schema:
        column = batch.column(field.name)
        if not field.nullable and column.null_count:
            raise ContractError(
                f"{where}: column {field.name}: {column.null_count} nulls in a column that is not nullable",
                hint="mark the column nullable in the catalogue, or correct the source",
            )
        columns.append(_cast(column, field, where))
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _cast(column: "pa.Array", field: "pa.Field", where: str) -> "pa.Array":
    import pyarrow as pa

    if column.type.equals(field.type):
        return column
    try:
        return column.cast(field.type, safe=True)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise ContractError(
            f"{where}: column {field.name}: {column.type} does not fit {field.type}: {error}",
            hint="change the column's type in the catalogue, or cast it in the source SQL",
        ) from None
