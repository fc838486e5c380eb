"""A table partition made anew from curated S3: stage, check, swap, register, raise the generation. Under the lock.

A backfill does this, and so does the loader when the rows of a partition are not what they should be. Whatever a
crash leaves behind, doing it again ends in the same rows: the swap is one step, and `replacing` is written ahead of it.
"""

import time
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING

from data_platform.catalog.models import Dataset
from data_platform.clients.clickhouse import inner_code, s3_source
from data_platform.errors import PlatformError, TransientError
from data_platform.loading.contents import Contents, expected_contents, manifest_footers
from data_platform.loading.footer import Footer, ObjectChangedError, check_contract, read_footer
from data_platform.loading.lock import Lease, PartitionLocks
from data_platform.loading.register import (
    ObjectRecord,
    ObjectVersion,
    PartitionRecord,
    Register,
    State,
    TablePartition,
    finished,
)
from data_platform.loading.statement import insert_object, structure_of
from data_platform.loading.target import Target
from data_platform.settings import Settings

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client
    from mypy_boto3_s3 import S3Client

PLAN = "rebuild"


@dataclass(frozen=True)
class Warehouse:
    """The handles one worker loads with: ClickHouse, S3, the register and the locks of its name."""

    settings: Settings
    client: "Client"
    s3: "S3Client"
    register: Register
    locks: PartitionLocks


@dataclass(frozen=True)
class Rebuilt:
    """What a rebuild did: rows and objects now in the partition, bytes read, the generations."""

    ds: date
    rows: int
    objects: int
    bytes: int
    generation: int
    curated_generation: int
    seconds: float


def rebuild_partition(warehouse: Warehouse, dataset: Dataset, ds: date, *, wait_s: float = 120.0) -> Rebuilt:
    """Make the partition hold exactly what S3 says; an empty one ends empty. Waits `wait_s` seconds for the lock.

    Raises FooterError for an object that breaks the contract (the partition stays as it was), LockHeldError,
    LeaseLostError, TransientError when objects changed in the meantime, and the client's errors as they are.
    """
    partition = TablePartition(dataset.domain, dataset.name, ds)
    with warehouse.locks.hold(partition.name, wait_s=wait_s) as lease:
        return rebuild_locked(warehouse, dataset, partition, lease)


def rebuild_locked(warehouse: Warehouse, dataset: Dataset, partition: TablePartition, lease: Lease) -> Rebuilt:
    """`rebuild_partition` for a caller that holds the lease already."""
    started = time.monotonic()
    ds = partition.ds
    bucket = warehouse.settings.curated_bucket
    contents = expected_contents(warehouse.s3, bucket, dataset.domain, dataset.name, ds)
    before = warehouse.register.partition(partition)
    generation = before.generation + 1
    target = Target(warehouse.client, dataset)
    known = manifest_footers(dataset, contents.manifest)
    footers = {
        version.identity: known.get(version.key) or _checked_footer(warehouse, dataset, version)
        for version in contents.objects
    }
    rows = sum(footer.rows for footer in footers.values())
    with target.staging(ds) as staged:
        for version in contents.objects:
            _stage(warehouse, dataset, partition, version, footers[version.identity], generation, staged)
        _check_staged(target.rows_by_object(ds, table=staged), footers, partition)
        warehouse.locks.check(lease)
        record = PartitionRecord(generation, True, contents.curated_generation, rows)
        warehouse.register.write_partition(partition, record, objects=len(contents.objects))
        target.swap(ds, staged, empty=rows == 0)
    _register_contents(warehouse.register, partition, contents, footers, generation)
    done = PartitionRecord(generation, False, contents.curated_generation, rows)
    warehouse.register.write_partition(partition, done, objects=len(contents.objects))
    return Rebuilt(
        ds,
        rows,
        len(contents.objects),
        sum(version.bytes for version in contents.objects),
        generation,
        contents.curated_generation,
        time.monotonic() - started,
    )


def _checked_footer(warehouse: Warehouse, dataset: Dataset, version: ObjectVersion) -> Footer:
    try:
        footer = read_footer(warehouse.s3, version.bucket, version.key, version.etag, version.bytes)
    except FileNotFoundError:
        raise TransientError(
            f"s3://{version.bucket}/{version.key} is gone since the partition was listed",
            hint="the partition is being written; rebuild it again",
        ) from None
    except ObjectChangedError as error:
        raise TransientError(error.message, hint="the partition is being written; rebuild it again") from None
    check_contract(dataset, footer.schema, where=f"s3://{version.bucket}/{version.key}")
    return footer


def _stage(
    warehouse: Warehouse,
    dataset: Dataset,
    partition: TablePartition,
    version: ObjectVersion,
    footer: Footer,
    generation: int,
    staged: str,
) -> None:
    from clickhouse_connect.driver.exceptions import Error

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
        target=staged,
    )
    try:
        warehouse.client.command(statement.sql, settings=statement.settings)
    except Error as error:
        if inner_code(error).source_gone:
            raise TransientError(
                f"s3://{version.bucket}/{version.key} went while it was read", hint="rebuild the partition again"
            ) from error
        raise


def _check_staged(staged: dict[str, int], footers: dict[str, Footer], partition: TablePartition) -> None:
    wanted = {identity: footer.rows for identity, footer in footers.items() if footer.rows}
    if staged == wanted:
        return
    differing = [
        f"{identity}: {staged.get(identity, 0)} rows instead of {wanted.get(identity, 0)}"
        for identity in sorted(staged.keys() | wanted.keys())
        if staged.get(identity, 0) != wanted.get(identity, 0)
    ]
    raise TransientError(
        f"{partition.name} was not staged as its objects' footers say: {'; '.join(differing[:5])}",
        hint="an object was replaced in the meantime; rebuild it again",
    )


def _register_contents(
    register: Register,
    partition: TablePartition,
    contents: Contents,
    footers: dict[str, Footer],
    generation: int,
) -> None:
    """Every object of the partition is loaded in the new generation; every other one known here is removed."""
    known = register.objects(partition)
    now = datetime.now(UTC)
    current = {version.identity for version in contents.objects}
    records = [
        finished(
            ObjectRecord(
                # The event's sequencer is not known to a listing: what an earlier event told is kept.
                _with_sequencer(version, known.get(version.identity)),
                State.LOADED,
                generation,
                rows=footers[version.identity].rows,
                plan=PLAN,
                started_at=now,
            ),
            State.LOADED,
        )
        for version in contents.objects
    ]
    records += [
        finished(record, State.REMOVED, generation=generation)
        for identity, record in known.items()
        if identity not in current and record.state in {State.LOADED, State.INTENT}
    ]
    register.write(partition, records)


def _with_sequencer(version: ObjectVersion, known: ObjectRecord | None) -> ObjectVersion:
    from dataclasses import replace

    return version if known is None else replace(version, sequencer=known.version.sequencer)


def verify_partition(warehouse: Warehouse, dataset: Dataset, ds: date) -> dict[str, int]:
    """Rows by object of a partition, or PlatformError when they are not what the register says."""
    partition = TablePartition(dataset.domain, dataset.name, ds)
    record = warehouse.register.partition(partition)
    known = warehouse.register.objects(partition)
    wanted = {identity: entry.rows for identity, entry in known.items() if entry.state is State.LOADED and entry.rows}
    found = Target(warehouse.client, dataset).rows_by_object(ds)
    if record.replacing or found != wanted:
        raise PlatformError(
            f"{partition.name} holds {sum(found.values())} rows of {len(found)} objects, "
            f"the register says {sum(wanted.values())} of {len(wanted)}",
            hint="materialise the partition to rebuild it",
        )
    return found
