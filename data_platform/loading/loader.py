"""The load of one object version, exactly once: identity, register, contract, intent, insert, proof, done.

The caller owns the message: it deletes it when `load_object` returns a final outcome. Rows are the last word: an
outcome is only ever reported after the partition was seen to hold the object's rows.
"""

import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING

from data_platform.catalog.models import Dataset, Overwrite
from data_platform.clients.clickhouse import s3_source
from data_platform.curation.manifest import generation_of, read_manifest
from data_platform.loading.errors import Code, LoadError
from data_platform.loading.footer import Footer, FooterError, ObjectChangedError, check_contract, read_footer
from data_platform.loading.lock import Lease
from data_platform.loading.message import ObjectEvent
from data_platform.loading.rebuild import Warehouse, rebuild_locked
from data_platform.loading.register import ObjectRecord, ObjectVersion, State, TablePartition, finished
from data_platform.loading.statement import insert_object, structure_of
from data_platform.loading.target import Target

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

PLAN = "one-block"


class Outcome(StrEnum):
    """How a load ended. Every one but DEFERRED is final: the message has done its work."""

    LOADED = "loaded"
    ALREADY = "already loaded"
    REBUILT = "loaded by a rebuild of its partition"
    STALE = "an older version than the one loaded"
    SUPERSEDED = "not part of the partition any more"
    REJECTED = "an overwrite the dataset's policy rejects"
    DEFERRED = "its partition is not committed yet"


@dataclass(frozen=True)
class LoadResult:
    """What became of one event; `rows` are the object's rows now in the table."""

    outcome: Outcome
    version: ObjectVersion
    rows: int
    seconds: float

    @property
    def final(self) -> bool:
        """Whether the message may be deleted."""
        return self.outcome is not Outcome.DEFERRED


def load_object(warehouse: Warehouse, dataset: Dataset, event: ObjectEvent) -> LoadResult:
    """Bring the table to hold this object version's rows exactly once, or say why it need not.

    Raises LoadError with a code for what is wrong with the object, LockHeldError or TransientError for what may pass,
    the clients' errors as they are.
    """
    started = time.monotonic()
    partition = TablePartition(event.key.domain, event.key.table, event.key.ds)
    version = event.version
    try:
        version = _complete(warehouse.s3, version)
        with warehouse.locks.hold(partition.name) as lease:
            outcome, rows = _load_locked(warehouse, dataset, partition, event, version, lease)
    except ObjectChangedError:
        # The key holds another version by now; that version's own event brings its rows.
        outcome, rows = Outcome.SUPERSEDED, 0
    return LoadResult(outcome, version, rows, time.monotonic() - started)


def _load_locked(
    warehouse: Warehouse,
    dataset: Dataset,
    partition: TablePartition,
    event: ObjectEvent,
    version: ObjectVersion,
    lease: Lease,
) -> tuple[Outcome, int]:
    register = warehouse.register
    state = register.partition(partition)
    known = register.objects(partition)
    mine = known.get(version.identity)
    if state.replacing:
        # A rebuild died between writing ahead and registering: what the partition holds is not known. Do it again.
        return _rebuild(warehouse, dataset, partition, version, lease)
    if mine is not None and mine.state is State.LOADED and mine.generation == state.generation:
        return Outcome.ALREADY, mine.rows
    newest = max((r.version.sequencer for r in known.values() if r.version.key == version.key), default="")
    if version.sequencer and newest and _order(version.sequencer) < _order(newest):
        return Outcome.STALE, 0
    generation = generation_of(event.key.file)
    if generation is not None:
        membership = _membership(warehouse, event, version, generation)
        if membership is not None:
            return membership, 0
        if generation > _held_generation(known, state.generation) > 0:
            # The partition holds an older generation: its files go and all files of this one come, in one swap.
            return _rebuild(warehouse, dataset, partition, version, lease)
    older = [r for r in known.values() if r.version.key == version.key and r.state is State.LOADED]
    if older:
        if dataset.overwrite is Overwrite.REJECT:
            return Outcome.REJECTED, 0
        if dataset.overwrite is Overwrite.REPLACE:
            return _rebuild(warehouse, dataset, partition, version, lease)
    return _insert(warehouse, dataset, partition, version, lease, state.generation, mine)


