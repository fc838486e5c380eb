"""Copies of a record: which days hold them, and which of them do not count.

Of records with the same log.record.uid only the first by (object key, position) counts, whatever day each lies on. So
days that share a record are built together.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import date

from data_platform.analytics.plan import ServicePlan, pieces
from data_platform.analytics.seen import KEY_ROWS, RECORDS, Lie, sharing
from data_platform.analytics.sql_files import statement
from data_platform.analytics.store import BlockStore, Pair
from data_platform.catalog.models import Service

NOTHING = ServicePlan(frozenset(), frozenset())


def stage_uids(
    store: BlockStore,
    services: Sequence[Service],
    plans: Mapping[str, ServicePlan],
    twin: str,
    lie: Lie,
) -> tuple[dict[str, ServicePlan], set[Pair]]:
    """Fill the twin of record_uids; returns the plans and all days that have copies of their records, and days beyond.

    What counts may change on a day that shares a record with a day of the plans, so it is built with them. Days that
    share others of its records stay as they are; they are returned beside, for which of the copies counts is decided
    only where all are at hand.
    """
    wanted, fresh = dict(plans), dict(plans)
    for hop in (1, 2):
        for piece in pieces(services, {name: plan.build for name, plan in fresh.items()}, lie.rows, KEY_ROWS):
            store.run(
                f"INSERT INTO {twin} (service, day, key, rest) {statement('blocks/record_uids', **piece.expressions)}",
                piece.parameters,
                targets=piece.pairs,
                stretches=piece.stretches,
            )
        found: dict[str, set[date]] = defaultdict(set)
        for name, day in sharing(store, RECORDS, twin, _pairs(fresh), _pairs(wanted), lie):
            found[name].add(day)
        if hop == 2 or not found:
            break
        fresh = {name: ServicePlan(frozenset(days), frozenset(days)) for name, days in found.items()}
        for name, plan in fresh.items():
            old = wanted.get(name, NOTHING)
            wanted[name] = ServicePlan(old.clear | plan.clear, old.build | plan.build)
    return wanted, {(name, day) for name, days in found.items() for day in days}


def find_losers(
    store: BlockStore, services: Sequence[Service], plans: Mapping[str, ServicePlan], beyond: set[Pair], twin: str
) -> str | None:
    """A table of the records that do not count; None where every record is the only one.

    `beyond`: days that are not built but have copies of records of those that are.
    """
    if not beyond and not store.rows(statement("blocks/not_unique", record_uids=twin)):
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


def _pairs(plans: Mapping[str, ServicePlan]) -> set[Pair]:
    return {(name, day) for name, each in plans.items() for day in each.clear}
