"""Copies of a record: which days hold them, and which of them do not count.

Of records with the same log.record.uid only the first by (object key, position) counts, whatever day each lies on. So
days that share a record are built together.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from data_platform.analytics.plan import Piece, ServicePlan, pieces
from data_platform.analytics.sql_files import statement
from data_platform.analytics.store import DATABASE, BlockStore, partition_of
from data_platform.catalog.models import Service

UID_ROWS = 6_000_000  # whose hashes are looked for at once: about 200 MB
NOTHING = ServicePlan(frozenset(), frozenset())


@dataclass
class UidTables:
    """What a refresh knows of records: what replaces days of record_uids, its partitions, hashes that are new."""

    twin: str
    held: set[str]  # the partitions that record_uids has rows in
    new: str
    gathered: Piece | None = None  # whose new hashes `new` holds


def stage_uids(
    store: BlockStore,
    services: Sequence[Service],
    plans: Mapping[str, ServicePlan],
    rows: Mapping[date, int],
    tables: UidTables,
) -> dict[str, ServicePlan]:
    """Fill the twin of record_uids; returns the plans and every other day that has a copy of one of their records."""
    wanted, fresh = dict(plans), dict(plans)
    while fresh:
        found: dict[str, set[date]] = defaultdict(set)
        for piece in _pieces(services, {name: plan.build for name, plan in fresh.items()}, rows):
            store.run(
                f"INSERT INTO {tables.twin} (service, day, hash, origin) {statement('blocks/record_uids')}",
                piece.parameters,
                targets=piece.pairs,
                stretches=piece.stretches,
            )
        cleared = [{partition_of("record_uids", day) for day in plan.clear} for plan in wanted.values()]
        if any(not tables.held <= each for each in cleared):  # else no other day is there to have one
            targets = [(name, day) for name, plan in wanted.items() for day in sorted(plan.clear)]
            for piece in _pieces(services, {name: plan.clear for name, plan in fresh.items()}, rows):
                if not _may_have_copies(store, piece, tables):
                    continue
                for name, day in store.rows(
                    statement("blocks/copies", record_uids=tables.twin),
                    _ends(piece),
                    targets=targets,
                    piece=piece.pairs,
                ):
                    found[str(name)].add(day)
        fresh = {name: ServicePlan(frozenset(days), frozenset(days)) for name, days in found.items()}
        for name, plan in fresh.items():
            old = wanted.get(name, NOTHING)
            wanted[name] = ServicePlan(old.clear | plan.clear, old.build | plan.build)
    # The filter has the hashes before record_uids has them.
    for piece in _pieces(services, {name: plan.build for name, plan in wanted.items()}, rows):
        _gather(store, piece, tables)
        store.run(f"INSERT INTO {DATABASE}.seen_uids SELECT * FROM {tables.new}")
    return wanted


def _pieces(
    services: Sequence[Service], days: Mapping[str, frozenset[date]], rows: Mapping[date, int]
) -> Iterator[Piece]:
    return pieces(services, days, rows, UID_ROWS)


def _may_have_copies(store: BlockStore, piece: Piece, tables: UidTables) -> bool:
    """False: no record that is new to its day was ever seen before, and none of these days' is gone."""
    if _has_rows(piece, tables) and store.rows(
        statement("blocks/gone_uids", record_uids=tables.twin), _ends(piece), piece=piece.pairs
    ):
        return True
    _gather(store, piece, tables)
    return bool(store.rows(statement("blocks/seen_before", new_uids=tables.new)))


def _gather(store: BlockStore, piece: Piece, tables: UidTables) -> None:
    """Put the hashes that are new to the days of the piece into the table for them, if they are not there."""
    if tables.gathered == piece:
        return
    if tables.gathered:
        store.truncate(tables.new)
    known = "blocks/changed_uids" if _has_rows(piece, tables) else "blocks/uids_of"
    uids = statement(known, record_uids=tables.twin)
    store.run(
        f"INSERT INTO {tables.new} {statement('blocks/new_uids', uids=uids)}",
        _ends(piece),
        piece=piece.pairs,
    )
    tables.gathered = piece


def _has_rows(piece: Piece, tables: UidTables) -> bool:
    """Whether record_uids has rows of the days of the piece, of whatever service."""
    return bool(tables.held & {partition_of("record_uids", day) for _, day in piece.pairs})


def _ends(piece: Piece) -> dict[str, object]:
    days = [day for _, day in piece.pairs]
    return {"first": min(days), "last": max(days)}


def find_losers(
    store: BlockStore, services: Sequence[Service], plans: Mapping[str, ServicePlan], twin: str, losers: str
) -> bool:
    """Put the records that do not count into `losers`; False where every record is the only one."""
    if not store.rows(f"SELECT 1 FROM (SELECT count() AS n, uniqExact(hash) AS m FROM {twin}) WHERE n != m"):
        return False
    repeated = store.scratch("repeated")
    store.run(f"INSERT INTO {repeated} SELECT hash FROM {twin} GROUP BY hash HAVING count() > 1")
    everything = 2**62  # rows: copies of a record must be seen together
    for piece in pieces(services, {name: plan.build for name, plan in plans.items()}, {}, everything):
        store.run(
            f"INSERT INTO {losers} {statement('blocks/losers', repeated=repeated)}",
            piece.parameters,
            targets=piece.pairs,
            stretches=piece.stretches,
        )
    return True
