"""The one type table: ClickHouse <-> Arrow <-> Redshift, which Parquet type may feed a column, which type is wider.

Pure. The text of a type is type_text.py's, tables are ddl.py's.
"""

from typing import TYPE_CHECKING

from data_platform.catalog.type_text import INTEGER_BITS, ColumnType, parse

if TYPE_CHECKING:
    import pyarrow as pa

    from data_platform.catalog.models import Dataset

__all__ = ["ColumnType", "arrow_type", "curated_schema", "parse", "redshift_type", "refusal", "widens"]

# Redshift has no unsigned and no 8-bit integers: the next wider one holds every value; UInt64 needs 20 digits.
_REDSHIFT = {
    "Int8": "SMALLINT",
    "Int16": "SMALLINT",
    "Int32": "INTEGER",
    "Int64": "BIGINT",
    "UInt8": "SMALLINT",
    "UInt16": "INTEGER",
    "UInt32": "BIGINT",
    "UInt64": "DECIMAL(20, 0)",
    "Float32": "REAL",
    "Float64": "DOUBLE PRECISION",
    "Decimal": "DECIMAL({number}, {scale})",
    "String": "VARCHAR(65535)",
    "FixedString": "CHAR({number})",
    "Bool": "BOOLEAN",
    "Date": "DATE",
    "Date32": "DATE",
    "DateTime": "TIMESTAMP",
    "DateTime64": "TIMESTAMP",
    "UUID": "CHAR(36)",
    "Map": "SUPER",
    "Array": "SUPER",
}


def redshift_type(column: ColumnType) -> str:
    """The Redshift type that holds every value of the column; SUPER for maps and arrays."""
    return _REDSHIFT[column.name].format(number=column.number, scale=column.scale)


def arrow_type(column: ColumnType) -> "pa.DataType":
    """The Arrow type of the curated Parquet column, as it reads back (Parquet has no seconds, only ms, us, ns)."""
    import pyarrow as pa

    match column.family:
        case "integer" | "float":
            return pa.type_for_alias(column.name.lower())
        case "decimal":
            return pa.decimal128(column.number or 38, column.scale or 0)
        case "timestamp":
            digits = column.number or 0
            return pa.timestamp("ms" if digits <= 3 else "us" if digits <= 6 else "ns", tz="UTC")
        case "map":
            key, value = column.inner
            return pa.map_(arrow_type(key), pa.field("value", arrow_type(value), nullable=value.nullable))
        case "array":
            (element,) = column.inner
            return pa.list_(pa.field("element", arrow_type(element), nullable=element.nullable))
        case family:
            fixed = {"text": pa.string(), "uuid": pa.string(), "bool": pa.bool_(), "date": pa.date32()}
            return fixed.get(family) or pa.binary(column.number or -1)


def curated_schema(dataset: "Dataset") -> "pa.Schema":
    """Arrow schema of the dataset's curated Parquet files: the catalogue's columns in order, with their nullability."""
    import pyarrow as pa

    return pa.schema(
        [
            pa.field(column.name, arrow_type(column.clickhouse_type), nullable=column.nullable)
            for column in dataset.columns
        ]
    )


def refusal(column: ColumnType, found: "pa.DataType") -> str | None:
    """Why a Parquet column of the Arrow type `found` cannot feed `column`; None where it can, value by value.

    Widths, units, zones and nullability are not looked at: accurate casts refuse the values that do not fit. Whole
    numbers written as floats (what pandas does to integers with nulls) may feed an integer column for that reason.
    Three casts need a check of their own, since accurateCast truncates silently there (seen on 26.9): a finer
    timestamp into a coarser one, a larger scale into a smaller one, a longer text into FixedString.
    """
    from pyarrow import types as t

    if t.is_dictionary(found):
        return refusal(column, found.value_type)
    if column.family == "map" and t.is_map(found):
        key, value = column.inner
        return refusal(key, found.key_type) or refusal(value, found.item_type)
    if column.family == "array" and (t.is_list(found) or t.is_large_list(found)):
        return refusal(column.inner[0], found.value_type)
    number = t.is_integer(found) or t.is_floating(found)
    text = t.is_string(found) or t.is_large_string(found) or t.is_binary(found) or t.is_large_binary(found)
    accepted = {
        "integer": number,
        "float": number,
        "decimal": t.is_decimal(found) or t.is_integer(found),
        "text": text,
        "fixed_text": text or t.is_fixed_size_binary(found),
        "uuid": text,
        "bool": t.is_boolean(found),
        "date": t.is_date(found),
        "timestamp": t.is_timestamp(found),
        "map": False,
        "array": False,
    }
    return None if accepted[column.family] else f"{found} does not go into {column.sql}"


def widens(old: ColumnType, new: ColumnType) -> bool:
    """Whether every value of `old` is a value of `new`, so that a live column may be changed without a loss."""
    if old.nullable and not new.nullable:
        return False
    if old.name != new.name:
        return _wider_name(old.name, new.name)
    match old.name:
        case "Decimal":
            return _digits(old)[1] <= _digits(new)[1] and _digits(old)[0] <= _digits(new)[0]
        case "DateTime64":
            # Nine digits reach only from 1900 to 2262; what fewer digits hold may lie outside.
            old_digits, new_digits = old.number or 0, new.number or 0
            return new_digits == old_digits or old_digits < new_digits < 9
        case _:
            return old.number == new.number and old.inner == new.inner


def _digits(column: ColumnType) -> tuple[int, int]:
    """Digits of a Decimal before and after the point."""
    scale = column.scale or 0
    return (column.number or 0) - scale, scale


def _wider_name(old: str, new: str) -> bool:
    if old in INTEGER_BITS and new in INTEGER_BITS:
        signed_to_unsigned = not old.startswith("U") and new.startswith("U")
        return INTEGER_BITS[new] > INTEGER_BITS[old] and not signed_to_unsigned
    return (old, new) in {("Float32", "Float64"), ("Date", "Date32")}