def _insert(
    warehouse: Warehouse,
    dataset: Dataset,
    partition: TablePartition,
    version: ObjectVersion,
    lease: Lease,
    generation: int,
    mine: ObjectRecord | None,
) -> tuple[Outcome, int]:
    footer = _footer(warehouse.s3, dataset, version)
    target = Target(warehouse.client, dataset)
    attempts = 1 if mine is None else mine.attempts + 1
    settings = warehouse.settings
    statement = insert_object(
        dataset,
        partition,
        version,
        s3_source(settings, version.bucket, version.key, structure=structure_of(footer.schema)),
        footer.schema,
        generation=generation,
        max_memory=settings.loader_rebuild_memory_mb * 2**20,
        max_seconds=settings.clickhouse_timeout_s,
    )
    record = ObjectRecord(
        version,
        State.INTENT,
        generation,
        rows=footer.rows,
        plan=PLAN,
        query_id=statement.query_id,
        attempts=attempts,
        started_at=datetime.now(UTC),
    )
    present = target.rows_of(partition.ds, version.identity) if mine is not None else 0
    if present == 0:
        warehouse.register.write(partition, [record])
        warehouse.locks.check(lease)
        warehouse.client.command(statement.sql, settings=statement.settings)
        present = target.rows_of(partition.ds, version.identity)
    if present != footer.rows:
        if present == 0 and _changed(warehouse.s3, version):
            return Outcome.SUPERSEDED, 0
        # Rows of another attempt beside these, or a token that outlived its rows: a new generation settles both.
        return _rebuild(warehouse, dataset, partition, version, lease)
    warehouse.register.write(partition, [finished(record, State.LOADED)])
    return Outcome.LOADED, present


def _rebuild(
    warehouse: Warehouse, dataset: Dataset, partition: TablePartition, version: ObjectVersion, lease: Lease
) -> tuple[Outcome, int]:
    try:
        rebuild_locked(warehouse, dataset, partition, lease)
    except FooterError as error:
        raise LoadError(Code.PARSE, error.message) from error
    mine = warehouse.register.objects(partition).get(version.identity)
    if mine is None or mine.state is not State.LOADED:
        return Outcome.SUPERSEDED, 0
    # A rebuild lists S3, and a listing knows no sequencers: what the event told is kept, so that older events of the
    # key stay recognisable.
    if version.sequencer and mine.version.sequencer != version.sequencer:
        warehouse.register.write(partition, [replace(mine, version=replace(mine.version, sequencer=version.sequencer))])
    return Outcome.REBUILT, mine.rows


def _membership(warehouse: Warehouse, event: ObjectEvent, version: ObjectVersion, generation: int) -> Outcome | None:
    """None when the partition's manifest lists this version; else what that means for the event."""
    stored = read_manifest(warehouse.s3, version.bucket, event.key.domain, event.key.table, event.key.ds)
    current = 0 if stored is None else stored.manifest.generation
    if stored is not None and any(f.key == version.key and f.etag == version.etag for f in stored.manifest.files):
        return None
    if generation > current:
        return Outcome.DEFERRED
    return Outcome.SUPERSEDED


def _held_generation(known: dict[str, ObjectRecord], generation: int) -> int:
    """The curated generation whose files the partition holds now; 0 when it holds none of the platform's."""
    return max(
        (
            generation_of(record.version.key.rpartition("/")[2]) or 0
            for record in known.values()
            if record.state is State.LOADED and record.generation == generation
        ),
        default=0,
    )


def _complete(s3: "S3Client", version: ObjectVersion) -> ObjectVersion:
    """An event may lack ETag and size (both are optional in the envelope): the object's head has them."""
    from botocore.exceptions import ClientError

    if version.etag and version.bytes:
        return version
    try:
        head = s3.head_object(Bucket=version.bucket, Key=version.key)
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") in {"404", "NoSuchKey"}:
            raise LoadError(Code.GONE, f"s3://{version.bucket}/{version.key} is gone") from None
        raise
    if version.etag and head["ETag"].strip('"') != version.etag:
        raise ObjectChangedError(f"s3://{version.bucket}/{version.key} is not version {version.version} any more")
    return replace(
        version,
        etag=head["ETag"].strip('"'),
        bytes=head["ContentLength"],
        version_id=version.version_id or head.get("VersionId"),
    )


def _footer(s3: "S3Client", dataset: Dataset, version: ObjectVersion) -> Footer:
    try:
        footer = read_footer(s3, version.bucket, version.key, version.etag, version.bytes)
        check_contract(dataset, footer.schema, where=f"s3://{version.bucket}/{version.key}")
    except FooterError as error:
        raise LoadError(Code.PARSE, error.message) from error
    except FileNotFoundError:
        raise LoadError(Code.GONE, f"s3://{version.bucket}/{version.key} is gone") from None
    return footer


def _changed(s3: "S3Client", version: ObjectVersion) -> bool:
    """Whether the key holds another version by now: then that one's event brings its rows, and this one is done."""
    head = s3.head_object(Bucket=version.bucket, Key=version.key)
    return head["ETag"].strip('"') != version.etag


def _order(sequencer: str) -> str:
    """Sequencers are hexadecimal of varying length: compared after padding to the right, as S3 documents."""
    return sequencer.ljust(64, "0")
