"""The register in ClickHouse: which object versions a table partition holds, and the partition's generation.

Thin reads and appends; every change of state is a row of its own (see sql/platform_tables.sql). Deciding what a state
means is the loader's and the rebuild's work. The state of an object is its newest row by generation, then by revision:
what a worker that lost its lease writes late belongs to an older generation and changes nothing.
"""

import json
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from data_platform.clients import clickhouse
from data_platform.clients.retry import retrying
from data_platform.errors import Fault
from data_platform.loading.convoy import Convoy
from data_platform.loading.records import (
    ObjectRecord,
    ObjectVersion,
    PartitionRecord,
    State,
    TablePartition,
    finished,
)

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

__all__ = [
    "ObjectRecord",
    "ObjectVersion",
    "PartitionRecord",
    "Register",
    "State",
    "TablePartition",
    "finished",
]


@dataclass
class Register:
    """Reads and writes `platform.objects` and `platform.partitions` for one worker."""

    client: "Client"
    worker: str
    _last_revision: int = field(default=0, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)
    _objects: Convoy[Mapping[str, object]] = field(init=False)

    def __post_init__(self) -> None:
        self._objects = Convoy(partial(self._append, "platform.objects"))

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

    def objects(
        self, partition: TablePartition, keys: Collection[str] | None = None, *, bucket: str = ""
    ) -> dict[str, ObjectRecord]:
        """The newest row of every object version ever seen in the partition, or of those of `keys`, by identity.

        With `keys` the sorting key finds the rows between the first and the last of them: the cost does not grow with
        the objects of the partition where keys that come together have names that sort together.
        """
        chosen, parameters = "", _key(partition)
        if keys is not None:
            if not keys:
                return {}
            prefixes = [f"s3://{bucket}/{key}@" for key in keys]
            chosen = "AND object >= {least:String} AND object < {most:String} AND key IN {keys:Array(String)}"
            parameters |= {
                "least": min(prefixes),
                "most": max(f"{prefix}{_AFTER_ALL}" for prefix in prefixes),
                "keys": sorted(keys),
            }
        rows = self.client.query(
            f"SELECT {', '.join(_READ)} FROM platform.objects "
            f"WHERE domain = {{domain:String}} AND table = {{table:String}} AND ds = {{ds:Date}} {chosen} "
            "ORDER BY generation DESC, revision DESC LIMIT 1 BY object",
            parameters=parameters,
        ).result_rows
        for row in rows:
            self._seen(int(row[-1]))
        return {str(row[0]): _record(row) for row in rows}

    def size(self, partition: TablePartition) -> int:
        """How many states of objects the partition has: not fewer than its objects. Counted by the index alone."""
        return int(
            str(
                self.client.command(
                    "SELECT count() FROM platform.objects "
                    "WHERE domain = {domain:String} AND table = {table:String} AND ds = {ds:Date}",
                    parameters=_key(partition),
                )
            )
        )

    def curated_generation(self, partition: TablePartition) -> int:
        """The newest generation of the platform's own files the partition holds; 0 when it holds none."""
        return int(
            str(
                self.client.command(
                    "SELECT max(toUInt32OrZero(extract(key, '/g([0-9]{6,})-[a-z0-9]+-[0-9]{5}[.]parquet$'))) FROM ("
                    "SELECT key, state FROM platform.objects "
                    "WHERE domain = {domain:String} AND table = {table:String} AND ds = {ds:Date} "
                    "ORDER BY generation DESC, revision DESC LIMIT 1 BY object) WHERE state = 'loaded'",
                    parameters=_key(partition),
                )
            )
        )

    def write(self, partition: TablePartition, records: Sequence[ObjectRecord]) -> None:
        """Append the new states, one insert for all, and for what other threads append meanwhile."""
        if not records:
            return
        place = {"domain": partition.domain, "table": partition.table, "ds": partition.ds.isoformat()}
        self._objects.append([place | self._row(record) for record in records])

    def write_partition(self, partition: TablePartition, record: PartitionRecord, *, objects: int) -> None:
        """Append a partition's new generation: `replacing` ahead of the swap, `done` behind it."""
        row = {
            "domain": partition.domain,
            "table": partition.table,
            "ds": partition.ds.isoformat(),
            "generation": record.generation,
            "state": "replacing" if record.replacing else "done",
            "revision": self._revision(),
            "curated_generation": record.curated_generation,
            "rows": record.rows,
            "objects": objects,
            "worker": self.worker,
            "changed_at": _time(datetime.now(UTC)),
        }
        self._append("platform.partitions", [row])

    def _row(self, record: ObjectRecord) -> dict[str, object]:
        version = record.version
        return {
            "object": version.identity,
            "revision": self._revision(),
            "state": record.state.value,
            "bucket": version.bucket,
            "key": version.key,
            "version": version.version,
            "etag": version.etag,
            "sequencer": version.sequencer,
            "generation": record.generation,
            "rows": record.rows,
            "bytes": version.bytes,
            "plan": record.plan,
            "query_id": record.query_id,
            "attempts": record.attempts,
            "starts": record.starts,
            "code": record.code,
            "reason": record.reason,
            "event_at": _time(version.event_at),
            "started_at": _time(record.started_at),
            "finished_at": _time(record.finished_at),
            "worker": self.worker,
        }

    def _append(self, table: str, rows: Sequence[Mapping[str, object]]) -> None:
        """One insert. Every row has a revision of its own, so repeating it after an unknown outcome changes nothing."""
        body = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode()

        def send() -> None:
            # Not `client.insert`: it describes the table before every insert.
            self.client.raw_insert(
                table,
                column_names=list(rows[0]),
                insert_block=body,
                fmt="JSONEachRow",
                settings={"async_insert": 0, "max_threads": 1, "date_time_input_format": "best_effort"},
            )

        retrying(send, _repeatable, attempts=3, base_s=0.1, cap_s=1.0)

    def _seen(self, revision: int) -> None:
        """What was read is older than what is written next, whatever the clocks of the workers say."""
        with self._lock:
            self._last_revision = max(self._last_revision, revision)

    def _revision(self) -> int:
        """Nanoseconds since 1970, strictly increasing within this worker."""
        with self._lock:
            self._last_revision = max(time.time_ns(), self._last_revision + 1)
            return self._last_revision


