"""The register's records, as the loader holds them: a table partition, an object version, what became of it.

Belongs here: values. Does not: the tables they stand in (register.py), what they mean for an event (decide.py).
"""

from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from enum import StrEnum

from data_platform.catalog.keys import object_identity

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class State(StrEnum):
    """State of an object version in a table partition."""

    INTENT = "intent"  # written ahead of the insert: rows may or may not be there
    LOADED = "loaded"
    REMOVED = "removed"  # its rows were replaced, or it is not part of the partition any more
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class TablePartition:
    """One partition of one target table."""

    domain: str
    table: str
    ds: date

    @property
    def name(self) -> str:
        """`<domain>.<table>/<day>`: the name of its lock."""
        return f"{self.domain}.{self.table}/{self.ds.isoformat()}"


@dataclass(frozen=True, slots=True)
class ObjectVersion:
    """One version of one S3 object. Identity: bucket, key, and the version id, else the ETag."""

    bucket: str
    key: str
    etag: str
    version_id: str | None = None
    sequencer: str = ""
    bytes: int = 0
    event_at: datetime = EPOCH

    @property
    def version(self) -> str:
        """What tells this version from others of its key; a version id "null" is none."""
        return self.version_id if self.version_id not in {None, "", "null"} else self.etag  # pyright: ignore[reportReturnType]

    @property
    def identity(self) -> str:
        """The text in `_object` of its rows."""
        return object_identity(self.bucket, self.key, self.version)


@dataclass(frozen=True, slots=True)
class ObjectRecord:
    """The newest row of an object version."""

    version: ObjectVersion
    state: State
    generation: int
    rows: int = 0
    plan: str = ""
    query_id: str = ""
    attempts: int = 0  # failures that counted
    starts: int = 0  # intents since something was last known of it; a crash leaves one behind
    code: str = ""
    reason: str = ""
    started_at: datetime = EPOCH
    finished_at: datetime = EPOCH


@dataclass(frozen=True, slots=True)
class PartitionRecord:
    """The newest row of a table partition; generation 0 before the first rebuild."""

    generation: int = 0
    replacing: bool = False
    curated_generation: int = 0
    rows: int = 0


def finished(record: ObjectRecord, state: State, **changes: object) -> ObjectRecord:
    """The record in its final state, finished now."""
    return replace(record, state=state, finished_at=datetime.now(UTC), **changes)  # pyright: ignore[reportArgumentType]
