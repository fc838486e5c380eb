"""One curated partition: batches in, sorted files and a committed manifest out. Used for every kind of source."""

import hashlib
import secrets
import tempfile
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from io import BytesIO
from pathlib import Path
from typing import IO, TYPE_CHECKING

from data_platform.catalog.keys import partition_prefix
from data_platform.catalog.models import Dataset
from data_platform.catalog.types import curated_schema
from data_platform.curation.contract import conform
from data_platform.curation.manifest import (
    CuratedFile,
    PartitionManifest,
    PartitionSource,
    StoredManifest,
    UncertainCommitError,
    commit_manifest,
    file_name,
    now,
    read_manifest,
    superseded_keys,
)
from data_platform.curation.parquet import LocalFile, write_sorted
from data_platform.errors import PlatformError

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq
    from mypy_boto3_s3 import S3Client

READ_BATCH_ROWS = 64 * 1024
READ_BATCH_BYTES = 16 * 2**20
SMALL_OBJECT_BYTES = 8 * 2**20


@dataclass(frozen=True)
class SourceFile:
    """One Parquet object to curate, with the rows and bytes it is known to hold."""

    bucket: str
    key: str
    rows: int
    bytes: int


def schema_version(schema: "pa.Schema") -> str:
    """A short digest of names, types and nullability: equal for equal contracts."""
    text = "\n".join(f"{field.name} {field.type} {field.nullable}" for field in schema)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def curate_partition(
    s3: "S3Client",
    bucket: str,
    dataset: Dataset,
    ds: date,
    batches: Iterable["pa.RecordBatch"],
    describe_source: Callable[[], PartitionSource],
) -> StoredManifest:
    """Write `batches` as the partition's next generation and make it current; remove what it supersedes.

    The batches must have the columns of the catalogue (contract.py casts and checks). `describe_source` is asked once
    all of them are read. Raises ContractError, or PlatformError where the rows are not the source's; the partition
    then stays as it was.
    """
    schema = curated_schema(dataset)
    where = f"{dataset.key} ds={ds}"
    current = read_manifest(s3, bucket, dataset.domain, dataset.name, ds)
    generation = 1 if current is None else current.manifest.generation + 1
    attempt = secrets.token_hex(4)
    prefix = partition_prefix(dataset.domain, dataset.name, ds)
    files: list[CuratedFile] = []
    try:
        with tempfile.TemporaryDirectory(prefix="curate-") as folder:
            conforming = (conform(batch, schema, where=where) for batch in batches)
            for local in write_sorted(conforming, schema, dataset.order_by, Path(folder)):
                key = f"{prefix}{file_name(generation, attempt, len(files))}"
                files.append(_upload(s3, bucket, key, local))
                local.path.unlink()
        source = describe_source()
        rows = sum(file.rows for file in files)
        if rows != source.rows:
            raise PlatformError(
                f"{where}: {rows} rows were read where {source.rows} were announced by {source.reference}",
                hint="materialise the layer before this one again",
            )
        manifest = PartitionManifest(
            dataset=dataset.key,
            ds=ds,
            generation=generation,
            schema_version=schema_version(schema),
            created_at=now(),
            source=source,
            files=tuple(files),
        )
        stored = commit_manifest(s3, bucket, manifest, current)
    except UncertainCommitError:
        raise  # the manifest that lists these files may be the partition's
    except BaseException:
        delete_keys(s3, bucket, [file.key for file in files])
        raise
    delete_keys(s3, bucket, list(superseded_keys(s3, bucket, manifest)))
    return stored


def read_batches(s3: "S3Client", files: Iterable[SourceFile]) -> Iterator["pa.RecordBatch"]:
    """The rows of Parquet objects, one object at a time, in memory or on the local disk by its size.

    Raises PlatformError for a wrong count and for what is no whole Parquet file.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    with tempfile.TemporaryDirectory(prefix="read-") as folder:
        for file in files:
            where = f"s3://{file.bucket}/{file.key}"
            try:
                with _open(s3, file, Path(folder)) as stream, pq.ParquetFile(stream) as parquet:
                    if parquet.metadata.num_rows != file.rows:
                        raise PlatformError(
                            f"{where} holds {parquet.metadata.num_rows} rows, its manifest says {file.rows}",
                            hint="materialise the unload again",
                        )
                    yield from parquet.iter_batches(batch_size=_batch_rows(parquet.metadata))
            except pa.ArrowInvalid as error:
                raise PlatformError(
                    f"{where} is not a whole Parquet file: {error}", hint="unload the day again: data-platform backfill"
                ) from None


@contextmanager
def _open(s3: "S3Client", file: SourceFile, folder: Path) -> Generator[IO[bytes]]:
    """The object as a file that can be searched; a small one takes one request, a large one is fetched in parts."""
    if file.bytes <= SMALL_OBJECT_BYTES:
        yield BytesIO(s3.get_object(Bucket=file.bucket, Key=file.key)["Body"].read())
        return
    path = folder / "source.parquet"
    with path.open("w+b") as stream:
        s3.download_fileobj(file.bucket, file.key, stream)
        stream.seek(0)
        yield stream
    path.unlink()


def _batch_rows(metadata: "pq.FileMetaData") -> int:
    """Rows a batch: fewer where rows are wide, since a VARCHAR of Redshift may hold 64 KB."""
    sizes = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    widest = max((group.total_byte_size // max(group.num_rows, 1) for group in sizes), default=1)
    return max(256, min(READ_BATCH_ROWS, READ_BATCH_BYTES // max(widest, 1)))


def _upload(s3: "S3Client", bucket: str, key: str, local: LocalFile) -> CuratedFile:
    """One put (not multipart): the ETag is the content's, and one object is one event."""
    with local.path.open("rb") as stream:
        answer = s3.put_object(Bucket=bucket, Key=key, Body=stream, ContentType="application/vnd.apache.parquet")
    version = answer.get("VersionId")
    return CuratedFile(
        key=key,
        etag=answer["ETag"].strip('"'),
        version_id=None if version in {None, "null"} else version,
        bytes=local.bytes,
        rows=local.rows,
        uncompressed_bytes=local.uncompressed_bytes,
    )


def delete_keys(s3: "S3Client", bucket: str, keys: list[str]) -> None:
    """Delete objects, 1,000 a call. A refusal is reported: what stays behind is listed by no manifest."""
    for start in range(0, len(keys), 1000):
        answer = s3.delete_objects(
            Bucket=bucket, Delete={"Objects": [{"Key": key} for key in keys[start : start + 1000]], "Quiet": True}
        )
        errors = answer.get("Errors", [])
        if errors:
            raise PlatformError(
                f"could not delete s3://{bucket}/{errors[0].get('Key')}: {errors[0].get('Message')}",
                hint=f"the platform's role needs s3:DeleteObject on {bucket}",
            )
