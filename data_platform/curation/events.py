"""Curating one day of service events: raw OpenTelemetry logs in, a committed partition and a reject file out.

The folder's day is when a log was exported, the partition's day is when the event happened: a day is read from its own
folder and those of the following days.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import TYPE_CHECKING

from data_platform.catalog.models import Dataset, OtelLogsSource
from data_platform.curation.manifest import PartitionSource, StoredManifest
from data_platform.curation.otlp.reader import read_events
from data_platform.curation.partition import curate_partition
from data_platform.errors import ConfigurationError
from data_platform.settings import Settings

if TYPE_CHECKING:
    import pyarrow as pa
    from mypy_boto3_s3 import S3Client

LATE_DAYS = 2  # folders after the event's own day that are searched for it
REJECTED_PREFIX = "rejected"


@dataclass(frozen=True)
class CuratedEvents:
    """The committed partition, and how many records of the day's own folder were rejected."""

    stored: StoredManifest
    rejects: int


@dataclass
class _Reading:
    """What has been seen while the day's folders are read."""

    rows: int = 0
    objects: list[str] = field(default_factory=list[str])
    rejects: list[bytes] = field(default_factory=list[bytes])


def curate_events(settings: Settings, s3: "S3Client", dataset: Dataset, ds: date) -> CuratedEvents:
    """Write the day's events as the partition's next generation; what cannot be parsed goes to the day's reject file.

    Raises as `curate_partition`.
    """
    source = dataset.source
    if not isinstance(source, OtelLogsSource):
        raise ConfigurationError(f"{dataset.key} does not come from OpenTelemetry logs")
    reading = _Reading()
    reference = f"s3://{settings.raw_bucket}/{folder(source.prefix, ds)}"

    def describe() -> PartitionSource:
        digest = hashlib.sha256("\n".join(reading.objects).encode()).hexdigest()[:16]
        return PartitionSource(
            kind="otel_logs", reference=reference, version=f"{len(reading.objects)} objects {digest}", rows=reading.rows
        )

    batches = _events_of(s3, settings.raw_bucket, source.prefix, ds, reading)
    stored = curate_partition(s3, settings.curated_bucket, dataset, ds, batches, describe)
    _write_rejects(s3, settings.raw_bucket, source.prefix, ds, reading.rejects)
    return CuratedEvents(stored, len(reading.rejects))


def folder(prefix: str, day: date) -> str:
    """The exporter's folder of a day: `<prefix>/year=YYYY/month=MM/day=DD/`."""
    return f"{prefix}/year={day:%Y}/month={day:%m}/day={day:%d}/"


def _events_of(s3: "S3Client", bucket: str, prefix: str, ds: date, reading: _Reading) -> Iterator["pa.RecordBatch"]:
    import orjson
    import pyarrow.compute as pc

    for offset in range(LATE_DAYS + 1):
        day = ds + timedelta(days=offset)
        for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=folder(prefix, day)):
            for item in page.get("Contents", []):
                key = item.get("Key", "")
                body = s3.get_object(Bucket=bucket, Key=key)["Body"]
                reading.objects.append(f"{key} {item.get('ETag')}")
                for found in read_events(body, key):  # pyright: ignore[reportArgumentType] - a readable stream
                    if offset == 0:
                        reading.rejects.extend(orjson.dumps(reject) for reject in found.rejects)
                    batch = found.batch.filter(pc.equal(found.batch.column("event_date"), ds))  # pyright: ignore[reportAttributeAccessIssue]
                    reading.rows += batch.num_rows
                    yield batch


def _write_rejects(s3: "S3Client", bucket: str, prefix: str, ds: date, rejects: list[bytes]) -> None:
    """One JSON line a reject, replaced by each run of the day; none, no file."""
    key = f"{REJECTED_PREFIX}/{folder(prefix, ds)}rejects.jsonl"
    if rejects:
        s3.put_object(Bucket=bucket, Key=key, Body=b"\n".join(rejects) + b"\n", ContentType="application/x-ndjson")
    else:
        s3.delete_object(Bucket=bucket, Key=key)
