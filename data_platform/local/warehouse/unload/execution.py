"""Runs a parsed UNLOAD: target checked, rows spread over slices and partitions, files finished, manifest written.

The order of events is here; how rows, files and objects are made is in the modules beside it.
"""

from collections.abc import Callable, Generator, Iterator
from urllib.parse import quote
from zlib import crc32

import pyarrow as pa

from data_platform.local.warehouse.unload import textual
from data_platform.local.warehouse.unload.columns import Layout, lay_out
from data_platform.local.warehouse.unload.contract import (
    MEGABYTE,
    Source,
    UnloadedFile,
    UnloadEnvironment,
    UnloadOutcome,
    UnloadStatement,
    WarehouseError,
)
from data_platform.local.warehouse.unload.faulty import StoppedError, Switches, stop_if_cancelled
from data_platform.local.warehouse.unload.files import ParquetSeries, Plan, Series, TextSeries
from data_platform.local.warehouse.unload.manifest import as_bytes, build_manifest
from data_platform.local.warehouse.unload.objects import Target
from data_platform.local.warehouse.unload.rows import ChunkReader, aligned_chunks

HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"
PENDING_BYTES = 160 * MEGABYTE  # all slices together; the fullest gives up its rows first
NOT_EMPTY = (
    "Specified unload destination on S3 is not empty. Consider using a different bucket / prefix, manually removing "
    "the target files in S3, or using the ALLOWOVERWRITE option."
)


def execute_unload(statement: UnloadStatement, source: Source, environment: UnloadEnvironment) -> UnloadOutcome:
    """Run one UNLOAD to its end and return what the session reports.

    Raises WarehouseError; files that were complete by then stay, as on Redshift. An empty result writes nothing.
    """
    switches = Switches(statement, source, environment)
    layout = lay_out(statement, source.describe())
    switches.refuse_role()
    target = Target(statement, environment)
    prefix = _key_prefix(statement)
    target.check_region()
    if statement.clean_path:
        if not layout.partition:
            target.clean(prefix)
    elif not statement.allow_overwrite and not target.is_empty(prefix):
        raise WarehouseError("XX000", NOT_EMPTY)
    try:
        switches.begin()
        return _Run(statement, layout, source, environment, target, switches, prefix).run()
    except StoppedError as stopped:
        raise stopped.error from None


def _key_prefix(statement: UnloadStatement) -> str:
    """The key prefix; partition folders need a slash, which Redshift adds."""
    prefix = statement.key_prefix
    return f"{prefix}/" if statement.partition_by and prefix and not prefix.endswith("/") else prefix


