"""The contract of a partition's rows: columns by name, types by accurate casts, nulls only where allowed.

Nothing is guessed, filled in or cut: a missing or extra column, a null in a non-nullable column, a value that does not
fit its type is an error that names the column.
"""

from typing import TYPE_CHECKING, Any

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
        raise ContractError(
            f"{where}: {'; '.join(parts)}",
            hint="add, remove or rename them in the dataset's catalogue file or at the source; then make the day again",
        )


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
    reason = ""
    try:
        cast = _exact(column, field.type)
        if cast is not None:
            return cast
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        reason = f": {error}"
    raise ContractError(
        f"{where}: column {field.name}: {column.type} does not fit {field.type}{reason}",
        hint="change the column's type in the catalogue, or cast it in the source SQL",
    )


def _exact(column: "pa.Array", wanted: "pa.DataType") -> "pa.Array | None":
    """The column as `wanted`, None where a value would change; raises Arrow's errors where it refuses by itself.

    Arrow's safe cast lets some pass: a double into a float (0.1 changes, 1e300 becomes infinite), a time into a date.
    So the values are cast back and compared. By precision alone it refuses integers that fit a decimal.
    """
    import pyarrow as pa
    import pyarrow.compute
    from pyarrow import types as t

    pc: Any = pyarrow.compute  # its functions are made when it is imported: no type checker knows them

    if t.is_dictionary(column.type):
        column = column.dictionary_decode()
    start = column
    if t.is_integer(column.type) and t.is_decimal(wanted):
        start = column.cast(pa.decimal128(min(38, 20 + wanted.scale), wanted.scale))
    cast = start.cast(wanted, safe=True)
    back = cast.cast(column.type, safe=True)
    same = pc.equal(column, back)
    if t.is_floating(column.type):
        same = pc.or_(same, pc.and_(pc.is_nan(column), pc.is_nan(back)))
    return cast if pc.all(same, skip_nulls=True).as_py() is not False else None
