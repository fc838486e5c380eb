"""The curated events as their manifests list them: which UTC days there are, which changed, which files to read."""

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from typing import TYPE_CHECKING

from data_platform.analytics.athena.state import Source
from data_platform.analytics.days import days_touched, local_days
from data_platform.catalog.keys import KeyFormatError, parse_partition
from data_platform.catalog.models import Service
from data_platform.curation.manifest import MANIFEST_FILE, read_manifest

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

DOMAIN, TABLE = "analytics", "events"
READERS = 8


def current_sources(s3: "S3Client", bucket: str, known: Mapping[date, Source]) -> dict[date, Source]:
    """The partitions with files; a manifest that is as `known` is not read again."""
    prefix = f"{DOMAIN}/{TABLE}/"
    etags: dict[date, str] = {}
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        for item in page.get("Contents", []):
            partition, _, file = item.get("Key", "").removeprefix(prefix).partition("/")
            if file == MANIFEST_FILE:
                try:
                    etags[parse_partition(partition)] = item.get("ETag", "").strip('"')
                except KeyFormatError:
                    continue  # nobody's partition
    fresh = [ds for ds, etag in etags.items() if ds not in known or known[ds].etag != etag]
    with ThreadPoolExecutor(READERS) as pool:
        read = dict(zip(fresh, pool.map(lambda ds: _read(s3, bucket, ds), fresh), strict=True))
    found = {ds: read.get(ds) or known[ds] for ds in etags if read.get(ds) or ds in known}
    return {ds: source for ds, source in sorted(found.items()) if source.files}


def changed_days(service: Service, found: Mapping[date, Source], built: Mapping[date, Source]) -> set[date]:
    """The local days that have a part in a partition which came, went or was replaced."""
    changed = {ds for ds in found.keys() | built.keys() if found.get(ds) != built.get(ds)}
    return days_touched(service.time_zone, changed)


def partitions_of(service: Service, days: Iterable[date], found: Mapping[date, Source]) -> list[date]:
    """The partitions in which events of the local days may lie, ascending."""
    wanted: set[date] = set()
    for day in days:
        first, last = local_days(service.time_zone, day, day).utc_days({day}) if _exists(service, day) else (day, day)
        wanted |= {ds for ds in (first, last, day) if ds in found}
        wanted |= {ds for ds in found if first <= ds <= last}
    return sorted(wanted)


def _exists(service: Service, day: date) -> bool:
    """Whether the zone has this day: one that crosses the date line leaves one out."""
    return day in local_days(service.time_zone, day, day).labels


def _read(s3: "S3Client", bucket: str, ds: date) -> Source | None:
    stored = read_manifest(s3, bucket, DOMAIN, TABLE, ds)
    if stored is None:
        return None
    files = tuple(sorted(f"s3://{bucket}/{file.key}" for file in stored.manifest.files))
    return Source(etag=stored.etag, files=files, bytes=stored.manifest.bytes)
