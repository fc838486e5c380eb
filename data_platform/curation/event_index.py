"""Which days the events of each raw log object belong to, kept beside the logs: lateness of any length is found.

An object's folder tells when it was exported; only its content tells when its events happened. Every object is decoded
once for this index: a month of folders is one JSON file under `event-index/`. Its rejects are written on the way.
"""

import hashlib
import re
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from math import inf
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, ValidationError

from data_platform.curation.otlp.reader import read_events
from data_platform.errors import PlatformError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

INDEX_PREFIX = "event-index"
REJECTED_PREFIX = "rejected"
_FOLDER = re.compile(r"/(?P<month>year=\d{4}/month=\d{2})/day=\d{2}/")


class IndexedObject(BaseModel):
    """One log object: its version, its events by UTC day, its rejects."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    etag: str
    days: Mapping[date, int]
    rejects: int = 0


class IndexedMonth(BaseModel):
    """The objects of a month's folders, by key."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = 1
    objects: Mapping[str, IndexedObject]


@dataclass(frozen=True)
class EventIndex:
    """All log objects under a prefix, by key; not `complete` where the time was over before all were decoded."""

    objects: Mapping[str, IndexedObject]
    complete: bool = True

    def days(self) -> Mapping[date, list[str]]:
        """The keys of the objects with events of each day, in order."""
        return self._days

    @cached_property
    def _days(self) -> Mapping[date, list[str]]:
        found: dict[date, list[str]] = defaultdict(list)
        for key in sorted(self.objects):
            for day in self.objects[key].days:
                found[day].append(key)
        return dict(sorted(found.items()))

    def version(self, keys: list[str]) -> str:
        """What a partition made of these objects is made of: their number, and a digest of keys and ETags."""
        text = "\n".join(f"{key} {self.objects[key].etag}" for key in keys)
        return f"{len(keys)} objects {hashlib.sha256(text.encode()).hexdigest()[:16]}"

    def rejects(self, folder: str) -> int:
        """Rejects in the objects of a folder."""
        return sum(each.rejects for key, each in self.objects.items() if key.startswith(folder))


@dataclass(frozen=True)
class IndexCache:
    """Months as they were read last, with their ETags: who looks often parses only what has changed."""

    months: dict[str, tuple[str, Mapping[str, IndexedObject]]] = field(
        default_factory=dict[str, tuple[str, Mapping[str, IndexedObject]]]
    )


def refresh_index(
    s3: "S3Client",
    bucket: str,
    prefix: str,
    *,
    months: Collection[str] | None = None,
    until: float = inf,
    cache: IndexCache | None = None,
) -> EventIndex:
    """The index of everything under `prefix`; objects that are new or changed are decoded.

    What is gone stays in the index, also where a month has nothing left: logs that expire must not make their days look
    changed. Two refreshes at once both end in the right index: a lost entry is only decoded again.

    `months` (`month_of` a key): only these are looked through for new objects, the others stay as they were indexed.
    From `until` (`time.monotonic()`) on nothing more is decoded; the next refresh goes on there.
    """
    stored = _stored_months(s3, bucket, prefix)
    found: dict[str, dict[str, str]] = {month: {} for month in stored}
    for place in ("",) if months is None else [f"{month}/" for month in sorted(months)]:
        for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{prefix}/{place}"):
            for item in page.get("Contents", []):
                key = item.get("Key", "")
                month = month_of(key)
                if month is not None and item.get("Size", 0):
                    found.setdefault(month, {})[key] = item.get("ETag", "").strip('"')
    reader = _Months(s3, bucket, prefix, stored, until, cache or IndexCache())
    objects: dict[str, IndexedObject] = {}
    for month, etags in sorted(found.items()):
        objects |= reader.refreshed(month, etags)
    return EventIndex(objects, complete=all(key in objects for etags in found.values() for key in etags))


def month_of(key: str) -> str | None:
    """The month's folder that a log lies in, `year=YYYY/month=MM`; None where it lies in none."""
    folder = _FOLDER.search(key)
    return None if folder is None else folder["month"]


def _stored_months(s3: "S3Client", bucket: str, prefix: str) -> dict[str, str]:
    """The months that are indexed, with the ETags of their files."""
    root = f"{INDEX_PREFIX}/{prefix}/"
    stored: dict[str, str] = {}
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=root):
        for item in page.get("Contents", []):
            month = item.get("Key", "").removeprefix(root).removesuffix(".json")
            if month_of(f"/{month}/day=01/") == month:
                stored[month] = item.get("ETag", "")
    return stored


@dataclass(frozen=True)
class _Months:
    """The months of an index; `stored` tells the ETags of those that are there."""

    s3: "S3Client"
    bucket: str
    prefix: str
    stored: Mapping[str, str]
    until: float
    cache: IndexCache

    def refreshed(self, month: str, etags: Mapping[str, str]) -> Mapping[str, IndexedObject]:
        """The month with the objects of these ETags decoded, as far as the time goes, and written back."""
        key = f"{INDEX_PREFIX}/{self.prefix}/{month}.json"
        known = self._known(key, self.stored.get(month))
        current = {name: each for name, each in known.items() if etags.get(name, each.etag) == each.etag}
        decoded = 0
        for name in [name for name in etags if name not in current]:
            if time.monotonic() >= self.until:
                break
            current[name] = _decode(self.s3, self.bucket, name, etags[name])
            decoded += 1
        if not decoded:
            return current
        body = IndexedMonth(objects=dict(sorted(current.items()))).model_dump_json().encode()
        self.s3.put_object(Bucket=self.bucket, Key=key, Body=body, ContentType="application/json")
        return current

    def _known(self, key: str, etag: str | None) -> Mapping[str, IndexedObject]:
        if etag is None:
            return {}
        kept = self.cache.months.get(key)
        if kept is None or kept[0] != etag:
            kept = self.cache.months[key] = etag, _read(self.s3, self.bucket, key)
        return kept[1]


def _decode(s3: "S3Client", bucket: str, key: str, etag: str) -> IndexedObject:
    """Count the events of an object by day and write its reject file, or remove one that is no longer true."""
    import orjson
    import pyarrow.compute as pc

    days: Counter[date] = Counter()
    rejects: list[bytes] = []
    body = s3.get_object(Bucket=bucket, Key=key)["Body"]
    for found in read_events(body, key):  # pyright: ignore[reportArgumentType] - a readable stream
        rejects.extend(orjson.dumps(reject) for reject in found.rejects)
        counts = pc.value_counts(found.batch.column("event_date"))  # pyright: ignore[reportAttributeAccessIssue]
        for each in counts.to_pylist():
            days[each["values"]] += each["counts"]
    reject_key = f"{REJECTED_PREFIX}/{key}.jsonl"
    if rejects:
        s3.put_object(
            Bucket=bucket, Key=reject_key, Body=b"\n".join(rejects) + b"\n", ContentType="application/x-ndjson"
        )
    else:
        s3.delete_object(Bucket=bucket, Key=reject_key)
    return IndexedObject(etag=etag, days=dict(sorted(days.items())), rejects=len(rejects))


def _read(s3: "S3Client", bucket: str, key: str) -> Mapping[str, IndexedObject]:
    from botocore.exceptions import ClientError

    try:
        body = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") in {"NoSuchKey", "404"}:
            return {}
        raise
    try:
        return IndexedMonth.model_validate_json(body).objects
    except ValidationError as error:
        raise PlatformError(
            f"s3://{bucket}/{key} is no event index: {error.errors()[0]['msg']}",
            hint="delete it: it is derived from the logs and made again",
        ) from None
