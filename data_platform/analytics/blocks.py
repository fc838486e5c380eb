"""The building blocks in ClickHouse brought up to date: the changed days rebuilt and swapped, what changed noted down.

One refresh at a time, under one lock. Killed anywhere, the next one does the same days again: what a refresh is about
to change is written ahead, what it was built from behind. Days are replaced, never added to, so replays change nothing.
"""

import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import date
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from data_platform.analytics.copies import find_losers, stage_uids
from data_platform.analytics.plan import Profile, ServicePlan, pieces
from data_platform.analytics.sessions import linked_days, stage_sessions
from data_platform.analytics.sql_files import statement
from data_platform.analytics.state import Events, note_changes, plan, read_events, read_known, write_built
from data_platform.analytics.store import DATABASE, BlockStore, Pair, together
from data_platform.analytics.user_ids import assign_ids, stage_bitmaps
from data_platform.catalog.models import Service

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

__all__ = ["DATABASE", "LOCK", "Locks", "Refreshed", "refresh_blocks"]

LOCK = "analytics.blocks"
CHUNK_ROWS = 1_500_000  # held in memory while its blocks are computed: about 250 MB
_COLUMNS = {
    "event_days": ("service", "day", "event_name", "events", "users"),
    "user_days": ("service", "day", "user_id"),
    "session_parts": (
        *("service", "day", "kind", "hash", "key", "started", "ended", "events"),
        *("viewed", "carts", "first_view", "last_cart", "carted", "users"),
    ),
}


class Locks(Protocol):
    """Leases by name; loading.lock.PartitionLocks is one."""

    def hold(self, name: str, *, wait_s: float = ...) -> AbstractContextManager[Any]:
        """Hold the lease of `name`."""
        ...

    def check(self, lease: Any) -> None:
        """Raise unless the lease is still held."""
        ...


@dataclass(frozen=True)
class Refreshed:
    """What a refresh rebuilt, days by service, and what it took: seconds, statements, bytes that ClickHouse read."""

    days: Mapping[str, frozenset[date]]
    revision: int
    seconds: float
    statements: int
    bytes_read: int


def refresh_blocks(
    client: "Client", locks: Locks, services: Sequence[Service], *, cluster: str | None = None, wait_s: float = 600.0
) -> Refreshed:
    """Rebuild the days of `services` whose events changed since their blocks were built; nothing changed, nothing done.

    Raises LockHeldError after `wait_s` seconds, PlatformError when the dense ids are not one-to-one.
    """
    started = time.monotonic()
    with locks.hold(LOCK, wait_s=wait_s) as lease:
        store = BlockStore(client, [service.name for service in services])
        store.prepare(cluster)
        events, known = read_events(store), read_known(store)
        plans = plan(store, services, events, known)
        revision = known.next_revision()
        dirty = {name: each for name, each in plans.items() if each.clear}
        if dirty:
            with store.cleared_up():
                dirty = _Build(store, services, events, revision, lambda: locks.check(lease)).run(dirty)
        write_built(store, services, plans, events, known, revision)
    days = {name: each.clear for name, each in dirty.items()}
    return Refreshed(days, revision, time.monotonic() - started, store.statements, store.bytes_read)


@dataclass
class _Build:
    store: BlockStore
    services: Sequence[Service]
    events: Events
    revision: int
    check: Any  # raises when the lock is lost

    def run(self, plans: Mapping[str, ServicePlan]) -> dict[str, ServicePlan]:
        """Build the days of the plans, and those that share records with them; returns the plans with these."""
        store = self.store
        held = store.days_held()
        uids = store.staged("record_uids")
        wanted = stage_uids(store, self.services, plans, self.events.rows, held.get("record_uids", set()), uids)
        cleared = {(name, day) for name, each in wanted.items() for day in each.clear}
        # The sessions that the old parts of these days belong to; the new ones are known behind the swap.
        linked = cleared | (
            linked_days(store, cleared) if {day for _, day in cleared} & held["session_parts"] else set()
        )
        note_changes(store, self.revision, {"events": cleared, "sessions": linked})
        losers = find_losers(store, self.services, wanted, uids)
        blocks = self._fill(wanted, losers)
        assign_ids(store, blocks["user_days"])
        self.check()
        self._swap(
            {
                "event_days": blocks["event_days"],
                "day_users": stage_bitmaps(store, blocks["user_days"]),
                "user_days": blocks["user_days"],
                "session_parts": blocks["session_parts"],
                "record_uids": uids,
            },
            cleared,
        )
        self._sessions(linked, linked | linked_days(store, cleared))
        return wanted

    def _sessions(self, noted: set[Pair], pairs: set[Pair]) -> None:
        """Put the sessions that started on the days of `pairs` together again."""
        if pairs - noted:
            note_changes(self.store, self.revision, {"sessions": pairs - noted})
        twins = stage_sessions(self.store, pairs)
        self.check()
        self._swap(twins, pairs)

    def _swap(self, twins: Mapping[str, str], pairs: set[Pair]) -> None:
        """Replace the days of `pairs` in each block, in this order, by its twin; other services keep what they have."""
        store, days = self.store, {day for _, day in pairs}
        store.keep_others(twins, pairs)
        held = store.days_held()
        for block, twin in twins.items():
            store.swap(block, twin, days, held)

    def _fill(self, plans: Mapping[str, ServicePlan], losers: str) -> dict[str, str]:
        """The blocks that follow from the events of a day alone, by block their table."""
        store = self.store
        blocks = {block: store.staged(block) for block in _COLUMNS}
        kept = store.scratch("kept")
        build = {name: each.build for name, each in plans.items()}
        for number, piece in enumerate(pieces(self.services, build, self.events.rows, CHUNK_ROWS)):
            if number:
                store.truncate(kept)
            store.run(
                f"INSERT INTO {kept} {statement('blocks/kept', losers=losers)}",
                piece.parameters,
                targets=piece.pairs,
                stretches=piece.stretches,
            )
            together([partial(self._fill_block, block, twin, kept, piece.profile) for block, twin in blocks.items()])
        return blocks

    def _fill_block(self, block: str, twin: str, kept: str, profile: Profile) -> None:
        columns = ", ".join(_COLUMNS[block])
        self.store.run(
            f"INSERT INTO {twin} ({columns}) SELECT {columns} FROM ({statement(f'blocks/{block}', kept=kept)})",
            {"view": profile.view, "cart": profile.cart},
        )
