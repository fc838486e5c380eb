"""Curating one day of service events: raw OpenTelemetry logs in, a committed partition out.

The folder's day is when a log was exported, the partition's day is when the event happened: the event index tells which
objects have events of a day, in whatever folder they lie.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

from data_platform.catalog.models import Dataset, OtelLogsSource
from data_platform.curation.event_index import EventIndex, refresh_index
from data_platform.curation.manifest import PartitionSource, StoredManifest, read_manifest
from data_platform.curation.otlp.reader import read_events
from data_platform.curation.partition import curate_partition
from data_platform.errors import ConfigurationError, PlatformError, TransientError
from data_platform.settings import Settings

if TYPE_CHECKING:
    import pyarrow as pa
    from mypy_boto3_s3 import S3Client


@dataclass(frozen=True)
class CuratedEvents:
    """The committed partition, and how many records of the day's own folder were rejected."""

    stored: StoredManifest
    rejects: int


def curate_events(settings: Settings, s3: "S3Client", dataset: Dataset, ds: date) -> CuratedEvents:
    """Write the day's events as the partition's next generation; what cannot be parsed lies in the reject files.

    Raises as `curate_partition`; TransientError when an object changed since it was indexed, PlatformError when it is
    gone.
    """
    prefix = _prefix(dataset)
    index = refresh_index(s3, settings.raw_bucket, prefix)
    keys = index.days().get(ds, [])
    source = PartitionSource(
        kind="otel_logs",
        reference=f"s3://{settings.raw_bucket}/{prefix}/",
        version=index.version(keys),
        rows=sum(index.objects[key].days[ds] for key in keys),
    )
    batches = _events_of(s3, settings.raw_bucket, index, keys, ds)
    stored = curate_partition(s3, settings.curated_bucket, dataset, ds, batches, lambda: source)
    return CuratedEvents(stored, index.rejects(folder(prefix, ds)))


def stale_days(settings: Settings, s3: "S3Client", dataset: Dataset) -> list[date]:
    """Days whose curated partition is not made of the objects that have events of them now, oldest first.

    New objects with late events and replaced objects show here; logs that expired do not. Days before the dataset's
    start are left out.
    """
    index = refresh_index(s3, settings.raw_bucket, _prefix(dataset))
    return [day for day in index.days() if staleness(settings, s3, dataset, index, day) is not None]


@dataclass(frozen=True)
class Stale:
    """A day to curate: what it would be made of now, and whether it was ever made."""

    version: str
    made: bool


def staleness(settings: Settings, s3: "S3Client", dataset: Dataset, index: EventIndex, day: date) -> Stale | None:
    """Whether a day's curated partition is made of other objects than the index has for it; None where it is not."""
    keys = index.days().get(day, [])
    if not keys or day < (dataset.start or date.min):
        return None
    stored = read_manifest(s3, settings.curated_bucket, dataset.domain, dataset.name, day)
    version = index.version(keys)
    if stored is not None and stored.manifest.source.version == version:
        return None
    return Stale(version, stored is not None)


def folder(prefix: str, day: date) -> str:
    """The exporter's folder of a day: `<prefix>/year=YYYY/month=MM/day=DD/`."""
    return f"{prefix}/year={day:%Y}/month={day:%m}/day={day:%d}/"


def _prefix(dataset: Dataset) -> str:
    if not isinstance(dataset.source, OtelLogsSource):
        raise ConfigurationError(f"{dataset.key} does not come from OpenTelemetry logs")
    return dataset.source.prefix


def _events_of(
    s3: "S3Client", bucket: str, index: EventIndex, keys: Sequence[str], ds: date
) -> Iterator["pa.RecordBatch"]:
    import pyarrow.compute as pc
    from botocore.exceptions import ClientError

    for key in keys:
        try:
            body = s3.get_object(Bucket=bucket, Key=key, IfMatch=f'"{index.objects[key].etag}"')["Body"]
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code")
            where = f"s3://{bucket}/{key}"
            if code in {"PreconditionFailed", "412"}:
                raise TransientError(f"{where} changed since it was indexed", hint="run the partition again") from None
            if code in {"NoSuchKey", "404"}:
                raise PlatformError(
                    f"{where} is gone, and {ds} cannot be made without it",
                    hint="restore it from an earlier version. To go on without its events, delete its month under "
                    "event-index/ in the same bucket: the index is built anew from what is there",
                ) from None
            raise
        for found in read_events(body, key):  # pyright: ignore[reportArgumentType] - a readable stream
            yield found.batch.filter(pc.equal(found.batch.column("event_date"), ds))  # pyright: ignore[reportAttributeAccessIssue]
