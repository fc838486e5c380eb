"""Values and types on their way out: DuckDB's to Athena's texts, Hive's types to DuckDB's and back."""

import math
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, cast

from sqlglot import exp


def text_of(value: Any) -> str | None:
    """A value as Athena writes it into a result."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return _double(value)
    if isinstance(value, datetime):
        zone = "" if value.tzinfo is None else " UTC"
        return f"{value:%Y-%m-%d %H:%M:%S}.{value.microsecond // 1000:03d}{zone}"
    if isinstance(value, bytes):
        return " ".join(f"{byte:02x}" for byte in value)
    if isinstance(value, dict):
        pairs = cast("Mapping[Any, Any]", value).items()
        return "{" + ", ".join(f"{key}={_inner(each)}" for key, each in pairs) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_inner(each) for each in cast("list[Any]", value)) + "]"
    return str(value)


def _inner(value: Any) -> str:
    return "null" if value is None else str(text_of(value))


def _double(value: float) -> str:
    """A double as Java writes it."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    if value == 0 or 1e-3 <= abs(value) < 1e7:
        return repr(value)
    sign, digits, exponent = Decimal(repr(value)).normalize().as_tuple()
    figures = "".join(map(str, digits))
    return f"{'-' if sign else ''}{figures[0]}.{figures[1:] or '0'}E{len(figures) - 1 + int(exponent)}"


def duckdb_type(hive: str) -> str:
    """A Hive type in DuckDB's words."""
    return exp.DataType.build(hive, dialect="hive").sql("duckdb")


def trino_type(hive: str) -> str:
    """A Hive type in Trino's words."""
    return exp.DataType.build(hive, dialect="hive").sql("trino")


def hive_type(duckdb: str) -> str:
    """DuckDB's type of a column in Hive's words, as it goes into Glue."""
    if duckdb.startswith("TIMESTAMP"):
        return "timestamp"
    return exp.DataType.build(duckdb, dialect="duckdb").sql("hive").lower().replace(": ", ":").replace(", ", ",")


def result_type(duckdb: str) -> str:
    """DuckDB's type in the words of a result's metadata."""
    if duckdb == '"NULL"':
        return "unknown"
    if duckdb.startswith("TIMESTAMP"):
        return "timestamp with time zone" if "ZONE" in duckdb or "TZ" in duckdb else "timestamp"
    name = exp.DataType.build(duckdb, dialect="duckdb").sql("trino").lower()
    return name.partition("(")[0]
