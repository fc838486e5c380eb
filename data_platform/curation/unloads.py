"""Curating one partition of a Redshift dataset: the proven files of its newest unload in, a committed partition out."""

from datetime import date
from typing import TYPE_CHECKING

from data_platform.catalog.models import Dataset
from data_platform.curation.manifest import PartitionSource, StoredManifest
from data_platform.curation.partition import SourceFile, curate_partition, read_batches
from data_platform.settings import Settings

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


def curate_unload(
    settings: Settings,
    s3: "S3Client",
    dataset: Dataset,
    ds: date,
    *,
    files: list[SourceFile],
    prefix: str,
    attempt: int,
) -> StoredManifest:
    """Write the partition's next generation from an unload attempt's files. Raises as `curate_partition`."""
    source = PartitionSource(
        kind="unload",
        reference=f"s3://{settings.unload_bucket}/{prefix}",
        version=f"attempt {attempt}",
        rows=sum(file.rows for file in files),
    )
    return curate_partition(s3, settings.curated_bucket, dataset, ds, read_batches(s3, files), lambda: source)
