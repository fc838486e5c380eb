"""Copies of a record: which days hold them, and which of them do not count.

Of records with the same log.record.uid only the first by (object key, position) counts, whatever day each lies on. So
days that share a record are built together.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import date

from data_platform.analytics.plan import Piece, ServicePlan, pieces
from data_platform.analytics.sql_files import statement
from data_platform.analytics.store import BlockStore, Pair, partition_of
from data_platform.catalog.models import Service

UID_ROWS = 6_000_000  # whose hashes are looked for at once: about 200 MB
NOTHING = ServicePlan(frozenset(), frozenset())


def stage_uids(
    store: BlockStore,
    services: Sequence[Service],
    plans: Mapping[str, ServicePlan],
    rows: Mapping[date, int],
    twin: str,
    held: AbstractSet[str],
) -> tuple[dict[str, ServicePlan], set[Pair]]:
    """Fill the twin of record_uids; returns the plans and all days that have copies of their records, and days beyond.

    What counts may change on a day that shares a record with a day of the plans, so it is built with them. Days that
    share others of its records stay as they are; they are returned beside, for which of the copies counts is decided
    only where all are at hand. `held`: the partitions that record_uids has rows in.
    """
    wanted, fresh = dict(plans), dict(plans)
    for hop in (1, 2):
        for piece in _pieces(services, {name: plan.build for name, plan in fresh.items()}, rows):
            store.run(
                f"INSERT INTO {twin} (service, day, slot, hash) {statement('blocks/record_uids')}",
                piece.parameters,
                targets=piece.pairs,
                stretches=piece.stretches,
            )
        found: dict[str, set[date]] = defaultdict(set)
        cleared = [{partition_of("record_uids", day) for day in plan.clear} for plan in wanted.values()]
        if any(not held <= each for each in cleared):  # else no other day is there to have one
            targets = [(name, day) for name, plan in wanted.items() for day in sorted(plan.clear)]
            for piece in _pieces(services, {name: plan.clear for name, plan in fresh.items()}, rows):
                for name, day in _with_copies(store, piece, targets, twin):
                    found[name].add(day)
        if hop == 2 or not found:
            break
        fresh = {name: ServicePlan(frozenset(days), frozenset(days)) for name, days in found.items()}
        for name, plan in fresh.items():
            old = wanted.get(name, NOTHING)
            wanted[name] = ServicePlan(old.clear | plan.clear, old.build | plan.build)
    return wanted, {(name, day) for name, days in found.items() for day in days}


def _with_copies(store: BlockStore, piece: Piece, targets: Sequence[Pair], twin: str) -> Iterator[Pair]:
    """Days outside of `targets` that have a copy of a record of the piece."""
    days = [day for _, day in piece.pairs]
    ends = {"first": min(days), "last": max(days)}
    tables = {"targets": targets, "piece": piece.pairs}
    slots = store.rows(statement("blocks/shared_slots", record_uids=twin), ends, **tables)
    if slots:
        found = store.rows(statement("blocks/copies", record_uids=twin), ends, slots=map(tuple, slots), **tables)
        yield from ((str(name), day) for name, day in found)


def _pieces(
    services: Sequence[Service], days: Mapping[str, frozenset[date]], rows: Mapping[date, int]
) -> Iterator[Piece]:
    return pieces(services, days, rows, UID_ROWS)


def find_losers(
    store: BlockStore, services: Sequence[Service], plans: Mapping[str, ServicePlan], beyond: set[Pair], twin: str
) -> str | None:
    """A table of the records that do not count; None where every record is the only one.

    `beyond`: days that are not built but have copies of records of those that are.
    """
    unique = f"SELECT 1 FROM (SELECT count() AS n, uniqExact(hash) AS m FROM {twin}) WHERE n != m"
    if not beyond and not store.rows(unique):
        return None
    repeated, losers = store.scratch("repeated"), store.scratch("losers")
    store.run(f"INSERT INTO {repeated} {statement('blocks/repeated', record_uids=twin)}", targets=sorted(beyond))
    days = {name: set(each.build) for name, each in plans.items()}
    for name, day in beyond:
        days.setdefault(name, set()).add(day)
    everything = 2**62  # rows: copies of a record must be seen together
    for piece in pieces(services, days, {}, everything):
        store.run(
            f"INSERT INTO {losers} {statement('blocks/losers', repeated=repeated)}",
            piece.parameters,
            targets=piece.pairs,
            stretches=piece.stretches,
        )
    return losers
