"""The files of an UNLOAD: their names, where one ends and the next begins, compression, text and Parquet writing.

A series is what one slice writes into one folder; it knows rows and bytes, not where the rows come from.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_platform.local.warehouse.unload.columns import Layout
from data_platform.local.warehouse.unload.compression import (
    COMPRESSOR_HOLDS,
    EXTENSIONS,
    Compressor,
    Plain,
    compressor,
)
from data_platform.local.warehouse.unload.contract import (
    MEGABYTE,
    Compression,
    UnloadedFile,
    UnloadStatement,
    WarehouseError,
)
from data_platform.local.warehouse.unload.objects import PART_BYTES, Target, Upload
from data_platform.local.warehouse.unload.rows import parquet_schema
from data_platform.local.warehouse.unload.textual import Encoder

BLOCK_BYTES = 256 * 1024  # text is written, and MAXFILESIZE looked at, in blocks of about this
ROW_GROUP_BYTES = 32 * MEGABYTE  # Redshift's default
PARQUET_OVERHEAD = 1.1  # an encoded row group over its size in Arrow, at worst: dictionaries that did not pay
PARTITIONED_MEMORY = 128 * 1024  # per open file, since there may be hundreds


def file_name(statement: UnloadStatement, slice_number: int, part: int) -> str:
    """What is appended to the prefix: 0000_part_00, 000 with PARALLEL OFF, and the extension."""
    name = f"{slice_number:04d}_part_{part:02d}" if statement.parallel else f"{part:03d}"
    if statement.extension is not None:
        return f"{name}.{statement.extension.removeprefix('.')}"
    return name + (".parquet" if statement.format == "parquet" else EXTENSIONS[statement.compression])


def max_file_bytes(statement: UnloadStatement) -> int:
    """Where a file ends; Parquet rounds down to whole row groups of 32 MB."""
    if statement.format == "parquet" and statement.max_file_size >= ROW_GROUP_BYTES:
        return statement.max_file_size // ROW_GROUP_BYTES * ROW_GROUP_BYTES
    return statement.max_file_size


@dataclass
class Opened:
    """A file being written."""

    upload: Upload
    rows: int = 0


@dataclass(frozen=True)
class Plan:
    """What all series of one UNLOAD share. `opening` is called before, `finished` after each file."""

    statement: UnloadStatement
    layout: Layout
    target: Target
    opening: Callable[[int], None]
    finished: Callable[[UnloadedFile], None]


class Series(ABC):
    """The files of one slice in one folder, one open at a time."""

    def __init__(self, plan: Plan, folder: str, slice_number: int) -> None:
        self._plan = plan
        self._folder = folder
        self._slice = slice_number
        self._part = 0
        self._limit = max_file_bytes(plan.statement)
        self._file: Opened | None = None

    @property
    def pending_bytes(self) -> int:
        """Memory held for rows that no file has yet."""
        return 0

    @property
    def open_bytes(self) -> int:
        """Bytes of the open file."""
        return self._file.upload.size if self._file else 0

    @abstractmethod
    def write(self, table: pa.Table) -> None:
        """Append rows."""

    @abstractmethod
    def finish(self) -> None:
        """Write what is pending and complete the open file."""

    def flush(self) -> None:  # noqa: B027 - text holds no rows back
        """Give up pending memory."""

    def abort(self) -> None:
        """Forget the open file."""
        if self._file is not None:
            self._file.upload.abort()
            self._file = None

    def _open(self) -> Opened:
        plan = self._plan
        plan.opening(self._slice)
        key = self._folder + file_name(plan.statement, self._slice, self._part)
        memory = PARTITIONED_MEMORY if plan.layout.partition else PART_BYTES
        self._file = Opened(plan.target.upload(key, memory))
        self._part += 1
        return self._file

    def _close(self) -> None:
        if self._file is None:
            return
        file, self._file = self._file, None
        try:
            file.upload.close()
        except WarehouseError:
            file.upload.abort()
            raise
        self._plan.finished(UnloadedFile(self._plan.target.url(file.upload.key), file.rows, file.upload.size))


class TextSeries(Series):
    """CSV, delimited, fixed-width and JSON files."""

    def __init__(self, plan: Plan, folder: str, slice_number: int, encode: Encoder, header: bytes) -> None:
        super().__init__(plan, folder, slice_number)
        self._encode = encode
        self._header = header
        self._compression: Compression | None = plan.statement.compression
        self._compressor: Compressor = Plain()

    def write(self, table: pa.Table) -> None:
        lines = self._encode(table)
        _, offsets_buffer, data = lines.buffers()
        offsets = np.frombuffer(offsets_buffer, np.int32)[lines.offset : lines.offset + len(lines) + 1]
        view = memoryview(data)
        start = 0
        while start < len(lines):
            reach = np.searchsorted(offsets, offsets[start] + BLOCK_BYTES, side="right") - 1
            end = max(int(reach), start + 1)
            self._write_block(view[offsets[start] : offsets[end]], end - start)
            start = end

    def finish(self) -> None:
        if self._file is not None:
            self._file.upload.write(self._compressor.flush())
            self._close()

    def _write_block(self, block: memoryview, rows: int) -> None:
        holds = COMPRESSOR_HOLDS if self._compression else 0
        if self._file is not None and self._file.upload.size + len(block) + holds > self._limit:
            self.finish()
        file = self._file
        if file is None:
            file = self._open()
            self._compressor = compressor(self._compression)
            if self._header:
                file.upload.write(self._compressor.compress(self._header))
                file.rows += 1
        file.upload.write(self._compressor.compress(bytes(block) if self._compression else block))  # pyright: ignore[reportArgumentType]
        file.rows += rows


class ParquetSeries(Series):
    """Parquet files, a row group at a time."""

    def __init__(self, plan: Plan, folder: str, slice_number: int) -> None:
        super().__init__(plan, folder, slice_number)
        self._schema = parquet_schema(plan.layout.written)
        self._group_bytes = min(plan.statement.row_group_size or ROW_GROUP_BYTES, int(self._limit / PARQUET_OVERHEAD))
        self._pending: list[pa.Table] = []
        self._pending_bytes = 0
        self._writer: Any = None

    @property
    def pending_bytes(self) -> int:
        return self._pending_bytes

    def write(self, table: pa.Table) -> None:
        self._pending.append(table)
        self._pending_bytes += table.nbytes
        if self._pending_bytes >= self._group_bytes:
            self.flush()

    def flush(self) -> None:
        if not self._pending:
            return
        table = pa.concat_tables(self._pending)
        groups = max(1, -(-self._pending_bytes // self._group_bytes))
        size = self._pending_bytes // groups
        self._pending = []
        self._pending_bytes = 0
        rows = -(-len(table) // groups)
        for start in range(0, len(table), rows):
            self._write_group(table.slice(start, rows), size)

    def _write_group(self, table: pa.Table, size: int) -> None:
        if self._file is not None and self._file.upload.size + size * PARQUET_OVERHEAD > self._limit:
            self._end_file()
        file = self._file
        if file is None:
            file = self._open()
            self._writer = pq.ParquetWriter(
                pa.PythonFile(file.upload, "w"), self._schema, version="1.0", compression="snappy"
            )
        self._writer.write_table(table, row_group_size=len(table))
        file.rows += len(table)

    def finish(self) -> None:
        self.flush()
        self._end_file()

    def abort(self) -> None:
        super().abort()
        self._pending = []
        if self._writer is not None:  # it writes a footer when it is collected, if not now
            self._writer.close()
            self._writer = None

    def _end_file(self) -> None:
        if self._file is not None:
            writer, self._writer = self._writer, None
            writer.close()
            self._close()
