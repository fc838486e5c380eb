"""A table partition made other in one step: some objects' rows stay, some go, some come. Under the partition's lease.

Overwrites, new curated generations, rows that are not what they should be, and rebuilds all end here. `replacing` is
written ahead of the swap; whoever finds it has only the rows to ask, and `settle` does.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from data_platform.catalog.models import Dataset
from data_platform.clients.clickhouse import inner_code
from data_platform.errors import TransientError
from data_platform.loading.errors import CHANGED
from data_platform.loading.lock import Lease
from data_platform.loading.plans import Checked, Load, Plan, plan_loads
from data_platform.loading.register import (
    ObjectRecord,
    ObjectVersion,
    PartitionRecord,
    State,
    TablePartition,
    finished,
)
from data_platform.loading.statement import insert_objects
from data_platform.loading.target import Target
from data_platform.loading.warehouse import Warehouse


@dataclass(frozen=True)
class Change:
    """What shall become of a partition: the rows of `without` go (None: all), those of `add` come."""

    without: Collection[str] | None
    add: Sequence[Checked]
    plan: Plan
    curated_generation: int = 0


def swap_partition(
    warehouse: Warehouse,
    dataset: Dataset,
    partition: TablePartition,
    lease: Lease,
    change: Change,
    known: Mapping[str, ObjectRecord],
    before: PartitionRecord,
) -> int:
    """Make the partition what `change` says; returns its new generation.

    `known` are all the partition's records. Raises LeaseLostError, TransientError when what was staged is not what the
    footers say, and the client's errors; then either nothing has changed, or the next one to look settles it.
    """
    register, target = warehouse.register, Target(warehouse.client, dataset)
    ds, generation, started = partition.ds, before.generation + 1, datetime.now(UTC)
    current = target.rows_by_object(ds)
    added = {each.version.identity: each.footer.rows for each in change.add}
    gone = set(current) if change.without is None else set(change.without) | set(added)
    kept = {identity: rows for identity, rows in current.items() if identity not in gone}
    wanted = kept | {identity: rows for identity, rows in added.items() if rows}
    intents = [
        ObjectRecord(
            _with_sequencer(each, known.get(each.version.identity)),
            State.INTENT,
            generation,
            rows=each.footer.rows,
            plan=change.plan,
            attempts=known[each.version.identity].attempts if each.version.identity in known else 0,
            starts=1,
            started_at=started,
        )
        for each in change.add
    ]
    total = sum(wanted.values())
    with target.staging(ds, lease) as staged:
        if kept:
            target.copy(ds, staged, without=current.keys() - kept.keys())
        memory = warehouse.settings.loader_rebuild_memory_mb * 2**20
        for load in plan_loads(change.add, memory=memory):
            _stage(warehouse, dataset, partition, load, generation, staged)
        _check_staged(target.rows_by_object(ds, table=staged), wanted, partition)
        register.write(partition, intents)
        replacing = PartitionRecord(generation, True, change.curated_generation, total)
        register.write_partition(partition, replacing, objects=len(wanted))
        warehouse.locks.check(lease)
        with lease.until_known():
            if current or wanted:
                target.swap(ds, staged, empty=not wanted)
    removed = [
        finished(record, State.REMOVED, generation=generation)
        for identity, record in known.items()
        if identity not in added
        and record.state in {State.LOADED, State.INTENT}
        and (identity in gone or change.without is None)
    ]
    register.write(partition, [*(finished(record, State.LOADED) for record in intents), *removed])
    done = PartitionRecord(generation, False, change.curated_generation, total)
    register.write_partition(partition, done, objects=len(wanted))
    return generation


def settle(warehouse: Warehouse, dataset: Dataset, partition: TablePartition, state: PartitionRecord) -> None:
    """After a swap whose end nobody wrote down: write down what the rows say. The swap itself was one step."""
    found = Target(warehouse.client, dataset).rows_by_object(partition.ds)
    records: list[ObjectRecord] = []
    for identity, record in warehouse.register.objects(partition).items():
        rows = found.get(identity, 0)
        if record.state is State.INTENT and record.rows and rows == record.rows:
            records.append(finished(record, State.LOADED, generation=state.generation))
        elif record.state is State.LOADED and record.rows and not rows:
            records.append(finished(record, State.REMOVED, generation=state.generation))
    warehouse.register.write(partition, records)
    warehouse.register.write_partition(
        partition, replace(state, replacing=False, rows=sum(found.values())), objects=len(found)
    )


def _stage(
    warehouse: Warehouse, dataset: Dataset, partition: TablePartition, load: Load, generation: int, staged: str
) -> None:
    from clickhouse_connect.driver.exceptions import Error

    if load.plan is Plan.NOTHING:
        return
    statement = insert_objects(
        warehouse.settings,
        dataset,
        partition,
        [each.version for each in load.objects],
        load.objects[0].footer.schema,
        generation=generation,
        max_memory=max(load.memory, warehouse.settings.loader_rebuild_memory_mb * 2**20),
        staged=staged,
        small_blocks=True,
    )
    try:
        warehouse.client.command(statement.sql, settings=statement.settings)
    except Error as error:
        facts = inner_code(error)
        if facts.source_gone or CHANGED in facts.message:
            raise TransientError(
                f"an object of {partition.name} went or changed while it was read",
                hint="the partition is looked at again",
            ) from error
        raise


def _check_staged(staged: Mapping[str, int], wanted: Mapping[str, int], partition: TablePartition) -> None:
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


def _with_sequencer(each: Checked, known: ObjectRecord | None) -> ObjectVersion:
    """A listing knows no sequencer: what an earlier event told is kept, so that older events stay recognisable."""
    if each.version.sequencer or known is None:
        return each.version
    return replace(each.version, sequencer=known.version.sequencer)