def nothing_known(partition: TablePartition) -> tuple[str, dict[str, Any]]:
    """SQL, with its parameters, of whether nothing was ever written down of a partition. The index alone answers it.

    Both tables are asked: a partition that was rebuilt while it was empty has a generation and no objects.
    """
    where = "WHERE domain = {domain:String} AND table = {table:String} AND ds = {ds:Date}"
    counts = " + ".join(f"(SELECT count() FROM platform.{table} {where})" for table in ("objects", "partitions"))
    return f"{counts} = 0", _key(partition)


def _key(partition: TablePartition) -> dict[str, Any]:
    return {"domain": partition.domain, "table": partition.table, "ds": partition.ds}


_READ = (
    *("object", "bucket", "key", "version", "etag", "sequencer", "bytes", "state", "generation", "rows", "plan"),
    *("query_id", "attempts", "starts", "code", "reason", "event_at", "started_at", "finished_at", "revision"),
)
_AFTER_ALL = "\U0010ffff"  # sorts behind whatever a version id holds


def _repeatable(error: BaseException) -> Fault:
    """An append of the register may be repeated although it may have happened."""
    fault = clickhouse.classify(error)
    return Fault.TRANSIENT if fault is Fault.UNKNOWN else fault


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]


def _record(row: Sequence[Any]) -> ObjectRecord:
    told = dict(zip(_READ, row, strict=True))
    version = ObjectVersion(
        str(told["bucket"]),
        str(told["key"]),
        str(told["etag"]),
        None if told["version"] == told["etag"] else str(told["version"]),
        str(told["sequencer"]),
        int(told["bytes"]),
        told["event_at"],
    )
    return ObjectRecord(
        version,
        State(str(told["state"])),
        int(told["generation"]),
        int(told["rows"]),
        str(told["plan"]),
        str(told["query_id"]),
        int(told["attempts"]),
        int(told["starts"]),
        str(told["code"]),
        str(told["reason"]),
        told["started_at"],
        told["finished_at"],
    )
