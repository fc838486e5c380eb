"""Rows of the inner SELECT as Arrow tables, a few megabytes at a time.

PostgreSQL's CSV keeps null (nothing) and the empty string (`""`) apart, and Arrow's reader turns it into
columns without a Python object per value; the binary format would have to be taken apart value by value.
"""

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.compute
from pyarrow import csv

from data_platform.local.warehouse.unload.columns import UNCONSTRAINED_NUMERIC, Column
from data_platform.local.warehouse.unload.contract import WarehouseError

pc: Any = pyarrow.compute  # its functions are made when it is imported

CHUNK_BYTES = 4 * 1024**2


def aligned_chunks(stream: Iterable[bytes], target: int = CHUNK_BYTES) -> Iterator[bytes]:
    """Cut a stream of CSV into chunks of about `target` bytes that end where a record ends.

    A line feed ends a record when an even number of quotes came before it.
    """
    pieces: list[bytes] = []
    size = 0
    for piece in stream:
        pieces.append(piece)
        size += len(piece)
        if size >= target:
            chunk = b"".join(pieces)
            end = _last_record_end(chunk)
            rest = chunk[end:]
            pieces, size = ([rest] if rest else []), len(rest)
            if end:
                yield chunk[:end] if rest else chunk
    if size:
        yield b"".join(pieces)


def _last_record_end(chunk: bytes) -> int:
    """The index after the last line feed outside quotes; 0 when there is none. The chunk starts outside quotes."""
    quotes = chunk.count(b'"')
    end = len(chunk)
    while (feed := chunk.rfind(b"\n", 0, end)) >= 0:
        quotes -= chunk.count(b'"', feed, end)
        if quotes % 2 == 0:
            return feed + 1
        end = feed
    return 0


class ChunkReader:
    """Reads chunks of PostgreSQL's CSV; columns are named by their position."""

    def __init__(self, columns: Sequence[Column]) -> None:
        self._names = [column.internal for column in columns]

    def texts(self, chunk: bytes, columns: Sequence[Column]) -> pa.Table:
        """The columns as PostgreSQL's text, nulls as nulls."""
        return self._read(chunk, {column.internal: pa.string() for column in columns})

    def typed(self, chunk: bytes, columns: Sequence[Column]) -> pa.Table:
        """The columns in their Parquet types under their output names.

        Raises WarehouseError 22023 for a value the type cannot hold (infinity, years beyond 9999).
        """
        table = self._read(chunk, {column.internal: _reading_type(column) for column in columns})
        with _value_errors():
            arrays = [
                _as_written(each.combine_chunks(), column) for each, column in zip(table.columns, columns, strict=True)
            ]
        return pa.table(arrays, schema=parquet_schema(columns))

    def _read(self, chunk: bytes, types: dict[str, pa.DataType]) -> pa.Table:
        with _value_errors():
            return csv.read_csv(
                pa.BufferReader(chunk),
                read_options=csv.ReadOptions(column_names=self._names, block_size=len(chunk) + 1),
                parse_options=csv.ParseOptions(newlines_in_values=True, ignore_empty_lines=False),
                convert_options=csv.ConvertOptions(
                    column_types=types,
                    include_columns=list(types),
                    null_values=[""],
                    strings_can_be_null=True,
                    quoted_strings_can_be_null=False,
                    true_values=["t"],
                    false_values=["f"],
                ),
            )


@contextmanager
def _value_errors() -> Generator[None]:
    try:
        yield
    except pa.ArrowInvalid as error:
        raise WarehouseError("22023", f"UNLOAD cannot represent a value: {error}") from error


def parquet_schema(columns: Sequence[Column]) -> pa.Schema:
    """The schema of a Parquet file with these columns."""
    return pa.schema([pa.field(column.name, column.arrow_type) for column in columns])


def _reading_type(column: Column) -> pa.DataType:
    """The type the CSV reader makes, where it is not the one that is written."""
    if column.facts.type_name == "timestamptz":
        return pa.timestamp("us", tz="UTC")
    if column.facts.type_name == "numeric" and not column.facts.precision:
        return pa.string()
    return column.arrow_type


def _as_written(array: pa.Array, column: Column) -> pa.Array:
    if column.facts.type_name == "numeric" and not column.facts.precision:
        exact = array.cast(pa.decimal256(76, 38))
        rounded = pc.round(exact, ndigits=UNCONSTRAINED_NUMERIC[1], round_mode="half_towards_infinity")
        return rounded.cast(column.arrow_type)
    return array if array.type == column.arrow_type else array.cast(column.arrow_type)