class _Run:
    def __init__(
        self,
        statement: UnloadStatement,
        layout: Layout,
        source: Source,
        environment: UnloadEnvironment,
        target: Target,
        switches: Switches,
        prefix: str,
    ) -> None:
        self._statement = statement
        self._layout = layout
        self._source = source
        self._progress = environment.progress
        self._slices = environment.slices if statement.parallel else 1
        self._target = target
        self._switches = switches
        self._prefix = prefix
        self._reader = ChunkReader(layout.columns)
        self._plan = Plan(statement, layout, target, switches.opening, self._file_finished)
        self._series: dict[tuple[str, int], Series] = {}
        self._files: list[UnloadedFile] = []
        self._rows = 0
        self._failures: dict[Series, WarehouseError] = {}

    def run(self) -> UnloadOutcome:
        stream = self._source.copy("csv")
        try:
            self._write_all(stream)
        except BaseException:
            for series in self._series.values():
                series.abort()
            raise
        finally:
            if isinstance(stream, Generator):
                stream.close()
        self._switches.before_manifest()
        manifest_url = self._write_manifest() if self._statement.manifest and self._files else None
        return UnloadOutcome(
            rows=self._switches.told_count(self._rows),
            bytes=sum(file.bytes for file in self._files),
            files=len(self._files),
            manifest_url=manifest_url,
            parts=tuple(self._files),
        )

    def _write_all(self, stream: Iterator[bytes]) -> None:
        """Write every row and complete every file; a failed slice ends the reading, not the files of the others."""
        for chunk in aligned_chunks(stream):
            stop_if_cancelled(self._source)
            for series, table in self._spread(chunk):
                self._guarded(series, lambda series=series, table=table: series.write(table))
                self._rows += len(table)
            self._bound_memory()
            self._report()
            if self._failures:
                break
        for _, series in sorted(self._series.items()):
            stop_if_cancelled(self._source)
            self._guarded(series, series.finish)
        for error in self._failures.values():
            raise error

    def _spread(self, chunk: bytes) -> Iterator[tuple[Series, pa.Table]]:
        """The chunk's rows, each with the series that writes them."""
        read = self._reader.typed if self._statement.format == "parquet" else self._reader.texts
        table = read(chunk, self._layout.written)
        if self._layout.partition:
            for folder, rows in self._folders(chunk):
                slice_number = crc32(folder.encode()) % self._slices  # one file per folder, not one per slice in each
                yield self._series_of(folder, slice_number), table.take(rows)
            return
        size, larger = divmod(len(table), self._slices)
        start = 0
        for slice_number in range(self._slices):
            length = size + (slice_number < larger)
            if length:
                yield self._series_of(self._prefix, slice_number), table.slice(start, length)
            start += length

    def _folders(self, chunk: bytes) -> Iterator[tuple[str, pa.Array]]:
        """The partition folders of a chunk, each with its rows' indices."""
        partition = self._layout.partition
        values = self._reader.texts(chunk, partition)
        names = values.column_names
        numbered = values.append_column("row", pa.array(range(len(values)), pa.int64()))
        groups = numbered.group_by(names, use_threads=False).aggregate([("row", "list")])
        rows = groups.column("row_list").combine_chunks()
        for number, group in enumerate(groups.select(names).to_pylist()):
            folders = (f"{quote(column.name, safe='')}={_hive_value(group[column.internal])}/" for column in partition)
            yield self._prefix + "".join(folders), rows[number].values

    def _series_of(self, folder: str, slice_number: int) -> Series:
        key = (folder, slice_number)
        if key not in self._series:
            if self._statement.clean_path and self._layout.partition:
                self._target.clean(folder)
            self._series[key] = self._new_series(folder, slice_number)
        return self._series[key]

    def _new_series(self, folder: str, slice_number: int) -> Series:
        statement, written = self._statement, self._layout.written
        if statement.format == "parquet":
            return ParquetSeries(self._plan, folder, slice_number)
        header = textual.header(statement, written) if statement.header else b""
        return TextSeries(self._plan, folder, slice_number, textual.encoder(statement, written), header)

    def _guarded(self, series: Series, action: Callable[[], None]) -> None:
        """Do something with a series; when it fails, note it and forget its open file, so that it has nothing left."""
        try:
            action()
        except WarehouseError as error:
            self._failures[series] = error
            series.abort()

    def _bound_memory(self) -> None:
        pending = sum(series.pending_bytes for series in self._series.values())
        while pending > PENDING_BYTES:
            fullest = max(self._series.values(), key=lambda series: series.pending_bytes)
            pending -= fullest.pending_bytes
            self._guarded(fullest, fullest.flush)

    def _file_finished(self, file: UnloadedFile) -> None:
        self._files.append(file)
        self._report()
        self._switches.finished()

    def _report(self) -> None:
        size = sum(file.bytes for file in self._files) + sum(each.open_bytes for each in self._series.values())
        self._progress(self._rows, size, len(self._files))

    def _write_manifest(self) -> str | None:
        true = build_manifest(self._files, self._layout.columns, verbose=self._statement.manifest_verbose)
        told = self._switches.told_manifest(true)
        if told is None:
            return None
        key = f"{self._prefix}manifest"
        self._target.put(key, as_bytes(told))
        return self._target.url(key)


def _hive_value(value: str | None) -> str:
    return HIVE_NULL if value is None else quote(value, safe="")
