"""The footer of a Parquet object, read with ranged GETs, and the contract check against the target's columns.

Nothing of the data is read: the footer tells columns, types, nullability, rows and the uncompressed size, which is
what decides whether the object may be loaded, and by which plan.
"""

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from data_platform.catalog.models import Dataset
from data_platform.errors import PlatformError

if TYPE_CHECKING:
    import pyarrow as pa
    from mypy_boto3_s3 import S3Client

TAIL_BYTES = 64 * 1024  # holds the whole footer of most files: one GET


class FooterError(PlatformError):
    """The object is no whole Parquet file, or its columns do not fit the table (E003)."""


class ObjectChangedError(PlatformError):
    """The key now holds another version than the event named; the newer version's own event will come."""


@dataclass(frozen=True)
class Footer:
    """What the footer says. `uncompressed_bytes` bounds the memory of the block."""

    schema: "pa.Schema"
    rows: int
    bytes: int
    uncompressed_bytes: int


class _RangedObject(io.RawIOBase):
    """A read-only file over ranged GETs of one object version, with its tail kept."""

    def __init__(self, s3: "S3Client", bucket: str, key: str, etag: str, size: int) -> None:
        self._s3 = s3
        self._where: dict[str, Any] = {"Bucket": bucket, "Key": key, "IfMatch": f'"{etag}"'}
        self._size = size
        self._position = 0
        self._tail_start = max(0, size - TAIL_BYTES)
        self._tail = self._get(self._tail_start, size)

    def _get(self, start: int, end: int) -> bytes:
        if end <= start:
            return b""
        return self._s3.get_object(**self._where, Range=f"bytes={start}-{end - 1}")["Body"].read()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = base + offset
        return self._position

    def read(self, size: int = -1) -> bytes:
        end = self._size if size < 0 else min(self._size, self._position + size)
        start = self._position
        self._position = max(start, end)
        if start >= self._tail_start:
            return self._tail[start - self._tail_start : end - self._tail_start]
        return self._get(start, end)


def read_footer(s3: "S3Client", bucket: str, key: str, etag: str, size: int) -> Footer:
    """The footer of exactly this version.

    Raises FooterError for what is no Parquet file, ObjectChangedError when the key holds another version,
    FileNotFoundError when it holds none; botocore's errors otherwise.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq
    from botocore.exceptions import ClientError

    try:
        source = _RangedObject(s3, bucket, key, etag, size)
        metadata = pq.read_metadata(pa.PythonFile(source, mode="r"))
        schema = metadata.schema.to_arrow_schema()
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        if code in {"NoSuchKey", "404"}:
            raise FileNotFoundError(f"s3://{bucket}/{key}") from None
        if code in {"PreconditionFailed", "412", "InvalidRange"}:
            raise ObjectChangedError(f"s3://{bucket}/{key} is not the version with ETag {etag} any more") from None
        raise
    except (pa.ArrowInvalid, OSError) as error:
        if isinstance(error, OSError) and not str(error):
            raise
        raise FooterError(f"s3://{bucket}/{key} is no whole Parquet file: {error}", hint="correct the data") from None
    uncompressed = sum(metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups))
    return Footer(schema, metadata.num_rows, size, uncompressed)


def check_contract(dataset: Dataset, schema: "pa.Schema", *, where: str) -> None:
    """Raise FooterError naming every column that is missing, extra or of a type that cannot feed the table's."""
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
    if problems:
        raise FooterError(f"{where}: {'; '.join(problems)}", hint="correct the data, or the catalogue's columns")
