"""Redshift's column types as UNLOAD knows them: their Arrow type in Parquet, their words in the manifest, their kind.

Pure; the rows themselves are read in rows.py.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from data_platform.local.warehouse.unload.contract import ColumnFacts, UnloadStatement, WarehouseError

UNCONSTRAINED_NUMERIC = (38, 10)
"""PostgreSQL gives expressions like avg(x) a numeric without precision, where Redshift always has one. Values are
rounded to this scale in Parquet."""
MAX_DECIMAL_PRECISION = 38
MAX_VARCHAR = 65535

_CHARACTER = frozenset({"varchar", "bpchar", "text", "name", "char", "unknown"})
_SUPER = frozenset({"json", "jsonb"})
_ARROW: dict[str, pa.DataType] = {
    "int2": pa.int16(),
    "int4": pa.int32(),
    "int8": pa.int64(),
    "oid": pa.int64(),
    "float4": pa.float32(),
    "float8": pa.float64(),
    "bool": pa.bool_(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us"),
    "timestamptz": pa.timestamp("us"),  # the manual: "only the timestamp values are unloaded", in UTC
    "time": pa.time64("us"),
    **dict.fromkeys(_CHARACTER | _SUPER, pa.string()),
}
_MANIFEST_BASE = {
    "int2": "smallint",
    "int4": "integer",
    "int8": "bigint",
    "float4": "real",
    "float8": "double precision",
    "bool": "boolean",
    "timestamp": "timestamp without time zone",
    "timestamptz": "timestamp with time zone",
    "time": "time without time zone",
    "timetz": "time with time zone",
    "bytea": "binary varying",
    "bpchar": "character",
    **dict.fromkeys(_SUPER, "super"),
    **dict.fromkeys(_CHARACTER - {"bpchar"}, "character varying"),
}


@dataclass(frozen=True)
class Column:
    """One output column: its facts, and the name it has while rows are read (positions, since names may repeat)."""

    facts: ColumnFacts
    position: int

    @property
    def name(self) -> str:
        """The name in the output."""
        return self.facts.name

    @property
    def internal(self) -> str:
        """The name while rows are read."""
        return f"c{self.position}"

    @property
    def is_character(self) -> bool:
        """CHAR or VARCHAR."""
        return self.facts.type_name in _CHARACTER

    @property
    def is_super(self) -> bool:
        """SUPER: JSON text."""
        return self.facts.type_name in _SUPER

    @property
    def is_number(self) -> bool:
        """Rendered as a bare number in JSON."""
        return self.facts.type_name in {"int2", "int4", "int8", "oid", "float4", "float8", "numeric"}

    @property
    def arrow_type(self) -> pa.DataType:
        """The type in Parquet. Raises WarehouseError 0A000 for a type Redshift does not unload to Parquet."""
        facts = self.facts
        if facts.type_name == "numeric":
            precision, scale = (facts.precision, facts.scale or 0) if facts.precision else UNCONSTRAINED_NUMERIC
            if precision <= MAX_DECIMAL_PRECISION:
                return pa.decimal128(precision, scale)
        elif found := _ARROW.get(facts.type_name):
            return found
        raise WarehouseError(
            "0A000", f'column "{facts.name}" of type {facts.type_name} is not supported for UNLOAD to PARQUET'
        )

    @property
    def manifest_type(self) -> dict[str, Any]:
        """`type` of the manifest's schema element."""
        facts = self.facts
        if facts.type_name == "numeric":
            precision, scale = (facts.precision, facts.scale or 0) if facts.precision else UNCONSTRAINED_NUMERIC
            return {"base": "numeric", "precision": precision, "scale": scale}
        base = _MANIFEST_BASE.get(facts.type_name, facts.type_name)
        return {"base": base, "max_length": facts.length or MAX_VARCHAR} if self.is_character else {"base": base}


@dataclass(frozen=True)
class Layout:
    """The result's columns, which of them partition it, and which are written to the files."""

    columns: tuple[Column, ...]
    partition: tuple[Column, ...]
    written: tuple[Column, ...]


def lay_out(statement: UnloadStatement, facts: Sequence[ColumnFacts]) -> Layout:
    """Decide which columns go where. Raises WarehouseError for what the output format cannot hold."""
    columns = tuple(Column(each, position) for position, each in enumerate(facts))
    if not columns:
        raise WarehouseError("42601", "UNLOAD needs at least one column")
    repeated = sorted(name for name, times in Counter(column.name for column in columns).items() if times > 1)
    if repeated and (statement.format in {"parquet", "json"} or set(repeated) & set(statement.partition_by)):
        raise WarehouseError(
            "42701",
            f'column name "{repeated[0]}" is duplicated',
            hint=f"UNLOAD to {statement.format.upper()} needs a unique name for each column: add an alias",
        )
    by_name = {column.name: column for column in columns}
    for name in statement.partition_by:
        if name not in by_name:
            raise WarehouseError("42703", f'partition column "{name}" is not in the query\'s result')
    partition = tuple(by_name[name] for name in statement.partition_by)
    if len(partition) == len(columns):
        raise WarehouseError("42601", "PARTITION BY needs at least one other column in the query's result")
    written = columns if statement.partition_include else tuple(each for each in columns if each not in partition)
    if statement.fixed_width is not None and len(statement.fixed_width) != len(written):
        raise WarehouseError(
            "42601", f"FIXEDWIDTH names {len(statement.fixed_width)} columns, the result has {len(written)}"
        )
    if statement.format == "parquet":
        for column in written:
            _ = column.arrow_type
    return Layout(columns, partition, written)
