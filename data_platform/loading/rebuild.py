"""A table partition made anew from curated S3: list, check, stage, swap, register, raise the generation.

A backfill does this. Whatever a crash leaves behind, doing it again ends in the same rows. The dataset's overwrite
policy holds here too: with `append` and `reject` rows that S3 no longer shows stay where they are.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

from data_platform.catalog.models import Dataset, Overwrite
from data_platform.errors import PlatformError, TransientError
from data_platform.loading.contents import Contents, expected_contents, manifest_footers
from data_platform.loading.errors import CODES, Code
from data_platform.loading.footer import ObjectChangedError, check_contract, read_footer
from data_platform.loading.lock import Lease
from data_platform.loading.plans import Checked, Plan
from data_platform.loading.register import ObjectRecord, ObjectVersion, PartitionRecord, State, TablePartition
from data_platform.loading.swap import Change, settle, swap_partition
from data_platform.loading.target import Target
from data_platform.loading.warehouse import Warehouse, open_warehouse

__all__ = ["Rebuilt", "Warehouse", "open_warehouse", "rebuild_locked", "rebuild_partition", "verify_partition"]


@dataclass(frozen=True)
class Rebuilt:
    """What a rebuild did: rows and objects now in the partition, bytes read, the generations.

    `left_out` are objects of foreign producers that were dead-lettered before and still are what they were.
    """

    ds: date
    rows: int
    objects: int
    bytes: int
    generation: int
    curated_generation: int
    seconds: float
    left_out: tuple[str, ...] = ()


def rebuild_partition(warehouse: Warehouse, dataset: Dataset, ds: date, *, wait_s: float = 120.0) -> Rebuilt:
    """Make the partition hold exactly what S3 says; an empty one ends empty. Waits `wait_s` seconds for the lock.

    Raises FooterError for an object that breaks the contract (the partition stays as it was), LockHeldError,
    LeaseLostError, TransientError when objects changed in the meantime, and the client's errors as they are.
    """
    partition = TablePartition(dataset.domain, dataset.name, ds)
    with warehouse.hold(dataset, partition, wait_s=wait_s) as lease:
        return rebuild_locked(warehouse, dataset, partition, lease)


def rebuild_locked(warehouse: Warehouse, dataset: Dataset, partition: TablePartition, lease: Lease) -> Rebuilt:
    """`rebuild_partition` for a caller that holds the lease already."""
    started = time.monotonic()
    bucket = warehouse.settings.curated_bucket
    before = PartitionRecord() if lease.first else warehouse.register.partition(partition)
    if before.replacing:
        settle(warehouse, dataset, partition, before)
        before = warehouse.register.partition(partition)
    contents = expected_contents(warehouse.s3, bucket, dataset.domain, dataset.name, partition.ds)
    known = {} if lease.first else warehouse.register.objects(partition)
    objects, kept, left_out = _selected(contents, known, dataset.overwrite)
    listed = manifest_footers(dataset, contents.manifest)
    add = [
        Checked(version, listed[version.key]) if version.key in listed else _checked(warehouse, dataset, version)
        for version in objects
    ]
    without = None if not kept else {identity for identity in known if identity not in kept}
    change = Change(without, add, Plan.REBUILD, contents.curated_generation)
    generation = swap_partition(warehouse, dataset, partition, lease, change, known, before)
    return Rebuilt(
        partition.ds,
        sum(each.footer.rows for each in add) + sum(known[identity].rows for identity in kept),
        len(add) + len(kept),
        sum(version.bytes for version in objects),
        generation,
        contents.curated_generation,
        time.monotonic() - started,
        left_out,
    )


def _selected(
    contents: Contents, known: Mapping[str, ObjectRecord], overwrite: Overwrite
) -> tuple[list[ObjectVersion], set[str], tuple[str, ...]]:
    """Which listed objects go in, which identities stay as they are, and which are left out as known poison."""
    listed = {version.identity: version for version in contents.objects}
    left_out = tuple(
        identity
        for identity in listed
        if identity in known and known[identity].state is State.FAILED and _for_good(known[identity].code)
    )
    kept: set[str] = set()
    if overwrite is not Overwrite.REPLACE:
        kept = {i for i, record in known.items() if record.state is State.LOADED and i not in listed}
    held_keys = {known[identity].version.key for identity in kept}
    rejected = overwrite is Overwrite.REJECT
    objects = [
        version
        for identity, version in listed.items()
        if identity not in left_out and not (rejected and version.key in held_keys)
    ]
    return objects, kept, left_out


def _for_good(code: str) -> bool:
    return code in {Code.FORMAT, Code.PARSE, Code.PERMISSION} and CODES[Code(code)].attempts == 1


def _checked(warehouse: Warehouse, dataset: Dataset, version: ObjectVersion) -> Checked:
    try:
        footer = read_footer(warehouse.objects, version.bucket, version.key, version.etag)
    except FileNotFoundError:
        raise TransientError(
            f"s3://{version.bucket}/{version.key} is gone since the partition was listed",
            hint="the partition is being written; rebuild it again",
        ) from None
    except ObjectChangedError as error:
        raise TransientError(error.message, hint="the partition is being written; rebuild it again") from None
    check_contract(dataset, footer.schema, where=f"s3://{version.bucket}/{version.key}", nulls=footer.nulls)
    return Checked(version, footer)


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
