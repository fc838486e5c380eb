"""The footer of a Parquet object, read with ranged GETs, and the contract check against the target's columns.

Nothing of the data is read: the footer tells columns, types, nullability, rows and the uncompressed size, which is
what decides whether the object may be loaded, and by which plan.
"""

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from data_platform.catalog.models import Dataset
from data_platform.clients.objects import ObjectReader
from data_platform.errors import PlatformError

if TYPE_CHECKING:
    import pyarrow as pa

TAIL_BYTES = 64 * 1024  # holds the whole footer of most files: one GET


class FooterError(PlatformError):
    """The object is no whole Parquet file, or its columns do not fit the table (E003)."""


class NotParquetError(FooterError):
    """The object is of another format (E002)."""


class ObjectChangedError(PlatformError):
    """The key now holds another version than the event named; the newer version's own event will come."""


@dataclass(frozen=True)
class Footer:
    """What the footer says. `uncompressed_bytes` bounds the memory of the block.

    `nulls`: how many nulls there are in a column at least, of columns whose statistics count some.
    """

    schema: "pa.Schema"
    rows: int
    bytes: int
    uncompressed_bytes: int
    nulls: Mapping[str, int] = field(default_factory=dict[str, int])


class _RangedObject(io.RawIOBase):
    """A read-only file over ranged GETs of one object version, with its tail kept."""

    def __init__(self, objects: ObjectReader, bucket: str, key: str, etag: str) -> None:
        self._objects = objects
        self._where = bucket, key, etag
        self._position = 0
        # From the end, so that nothing depends on the size an event tells.
        tail = objects.read(*self._where, f"bytes=-{TAIL_BYTES}")
        self._tail, self.size = tail.data, tail.size
        self._tail_start = self.size - len(self._tail)

    def _get(self, start: int, end: int) -> bytes:
        if end <= start:
            return b""
        return self._objects.read(*self._where, f"bytes={start}-{end - 1}").data

    def head(self) -> bytes:
        """The first four bytes: `PAR1` in every Parquet file."""
        return self._tail[:4] if self._tail_start == 0 else self._get(0, 4)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}[whence]
        self._position = base + offset
        return self._position

    def read(self, size: int = -1) -> bytes:
        end = self.size if size < 0 else min(self.size, self._position + size)
        start = self._position
        self._position = max(start, end)
        if start >= self._tail_start:
            return self._tail[start - self._tail_start : end - self._tail_start]
        return self._get(start, end)


def read_footer(objects: ObjectReader, bucket: str, key: str, etag: str) -> Footer:
    """The footer of exactly this version; the size an event told decides nothing.

    Raises FooterError for what is no whole Parquet file, NotParquetError for what never was one, ObjectChangedError
    when the key holds another version, FileNotFoundError when it holds none, TransientError for a broken answer;
    botocore's errors otherwise.
    """
    import pyarrow as pa
    from botocore.exceptions import ClientError

    where = f"s3://{bucket}/{key}"
    try:
        source = _RangedObject(objects, bucket, key, etag)
        metadata = _metadata(source, where)
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        if code in {"NoSuchKey", "404"}:
            raise FileNotFoundError(where) from None
        if code in {"PreconditionFailed", "412"}:
            raise ObjectChangedError(f"{where} is not the version with ETag {etag} any more") from None
        if code == "InvalidRange":  # of an object without a byte there is no last part
            raise FooterError(f"{where} is empty: no Parquet file", hint="correct the data") from None
        raise
    uncompressed = sum(metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups))
    try:
        schema = metadata.schema.to_arrow_schema()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise FooterError(f"{where}: its schema cannot be read: {error}", hint="correct the data") from None
    return Footer(schema, metadata.num_rows, source.size, uncompressed, _nulls(metadata))


def _metadata(source: _RangedObject, where: str) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_metadata(pa.PythonFile(source, mode="r"))
    except (pa.ArrowInvalid, pa.ArrowException, OSError) as error:
        if type(error).__module__.startswith(("botocore", "urllib3")):
            raise
        if source.size == 0:
            raise FooterError(f"{where} is empty: no Parquet file", hint="correct the data") from None
        if source.head() != b"PAR1":
            raise NotParquetError(f"{where} is no Parquet file: {error}", hint="reprocess the file") from None
        raise FooterError(f"{where} is no whole Parquet file: {error}", hint="correct the data") from None


def _nulls(metadata: Any) -> dict[str, int]:
    """Nulls by column as the statistics count them; a file need not have any, and then the insert finds out."""
    optional = [number for number in range(metadata.num_columns) if metadata.schema.column(number).max_definition_level]
    found: dict[str, int] = {}
    for group in range(metadata.num_row_groups):
        chunks = metadata.row_group(group)
        for number in optional:
            chunk = chunks.column(number)
            counted = chunk.statistics
            if counted is not None and counted.has_null_count and counted.null_count:
                found[chunk.path_in_schema] = found.get(chunk.path_in_schema, 0) + counted.null_count
    return found


def check_contract(
    dataset: Dataset, schema: "pa.Schema", *, where: str, nulls: Mapping[str, int] | None = None
) -> None:
    """Raise FooterError naming every column that is missing, extra or of a type that cannot feed the table's.

    With `nulls` (of the footer) also those that may hold none and do: found in a list's INSERT, one would have to be
    looked for among a hundred objects.
    """
    from data_platform.catalog.types import refusal

    wanted = {column.name: column.clickhouse_type for column in dataset.columns}
    problems = [f"missing column {name}" for name in wanted if name not in schema.names]
    problems += [f"extra column {name}" for name in schema.names if name not in wanted]
    problems += [f"column {name} twice" for name in sorted({n for n in schema.names if schema.names.count(n) > 1})]
    for name, column in wanted.items():
        if schema.names.count(name) == 1:
            reason = refusal(column, schema.field(name).type)
            if reason is not None:
                problems.append(f"column {name}: {reason}")
    problems += [
        f"column {column.name}: {nulls[column.name]} nulls, and it may hold none"
        for column in dataset.columns
        if nulls and column.name in nulls and not column.nullable
    ]
    if problems:
        raise FooterError(f"{where}: {'; '.join(problems)}", hint="correct the data, or the catalogue's columns")
