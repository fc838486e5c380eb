"""The commit marker of a curated partition: which files are its content, in which generation. Written last, by one put.

Readers and rebuilds use the listed files only. A file's name tells the generation it was written for, so that an event
of an older or of an uncommitted file can be told from one of a foreign producer.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from data_platform.catalog.keys import partition_prefix
from data_platform.errors import PlatformError, TransientError

if TYPE_CHECKING:
    from botocore.exceptions import ClientError
    from mypy_boto3_s3 import S3Client

MANIFEST_FILE = "_manifest.json"
_FILE_NAME = re.compile(r"^g(?P<generation>\d{6,})-[a-z0-9]+-\d{5}\.parquet$")


class CuratedFile(BaseModel):
    """One Parquet file of a partition; `etag` without quotes, `version_id` None where the bucket has no versions."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str
    etag: str
    version_id: str | None = None
    bytes: int
    rows: int
    uncompressed_bytes: int


class PartitionSource(BaseModel):
    """What the partition was made from: the versions of what was read."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["unload", "otel_logs"]
    reference: str  # S3 prefix of the unload attempt, or of the raw logs
    version: str  # attempt id, or a digest of the raw objects' keys and ETags
    rows: int


class PartitionManifest(BaseModel):
    """The content of a curated partition: `rows` and `bytes` are the sums over `files`; no files means empty."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    dataset: str
    ds: date
    generation: int
    schema_version: str
    created_at: datetime
    source: PartitionSource
    files: tuple[CuratedFile, ...]

    @property
    def rows(self) -> int:
        """Rows of the partition."""
        return sum(file.rows for file in self.files)

    @property
    def bytes(self) -> int:
        """Bytes of the partition's files."""
        return sum(file.bytes for file in self.files)


@dataclass(frozen=True)
class StoredManifest:
    """A manifest as read, with the ETag that a replacing put must match."""

    manifest: PartitionManifest
    etag: str


def manifest_key(domain: str, table: str, ds: date) -> str:
    """S3 key of a partition's manifest."""
    return f"{partition_prefix(domain, table, ds)}{MANIFEST_FILE}"


def file_name(generation: int, attempt: str, number: int) -> str:
    """Name of a curated file; unique per generation, attempt and number."""
    return f"g{generation:06d}-{attempt}-{number:05d}.parquet"


def generation_of(file: str) -> int | None:
    """The generation a file name was made for; None for a name of a foreign producer."""
    match = _FILE_NAME.match(file)
    return None if match is None else int(match["generation"])


def read_manifest(s3: "S3Client", bucket: str, domain: str, table: str, ds: date) -> StoredManifest | None:
    """The current manifest of a partition, None where there is none. Raises PlatformError for one that is not valid."""
    from botocore.exceptions import ClientError

    key = manifest_key(domain, table, ds)
    try:
        answer = s3.get_object(Bucket=bucket, Key=key)
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") in {"NoSuchKey", "404"}:
            return None
        raise
    try:
        manifest = PartitionManifest.model_validate_json(answer["Body"].read())
    except ValidationError as error:
        raise PlatformError(
            f"s3://{bucket}/{key} is not a readable manifest: {error.errors()[0]['msg']}",
            hint="make the curated layer of the day again, it writes a new one: data-platform backfill DATASET "
            "--from DAY --to DAY --stages curated,clickhouse",
        ) from None
    return StoredManifest(manifest, answer["ETag"].strip('"'))


class ConflictError(TransientError):
    """Another writer has committed the partition since it was read; this one's files are not part of it."""


class UncertainCommitError(TransientError):
    """The manifest may have been committed: its files must stay until the next generation replaces them."""


def commit_manifest(
    s3: "S3Client", bucket: str, manifest: PartitionManifest, replaces: StoredManifest | None
) -> StoredManifest:
    """Put the manifest only if the partition is still as `replaces` says; of two writers one gets ConflictError.

    Raises UncertainCommitError when neither the put nor a look at the partition could tell whether it was committed.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    domain, table = manifest.dataset.split("/")
    where: Mapping[str, Any] = {"Bucket": bucket, "Key": manifest_key(domain, table, manifest.ds)}
    condition: Mapping[str, Any] = {"IfNoneMatch": "*"} if replaces is None else {"IfMatch": f'"{replaces.etag}"'}
    body = manifest.model_dump_json(indent=1).encode()
    try:
        answer = s3.put_object(**where, Body=body, ContentType="application/json", **condition)
    except (ClientError, BotoCoreError) as error:
        # The put is repeated when its answer is lost, and the second one then finds the first one's manifest in its
        # way: what lies there decides, never the answer.
        try:
            current = read_manifest(s3, bucket, domain, table, manifest.ds)
        except (ClientError, BotoCoreError) as unreadable:
            raise UncertainCommitError(
                f"s3://{bucket}/{where['Key']} may or may not be committed: {error}", hint="run the partition again"
            ) from unreadable
        if current is not None and current.manifest == manifest:
            return current
        if isinstance(error, ClientError) and _status(error) in {409, 412}:
            raise ConflictError(
                f"s3://{bucket}/{where['Key']} was replaced by another writer in the meantime",
                hint="run the partition again",
            ) from None
        if isinstance(error, ClientError) and 400 <= _status(error) < 500:
            raise
        raise UncertainCommitError(
            f"s3://{bucket}/{where['Key']} could not be put: {error}", hint="run the partition again"
        ) from error
    return StoredManifest(manifest, answer["ETag"].strip('"'))


def superseded_keys(s3: "S3Client", bucket: str, manifest: PartitionManifest) -> Iterator[str]:
    """Keys of older generations that lie in the partition's folder and are not part of `manifest`.

    Files of newer generations are left alone: another writer may be about to commit them.
    """
    domain, table = manifest.dataset.split("/")
    prefix = partition_prefix(domain, table, manifest.ds)
    current = {file.key for file in manifest.files}
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        for item in page.get("Contents", []):
            key = item.get("Key", "")
            generation = generation_of(key.removeprefix(prefix))
            if key not in current and generation is not None and generation <= manifest.generation:
                yield key


def _status(error: "ClientError") -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def now() -> datetime:
    """The current time, UTC."""
    return datetime.now(UTC)
