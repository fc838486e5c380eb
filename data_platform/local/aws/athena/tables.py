"""A Glue table as files: which objects belong to it, in which partitions, and what a query over it may leave out.

Partitions are projected (`projection.*` with a location template) or registered one by one, as in AWS.
"""

import bisect
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.glue.models import glue_backends

from data_platform.local.aws.athena.errors import QueryFailedError
from data_platform.local.aws.objects import KeyStore, StoredKey
from data_platform.local.aws.store import backend

REGION = "us-east-1"
JODA = (("yyyy", "%Y"), ("MM", "%m"), ("dd", "%d"), ("HH", "%H"), ("mm", "%M"), ("ss", "%S"))
UNITS = {"DAY": timedelta(days=1), "HOUR": timedelta(hours=1), "MINUTE": timedelta(minutes=1), "WEEK": timedelta(7)}


@dataclass(frozen=True)
class DataFile:
    """An object of a table: its URL, the file its bytes are in, the values of the partition keys as text."""

    url: str
    blob: str
    size: int
    partition: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """What Glue says of a table; types are Hive's, in lower case."""

    database: str
    name: str
    columns: tuple[tuple[str, str], ...]
    keys: tuple[tuple[str, str], ...]
    location: str
    parameters: Mapping[str, str]
    partitions: Sequence[tuple[tuple[str, ...], str]] = field(default=())  # values and location of the registered ones

    @property
    def projected(self) -> bool:
        """Whether its partitions follow from its parameters."""
        return self.parameters.get("projection.enabled", "").lower() == "true"


def table_called(database: str, name: str) -> Table | None:
    """The table, None where Glue has none of this name."""
    known = glue_backends[DEFAULT_ACCOUNT_ID][REGION].databases.get(database)
    found = None if known is None else known.tables.get(name)
    if found is None:
        return None
    described: dict[str, Any] = found.as_dict()
    storage = described.get("StorageDescriptor", {})

    def columns(entries: Sequence[Mapping[str, str]]) -> tuple[tuple[str, str], ...]:
        return tuple((entry["Name"].lower(), entry["Type"].lower()) for entry in entries)

    return Table(
        database,
        name,
        columns(storage.get("Columns", [])),
        columns(described.get("PartitionKeys", [])),
        str(storage.get("Location", "")),
        described.get("Parameters") or {},
        [
            (tuple(map(str, each.values)), str(each.partition_input.get("StorageDescriptor", {}).get("Location", "")))
            for each in found.partitions.values()
        ],
    )


def files_of(table: Table) -> Iterator[DataFile]:
    """Every data file of the table; names that begin with `_` or `.` are hidden, empty objects are folders."""
    if not table.keys:
        yield from _below(table.location, ())
    elif table.projected:
        yield from _projected(table)
    else:
        for values, location in table.partitions:
            yield from _below(location, values)


def objects_below(location: str) -> Iterator[tuple[str, StoredKey]]:
    """Keys and objects below an S3 URL (with its closing slash)."""
    bucket_name, prefix = split_url(location)
    bucket = backend().buckets.get(bucket_name)
    if bucket is None:
        raise QueryFailedError("NoSuchBucket", f"The specified bucket does not exist: {bucket_name}")
    store = cast("KeyStore", bucket.keys)
    names = store.names()
    for key in names[bisect.bisect_left(names, prefix) :]:
        if not key.startswith(prefix):
            return
        versions = store.getlist(key, [])
        if versions and isinstance(versions[-1], StoredKey):
            yield key, versions[-1]


def split_url(url: str) -> tuple[str, str]:
    """Bucket and key of an S3 URL."""
    bucket, _, key = re.sub(r"^s3[an]?://", "", url).partition("/")
    return bucket, key


def _below(location: str, partition: tuple[str, ...]) -> Iterator[DataFile]:
    place = f"{location.rstrip('/')}/"
    bucket, _ = split_url(place)
    for key, entry in objects_below(place):
        if entry.contentsize and not key.rpartition("/")[2].startswith(("_", ".")):
            yield DataFile(f"s3://{bucket}/{key}", entry.blob, entry.contentsize, partition)


def _projected(table: Table) -> Iterator[DataFile]:
    """The files whose place fits the location template with values that the projection has."""
    base = f"{table.location.rstrip('/')}/"
    names = [name for name, _ in table.keys]
    template = table.parameters.get("storage.location.template") or base + "/".join(f"{n}=${{{n}}}" for n in names)
    pieces = re.split(r"\$\{(\w+)\}", f"{template.rstrip('/')}/")
    pattern = "".join(
        re.escape(piece) if number % 2 == 0 else f"(?P<{piece}>[^/]+?)" for number, piece in enumerate(pieces)
    )
    matcher = re.compile(pattern)
    checks = [_Projection(table, name) for name in names]
    for file in _below(pieces[0].rpartition("/")[0], ()):
        match = matcher.match(file.url)
        if match is not None:
            values = tuple(match[name] for name in names)
            if all(check.has(value) for check, value in zip(checks, values, strict=True)):
                yield DataFile(file.url, file.blob, file.size, values)


class _Projection:
    """The values one partition key can have."""

    def __init__(self, table: Table, name: str) -> None:
        def parameter(what: str, default: str | None = None) -> str:
            value = table.parameters.get(f"projection.{name}.{what}", default)
            if value is None:
                raise QueryFailedError("INVALID_TABLE_PROPERTY", f"projection.{name}.{what} is missing")
            return value

        self.kind = parameter("type").lower()
        self.name = name
        match self.kind:
            case "enum":
                self.values = {value.strip() for value in parameter("values").split(",")}
            case "integer":
                self.low, self.high = map(int, parameter("range").split(","))
                self.digits = int(parameter("digits", "0"))
                self.step = int(parameter("interval", "1"))
            case "date":
                self.format = parameter("format", "yyyy-MM-dd")
                for joda, ours in JODA:
                    self.format = self.format.replace(joda, ours)
                self.first, self.last = (self._moment(text.strip()) for text in parameter("range").split(","))
            case "injected":
                pass
            case _:
                raise QueryFailedError("INVALID_TABLE_PROPERTY", f"projection.{name}.type {self.kind} is none")

    def has(self, value: str) -> bool:
        """Whether the projection has this value."""
        match self.kind:
            case "enum":
                return value in self.values
            case "integer":
                if not value.isdigit():
                    return False
                number = int(value)
                fits = self.low <= number <= self.high and (number - self.low) % self.step == 0
                return fits and value == str(number).zfill(self.digits)
            case "date":
                try:
                    return self.first <= datetime.strptime(value, self.format).replace(tzinfo=UTC) <= self.last
                except ValueError:
                    return False
            case _:
                return True

    def _moment(self, text: str) -> datetime:
        now = re.fullmatch(r"NOW\s*(?:([+-])\s*(\d+)\s*(DAY|HOUR|MINUTE|WEEK|MONTH|YEAR)S?)?", text)
        if now is None:
            return datetime.strptime(text, self.format).replace(tzinfo=UTC)
        at = datetime.now(UTC)
        if now[1] is None:
            return at
        unit = UNITS.get(now[3]) or timedelta(days=31 if now[3] == "MONTH" else 366)
        return at + (1 if now[1] == "+" else -1) * int(now[2]) * unit
