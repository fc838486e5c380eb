"""How a Parquet column becomes a table column without a changed value: the type ClickHouse reads, and the cast.

Pure. accurateCast refuses numbers that do not fit; other casts change values in silence (seen on 26.9: a finer or too
distant timestamp, a day beyond Date's 1970-2149, a larger decimal scale, a longer text into FixedString, numbers inside
arrays and maps, which wrap around) and get a check that throws.
"""

from typing import TYPE_CHECKING

from data_platform.catalog.type_text import ColumnType

if TYPE_CHECKING:
    import pyarrow as pa

_FRACTION_DIGITS = {"s": 0, "ms": 3, "us": 6, "ns": 9}
_PLAIN = {
    "int8": "Int8",
    "int16": "Int16",
    "int32": "Int32",
    "int64": "Int64",
    "uint8": "UInt8",
    "uint16": "UInt16",
    "uint32": "UInt32",
    "uint64": "UInt64",
    "halffloat": "Float32",
    "float": "Float32",
    "double": "Float64",
    "bool": "Bool",
    "date32[day]": "Date32",
    "string": "String",
    "large_string": "String",
    "binary": "String",
    "large_binary": "String",
}


def read_type(found: "pa.DataType", *, nullable: bool) -> ColumnType:
    """The ClickHouse type that reads a Parquet column of the Arrow type `found` exactly; raises ValueError for others.

    Maps and arrays know no null of their own: an absent one reads as empty, so such columns must be REQUIRED or the
    contract check has refused them before.
    """
    from pyarrow import types as t

    if t.is_dictionary(found):
        return read_type(found.value_type, nullable=nullable)
    if t.is_timestamp(found):
        return ColumnType("DateTime64", _FRACTION_DIGITS[found.unit], nullable=nullable)
    if t.is_decimal(found):
        return ColumnType("Decimal", found.precision, found.scale, nullable=nullable)
    if t.is_fixed_size_binary(found):
        return ColumnType("FixedString", found.byte_width, nullable=nullable)
    if t.is_map(found):
        key = read_type(found.key_type, nullable=False)
        item = read_type(found.item_type, nullable=found.item_field.nullable)
        return ColumnType("Map", inner=(key, item))
    if t.is_list(found) or t.is_large_list(found):
        return ColumnType("Array", inner=(read_type(found.value_type, nullable=found.value_field.nullable),))
    name = _PLAIN.get(str(found))
    if name is None:
        raise ValueError(f"the Parquet type {found} has no ClickHouse counterpart here")
    return ColumnType(name, nullable=nullable)


def cast_expression(quoted: str, name: str, found: ColumnType, wanted: ColumnType) -> str:
    """SQL that gives the column `quoted` of type `found` as `wanted`, or throws naming the column `name`."""
    if found.sql == wanted.sql:
        return quoted
    cast = f"accurateCast({quoted}, {_literal(wanted.sql)})"
    if wanted.low_cardinality or wanted.family in {"map", "array"}:
        cast = f"CAST({quoted}, {_literal(wanted.sql)})"
    guard = _guard(quoted, found, wanted)
    if guard is None:
        return cast
    message = _literal(f"column {name}: a value of {found.sql} does not fit {wanted.sql}")
    return f"if(throwIf(ifNull({guard}, 0), {message}) = 0, {cast}, {cast})"


def _guard(quoted: str, found: ColumnType, wanted: ColumnType) -> str | None:
    """A condition that is true where the cast would cut the value; None where accurateCast refuses by itself."""
    if wanted.family in {"timestamp", "date", "array", "map"}:
        there = f"CAST({quoted}, {_literal(wanted.with_nullable(found.nullable).sql)})"
        return f"CAST({there}, {_literal(found.sql)}) != {quoted}"
    if wanted.family == "decimal" and found.family == "decimal" and (found.scale or 0) > (wanted.scale or 0):
        return f"truncate({quoted}, {wanted.scale or 0}) != {quoted}"
    if wanted.family == "fixed_text":
        return f"length({quoted}) > {wanted.number}"
    return None


def _literal(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
