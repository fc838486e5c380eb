"""The building blocks in ClickHouse brought up to date: the changed days rebuilt and swapped, what changed noted down.

One refresh at a time, under one lock. Killed anywhere, the next one does the same days again: what a refresh is about
to change is written ahead, what it was built from behind. Days are replaced, never added to, so replays change nothing.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from data_platform.analytics.copies import find_losers, stage_uids
from data_platform.analytics.plan import Piece, ServicePlan, pieces
from data_platform.analytics.sessions import gap_linked, id_linked, stage_sessions
from data_platform.analytics.sql_files import statement
from data_platform.analytics.state import Events, note_changes, plan, read_events, read_known, write_built
from data_platform.analytics.store import DATABASE, BlockStore, Pair, partition_of, together
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
_STAGED = (*_COLUMNS, "day_users", "record_uids", "sessions", "session_days")
_SCRATCH = ("losers", "kept", "day_ids", "fresh_ids", "sessions_raw")


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
    check: Callable[[], None]  # raises when the lock is lost
    twins: dict[str, str] = field(default_factory=dict[str, str])  # by block the table that will replace its days
    scratch: dict[str, str] = field(default_factory=dict[str, str])

    def run(self, plans: Mapping[str, ServicePlan]) -> dict[str, ServicePlan]:
        """Build the days of the plans, and those that share records with them; returns the plans with these."""
        store = self.store
        held = self._prepare()
        first = [*self._pieces(plans)]
        loaded = first[0] if len(first) == 1 else None  # its events are read once for everything
        if loaded:
            self._load(loaded)
        wanted = stage_uids(
            *(store, self.services, plans, self.events.rows, held.get("record_uids", set())),
            *(self.twins["record_uids"], self.scratch["kept"] if loaded else None),
        )
        cleared = {(name, day) for name, each in wanted.items() for day in each.clear}
        # The sessions that the old parts of these days belong to; the new ones are known behind the swap.
        linked = cleared.copy()
        if {partition_of("session_parts", day) for _, day in cleared} & held.get("session_parts", set()):
            linked |= id_linked(store, cleared) | gap_linked(store, cleared)
        note_changes(store, self.revision, {"events": cleared, "sessions": linked})
        if (
            find_losers(store, self.services, wanted, self.twins["record_uids"], self.scratch["losers"])
            or wanted != plans
        ):
            loaded = None  # it has what does not count, or not all
        for piece in [loaded] if loaded else self._pieces(wanted):
            if piece is not loaded:
                self._load(piece)
            together([partial(self._fill, block, piece) for block in _COLUMNS])
        together([partial(self._users, cleared), partial(self._sessions, cleared, linked)])
        return wanted

    def _prepare(self) -> dict[str, set[str]]:
        """Make the tables of this refresh; returns the partitions of the blocks."""
        store, held = self.store, dict[str, set[str]]()

        def stage(block: str) -> None:
            self.twins[block] = store.staged(block)

        def make(name: str) -> None:
            self.scratch[name] = store.scratch(name)

        def look() -> None:
            held.update(store.partitions())

        together([look, *(partial(stage, block) for block in _STAGED), *(partial(make, name) for name in _SCRATCH)])
        return held

    def _pieces(self, plans: Mapping[str, ServicePlan]) -> Iterator[Piece]:
        return pieces(self.services, {name: each.build for name, each in plans.items()}, self.events.rows, CHUNK_ROWS)

    def _load(self, piece: Piece) -> None:
        """Put the events of the piece into `kept`, instead of what is there."""
        kept = self.scratch["kept"]
        self.store.truncate(kept)
        self.store.run(
            f"INSERT INTO {kept} {statement('blocks/kept', losers=self.scratch['losers'])}",
            piece.parameters,
            targets=piece.pairs,
            stretches=piece.stretches,
        )

    def _fill(self, block: str, piece: Piece) -> None:
        """Add what a block has of the events in `kept`."""
        columns = ", ".join(_COLUMNS[block])
        self.store.run(
            f"INSERT INTO {self.twins[block]} ({columns}) "
            f"SELECT {columns} FROM ({statement(f'blocks/{block}', kept=self.scratch['kept'])})",
            {"view": piece.profile.view, "cart": piece.profile.cart},
        )

    def _users(self, pairs: set[Pair]) -> None:
        """Replace the days of `pairs` in what does not stand on sessions."""
        assign_ids(self.store, self.twins["user_days"], self.scratch["day_ids"], self.scratch["fresh_ids"])
        stage_bitmaps(self.store, self.twins["day_users"], self.scratch["day_ids"], self.scratch["fresh_ids"])
        self._replace(("event_days", "day_users", "user_days", "record_uids"), pairs)

    def _sessions(self, cleared: set[Pair], linked: set[Pair]) -> None:
        """Replace the parts of sessions, then the sessions that started on `linked` or have new parts in `cleared`."""
        store = self.store
        self._replace(("session_parts",), cleared)
        by_id = id_linked(store, cleared)
        pairs = linked | by_id | gap_linked(store, cleared)
        if pairs - linked:
            note_changes(store, self.revision, {"sessions": pairs - linked})
        stage_sessions(store, pairs, (cleared, by_id), self.scratch["sessions_raw"], self.twins)
        self._replace(("sessions", "session_days"), pairs)

    def _replace(self, blocks: Sequence[str], pairs: set[Pair]) -> None:
        self.check()
        self.store.replace({block: self.twins[block] for block in blocks}, pairs)
