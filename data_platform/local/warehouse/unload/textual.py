"""Columns of text -> lines of an UNLOAD file: CSV, delimited text, fixed width, JSON. One Arrow pass per column.

Pure; compression and files are in files.py.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.compute

from data_platform.local.warehouse.unload.columns import Column
from data_platform.local.warehouse.unload.contract import UnloadStatement, WarehouseError

pc: Any = pyarrow.compute  # its functions are made when it is imported

Encoder = Callable[[pa.Table], pa.StringArray]
"""A table of text columns -> one string per row, its line feed included."""

_PLAIN_TYPES = frozenset({"int2", "int4", "int8", "numeric", "bool", "date"})
_JSON_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\b": "\\b", "\f": "\\f"}
_JSON_SPECIAL = r'["\\\x00-\x1f]'


def encoder(statement: UnloadStatement, columns: Sequence[Column]) -> Encoder:
    """The encoder of the statement's format for these columns (tables hold exactly these, in this order)."""
    if statement.format == "json":
        return lambda table: _json(table, columns)
    if statement.format == "csv":
        return lambda table: _csv(table, statement, columns)
    if statement.fixed_width is not None:
        widths = [width for _, width in statement.fixed_width]
        return lambda table: _fixed_width(table, statement, columns, widths)
    return lambda table: _delimited(table, statement, columns)


def header(statement: UnloadStatement, columns: Sequence[Column]) -> bytes:
    """The header line: names under the same transformations as the data."""
    as_text = [replace(column, facts=replace(column.facts, type_name="varchar")) for column in columns]
    names = pa.table({column.internal: pa.array([column.name], pa.string()) for column in columns})
    return encoder(statement, as_text)(names)[0].as_py().encode()


def _arrays(table: pa.Table) -> list[pa.StringArray]:
    return [column.combine_chunks() for column in table.columns]


def _join(parts: Sequence[pa.StringArray | str], null_text: str) -> pa.StringArray:
    """Concatenate arrays and constants row by row."""
    separator = ""
    return pc.binary_join_element_wise(
        *(pa.scalar(part) if isinstance(part, str) else part for part in parts),
        separator,
        null_handling="replace",
        null_replacement=null_text,
    )


def _between(arrays: Sequence[pa.StringArray], first: str, between: str, last: str) -> list[pa.StringArray | str]:
    parts: list[pa.StringArray | str] = [first]
    for number, array in enumerate(arrays):
        parts += [between, array] if number else [array]
    return [*parts, last]


def _any(mask: pa.BooleanArray) -> bool:
    """Whether any row is true."""
    return bool(pc.any(mask).as_py())


def _csv(table: pa.Table, statement: UnloadStatement, columns: Sequence[Column]) -> pa.StringArray:
    null_text = statement.null_as or ""
    special = f'["\\n\\r{_class_escape(statement.delimiter)}]'
    plain_delimiter = statement.delimiter in ",|;\t"
    arrays: list[pa.StringArray] = []
    for array, column in zip(_arrays(table), columns, strict=True):
        if column.facts.type_name in _PLAIN_TYPES and plain_delimiter:
            arrays.append(array)
            continue
        # A value that reads like null is quoted, so that a reader can tell them apart.
        quoted = pc.or_(pc.match_substring_regex(array, special), pc.equal(array, null_text))
        if not _any(quoted):
            arrays.append(array)
            continue
        inside = pc.replace_substring(array, '"', '""')
        arrays.append(pc.if_else(quoted, pc.binary_join_element_wise('"', inside, '"', ""), array))
    return _join(_between(arrays, "", statement.delimiter, "\n"), null_text)


def _delimited(table: pa.Table, statement: UnloadStatement, columns: Sequence[Column]) -> pa.StringArray:
    arrays = _arrays(table)
    if statement.escape:
        quotes = "\"'" if statement.add_quotes else ""
        special = f"([\\n\\r\\\\{_class_escape(statement.delimiter)}{quotes}])"
        arrays = [
            pc.replace_substring_regex(array, special, r"\\\1") if column.is_character else array
            for array, column in zip(arrays, columns, strict=True)
        ]
    delimiter = statement.delimiter
    parts = (
        _between(arrays, '"', f'"{delimiter}"', '"\n')
        if statement.add_quotes
        else _between(arrays, "", delimiter, "\n")
    )
    return _join(parts, statement.null_as or "")


def _fixed_width(
    table: pa.Table, statement: UnloadStatement, columns: Sequence[Column], widths: Sequence[int]
) -> pa.StringArray:
    arrays: list[pa.StringArray] = []
    for array, column, width in zip(_arrays(table), columns, widths, strict=True):
        null_text = statement.null_as or ""
        if len(null_text) > width:
            if column.is_character and array.null_count:
                raise WarehouseError("22001", f'the null string is wider than column "{column.name}" ({width})')
            null_text = ""
        filled = pc.fill_null(array, null_text)
        if (longest := pc.max(pc.utf8_length(filled)).as_py()) > width:
            raise WarehouseError(
                "22001", f'column "{column.name}" has a value of {longest} characters, FIXEDWIDTH gives it {width}'
            )
        arrays.append(pc.utf8_rpad(filled, width))
    return _join([*arrays, "\n"], "")


def _json(table: pa.Table, columns: Sequence[Column]) -> pa.StringArray:
    parts: list[pa.StringArray | str] = []
    for number, (array, column) in enumerate(zip(_arrays(table), columns, strict=True)):
        parts.append(("," if number else "{") + json.dumps(column.name, ensure_ascii=False) + ":")
        parts.append(_json_values(array, column))
    return _join([*parts, "}\n"], "null")


def _json_values(array: pa.StringArray, column: Column) -> pa.StringArray:
    if column.is_super:  # JSON already; a raw line feed in it can only be white space between tokens
        return pc.replace_substring(array, "\n", " ")
    if column.is_number and column.facts.type_name not in {"float4", "float8"}:
        return array
    quoted = pc.binary_join_element_wise('"', _json_escaped(array), '"', "")
    if column.is_number:  # NaN and Infinity are no JSON numbers
        return pc.if_else(pc.match_substring_regex(array, "[NI]"), quoted, array)
    return quoted  # booleans too: the manual has `t` and `f`, and the line is to be valid JSON


def _json_escaped(array: pa.StringArray) -> pa.StringArray:
    if not _any(pc.match_substring_regex(array, _JSON_SPECIAL)):
        return array
    array = pc.replace_substring_regex(array, r'(["\\])', r"\\\1")
    for code in range(1, 0x20):
        control = chr(code)
        if _any(pc.match_substring(array, control)):
            array = pc.replace_substring(array, control, _JSON_ESCAPES.get(control, f"\\u{code:04x}"))
    return array


def _class_escape(character: str) -> str:
    """A character inside a regular expression's brackets."""
    return f"\\x{ord(character):02x}"
