"""What a partition should hold according to S3: the files its manifest lists, and the objects of foreign producers."""

from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

from data_platform.catalog.keys import SUFFIX, partition_prefix
from data_platform.catalog.models import Dataset
from data_platform.catalog.types import curated_schema
from data_platform.curation.manifest import PartitionManifest, StoredManifest, generation_of, read_manifest
from data_platform.curation.partition import schema_version
from data_platform.loading.footer import Footer
from data_platform.loading.register import ObjectVersion

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


@dataclass(frozen=True)
class Contents:
    """The object versions a partition consists of, and the manifest that lists the platform's among them."""

    objects: tuple[ObjectVersion, ...]
    manifest: PartitionManifest | None

    @property
    def curated_generation(self) -> int:
        """The generation of the manifest, 0 without one."""
        return 0 if self.manifest is None else self.manifest.generation


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
    return Contents(tuple(objects), None if stored is None else stored.manifest)


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


def manifest_footers(dataset: Dataset, manifest: PartitionManifest | None) -> dict[str, Footer]:
    """The footers of a manifest's files, by key, without reading them; none where they follow other columns than today.

    The manifest was committed by the writer of the files, and the insert reads only what has the ETag it lists.
    """
    if manifest is None:
        return {}
    schema = curated_schema(dataset)
    if manifest.schema_version != schema_version(schema):
        return {}
    return {file.key: Footer(schema, file.rows, file.bytes, file.uncompressed_bytes) for file in manifest.files}
