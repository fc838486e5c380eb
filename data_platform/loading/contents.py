"""What a partition should hold according to S3: the files its manifest lists, and the objects of foreign producers."""

from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

from data_platform.catalog.keys import SUFFIX, partition_prefix
from data_platform.curation.manifest import StoredManifest, generation_of, read_manifest
from data_platform.loading.register import ObjectVersion

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


@dataclass(frozen=True)
class Contents:
    """The object versions a partition consists of, and the generation of the manifest (0 without one)."""

    objects: tuple[ObjectVersion, ...]
    curated_generation: int


def expected_contents(s3: "S3Client", bucket: str, domain: str, table: str, ds: date) -> Contents:
    """List the partition: a platform-made file counts only when the manifest lists it, any other object always does."""
    stored = read_manifest(s3, bucket, domain, table, ds)
    objects = list(manifest_objects(bucket, stored))
    prefix = partition_prefix(domain, table, ds)
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        for item in page.get("Contents", []):
            key = item.get("Key", "")
            name = key.removeprefix(prefix)
            if not name.endswith(SUFFIX) or "/" in name or generation_of(name) is not None:
                continue
            head = s3.head_object(Bucket=bucket, Key=key)
            objects.append(
                ObjectVersion(
                    bucket,
                    key,
                    head["ETag"].strip('"'),
                    head.get("VersionId"),
                    bytes=head["ContentLength"],
                    event_at=head["LastModified"],
                )
            )
    return Contents(tuple(objects), 0 if stored is None else stored.manifest.generation)


def manifest_objects(bucket: str, stored: StoredManifest | None) -> tuple[ObjectVersion, ...]:
    """The files of a manifest as object versions."""
    if stored is None:
        return ()
    return tuple(
        ObjectVersion(
            bucket, file.key, file.etag, file.version_id, bytes=file.bytes, event_at=stored.manifest.created_at
        )
        for file in stored.manifest.files
    )
