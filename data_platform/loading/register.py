"""The register in ClickHouse: which object versions a table partition holds, and the partition's generation.

Thin reads and appends; every change of state is a row of its own (see sql/platform_tables.sql). Deciding what a state
means is the loader's and the rebuild's work.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from enum import StrEnum
from typing import TYPE_CHECKING

from data_platform.catalog.keys import object_identity

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

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
    attempts: int = 0
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


@dataclass
class Register:
    """Reads and writes `platform.objects` and `platform.partitions` for one worker."""

    client: "Client"
    worker: str
    _last_revision: int = field(default=0, init=False)

    def partition(self, partition: TablePartition) -> PartitionRecord:
        """The newest generation of a table partition and whether its swap is unfinished."""
        rows = self.client.query(
            "SELECT generation, state, curated_generation, rows, revision FROM platform.partitions "
            "WHERE domain = {domain:String} AND table = {table:String} AND ds = {ds:Date} "
            "ORDER BY generation DESC, revision DESC LIMIT 1",
            parameters=_key(partition),
        ).result_rows
        if not rows:
            return PartitionRecord()
        generation, state, curated, count, revision = rows[0]
        self._seen(int(revision))
        return PartitionRecord(int(generation), state == "replacing", int(curated), int(count))

    def objects(self, partition: TablePartition) -> dict[str, ObjectRecord]:
        """The newest row of every object version ever seen in the partition, by identity."""
        rows = self.client.query(
            "SELECT object, bucket, key, version, etag, sequencer, bytes, state, generation, rows, plan, query_id, "
            "attempts, code, reason, event_at, started_at, finished_at, revision FROM platform.objects "
            "WHERE domain = {domain:String} AND table = {table:String} AND ds = {ds:Date} "
            "ORDER BY revision DESC LIMIT 1 BY object",
            parameters=_key(partition),
        ).result_rows
        for row in rows:
            self._seen(int(row[-1]))
        return {str(row[0]): _record(row[:-1]) for row in rows}

    def write(self, partition: TablePartition, records: Sequence[ObjectRecord]) -> None:
        """Append the new states, one insert for all."""
        if not records:
            return
        data = [
            [
                *(partition.domain, partition.table, partition.ds, record.version.identity, self._revision()),
                *(record.state.value, record.version.bucket, record.version.key, record.version.version),
                *(record.version.etag, record.version.sequencer, record.generation, record.rows, record.version.bytes),
                *(record.plan, record.query_id, record.attempts, record.code, record.reason),
                *(record.version.event_at, record.started_at, record.finished_at, self.worker),
            ]
            for record in records
        ]
        columns = [
            *("domain", "table", "ds", "object", "revision", "state", "bucket", "key", "version", "etag", "sequencer"),
            *("generation", "rows", "bytes", "plan", "query_id", "attempts", "code", "reason"),
            *("event_at", "started_at", "finished_at", "worker"),
        ]
        self.client.insert("platform.objects", data, column_names=columns)

    def write_partition(self, partition: TablePartition, record: PartitionRecord, *, objects: int) -> None:
        """Append a partition's new generation: `replacing` ahead of the swap, `done` behind it."""
        self.client.insert(
            "platform.partitions",
            [
                [
                    *(partition.domain, partition.table, partition.ds, record.generation),
                    *("replacing" if record.replacing else "done", self._revision(), record.curated_generation),
                    *(record.rows, objects, self.worker, datetime.now(UTC)),
                ]
            ],
            column_names=[
                *("domain", "table", "ds", "generation", "state", "revision", "curated_generation", "rows", "objects"),
                *("worker", "changed_at"),
            ],
        )

    def _seen(self, revision: int) -> None:
        """What was read is older than what is written next, whatever the clocks of the workers say."""
        self._last_revision = max(self._last_revision, revision)

    def _revision(self) -> int:
        """Nanoseconds since 1970, strictly increasing within this worker."""
        self._last_revision = max(time.time_ns(), self._last_revision + 1)
        return self._last_revision


def finished(record: ObjectRecord, state: State, **changes: object) -> ObjectRecord:
    """The record in its final state, finished now."""
    return replace(record, state=state, finished_at=datetime.now(UTC), **changes)  # pyright: ignore[reportArgumentType]


def _key(partition: TablePartition) -> dict[str, object]:
    return {"domain": partition.domain, "table": partition.table, "ds": partition.ds}


def _record(row: Sequence[object]) -> ObjectRecord:
    (_, bucket, key, version, etag, sequencer, size, state, generation, rows, plan, query_id, attempts, code, reason,
     event_at, started_at, finished_at) = row  # fmt: skip
    return ObjectRecord(
        ObjectVersion(
            str(bucket),
            str(key),
            str(etag),
            None if version == etag else str(version),
            str(sequencer),
            int(size),  # pyright: ignore[reportArgumentType]
            event_at,  # pyright: ignore[reportArgumentType]
        ),
        State(str(state)),
        int(generation),  # pyright: ignore[reportArgumentType]
        int(rows),  # pyright: ignore[reportArgumentType]
        str(plan),
        str(query_id),
        int(attempts),  # pyright: ignore[reportArgumentType]
        str(code),
        str(reason),
        started_at,  # pyright: ignore[reportArgumentType]
        finished_at,  # pyright: ignore[reportArgumentType]
    )
