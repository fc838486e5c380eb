"""The building blocks in ClickHouse brought up to date: the changed days rebuilt and swapped, what changed noted down.

One refresh at a time, under one lock. Killed anywhere, the next one does the same days again: what a refresh is about
to change is written ahead, what it was built from behind. Days are replaced, never added to, so replays change nothing.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

from data_platform.analytics.copies import find_losers, stage_uids
from data_platform.analytics.plan import PIECES, Piece, ServicePlan, pieces
from data_platform.analytics.seen import RECORDS, SESSIONS, Lie, note, renew
from data_platform.analytics.sessions import Parts, gap_linked, stage_sessions
from data_platform.analytics.sql_files import statement
from data_platform.analytics.state import note_changes, plan, read, write_built
from data_platform.analytics.store import DATABASE, SCRATCH, BlockStore, Held, Pair, both, together
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
# Made of the events that lie in a day, and of the sessions that started on it, wherever their parts lie.
_BY_DAY = ("session_parts", "event_days", "user_days", "day_users", "record_uids")
_BY_START = ("sessions", "session_days")
_SEEN = (RECORDS.table, SESSIONS.table)
_OF_USERS = ("day_users", "day_ids", "fresh_ids")
_OF_SESSIONS = (*_BY_START, "sessions_raw")


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
        (events, known), held = both(partial(read, store), partial(store.partitions, (*_BY_DAY, *_BY_START, *_SEEN)))
        plans = plan(store, services, events, known)
        revision = known.next_revision()
        dirty = {name: each for name, each in plans.items() if each.clear}
        if dirty:
            with store.cleared_up():
                lie = Lie(held, known.ever, events.rows)
                dirty = _Build(store, services, lie, revision, lambda: locks.check(lease)).run(dirty)
        write_built(store, services, plans, events, known, revision)
    days = {name: each.clear for name, each in dirty.items()}
    return Refreshed(days, revision, time.monotonic() - started, store.statements, store.bytes_read)


@dataclass
class _Build:
    store: BlockStore
    services: Sequence[Service]
    lie: Lie
    revision: int
    check: Callable[[], None]  # raises when the lock is lost
    _tables: dict[str, str] = field(default_factory=dict[str, str])
    _making: threading.Lock = field(default_factory=threading.Lock)

    def run(self, plans: Mapping[str, ServicePlan]) -> dict[str, ServicePlan]:
        """Build the days of the plans, and those that share records with them; returns the plans with these."""
        for seen in (RECORDS, SESSIONS):
            renew(self.store, seen, self.lie.held, self.check)
        first = list(islice(self._pieces(plans), 2))
        if len(first) == 1:
            wanted, started = self._at_once(plans, first[0])
        else:
            wanted, losers = self._copies(plans)
            started = self._by_pieces(wanted, losers)
        cleared = _pairs(wanted)
        _, staged = both(
            lambda: note_changes(self.store, self.revision, {"events": cleared, "sessions": started}),
            lambda: self.store.partitions(self._table(block) for block in (*_BY_DAY, *_BY_START)),
        )
        together([partial(self._replace, _BY_DAY, cleared, staged), partial(self._replace, _BY_START, started, staged)])
        return wanted

    def _at_once(self, plans: Mapping[str, ServicePlan], piece: Piece) -> tuple[dict[str, ServicePlan], set[Pair]]:
        """Stage what follows from the events of the only piece, while copies of its records are looked for.

        Records hardly ever have copies. Where some have, what was staged is staged again, with all the days they need.
        Returns the plans with these, and the days whose sessions are staged.
        """
        self.store.threads = 1  # as many statements go side by side as fit
        names = (*_COLUMNS, *_OF_USERS, *_OF_SESSIONS)
        (wanted, losers), (started, _) = both(
            partial(self._copies, plans),
            partial(both, partial(self._of_piece, piece, _pairs(plans)), lambda: [*map(self._table, names)]),
        )
        if losers or wanted != plans:
            again = [table for name, table in self._tables.items() if name != RECORDS.block]
            together([partial(self.store.truncate, table) for table in again])
            started = self._by_pieces(wanted, losers)
        return wanted, started

    def _of_piece(self, piece: Piece, cleared: set[Pair]) -> set[Pair]:
        self._load(piece)

        def sessions() -> set[Pair]:
            together([partial(self._fill_parts, source, piece) for source in PIECES])
            return self._stage_sessions(cleared)

        def users() -> None:
            self._fill("user_days", piece)
            self._stage_users(cleared)
            self._fill("event_days", piece)
            self._keep_others(("event_days",), cleared)

        return both(sessions, users)[0]

    def _by_pieces(self, plans: Mapping[str, ServicePlan], losers: str | None) -> set[Pair]:
        """Stage the days of the plans, as many at a time as fit into memory; returns the days whose sessions are."""
        cleared = _pairs(plans)
        for piece in self._pieces(plans):
            self.store.truncate(self._table("kept"))
            self._load(piece, losers)
            parts = [partial(self._fill_parts, source, piece) for source in PIECES]
            together([*parts, partial(self._fill, "event_days", piece), partial(self._fill, "user_days", piece)])
        self._keep_others(("event_days",), cleared)
        return both(partial(self._stage_sessions, cleared), partial(self._stage_users, cleared))[0]

    def _copies(self, plans: Mapping[str, ServicePlan]) -> tuple[dict[str, ServicePlan], str | None]:
        """Stage the records; returns the plans with all days that share records, and the table of those not counted."""
        twin = self._table("record_uids")
        wanted, beyond = stage_uids(self.store, self.services, plans, twin, self.lie)
        losers = find_losers(self.store, self.services, wanted, beyond, twin)
        note(self.store, RECORDS, twin, _pairs(wanted), self.lie, unique=losers is None)
        self._keep_others(("record_uids",), _pairs(wanted))
        return wanted, losers

    def _pieces(self, plans: Mapping[str, ServicePlan]) -> Iterator[Piece]:
        return pieces(self.services, {name: each.build for name, each in plans.items()}, self.lie.rows, CHUNK_ROWS)

    def _load(self, piece: Piece, losers: str | None = None) -> None:
        """Put the events of the piece into `kept`, each once as far as is known."""
        unless = "" if losers is None else statement("blocks/but_losers", losers=losers)
        self.store.run(
            f"INSERT INTO {self._table('kept')} {statement('blocks/kept', unless=unless, **piece.expressions)}",
            piece.parameters,
            targets=piece.pairs,
            stretches=piece.stretches,
        )

    def _fill_parts(self, source: str, piece: Piece) -> None:
        """Add to the twin of session_parts what `source` takes of the events in `kept`."""
        self._fill("session_parts", piece, pieces=statement(f"blocks/{source}", kept=self._table("kept")))

    def _fill(self, block: str, piece: Piece, **names: str) -> None:
        """Add to the twin of a block what it has of the events in `kept`."""
        columns = ", ".join(_COLUMNS[block])
        self.store.run(
            f"INSERT INTO {self._table(block)} ({columns}) "
            f"SELECT {columns} FROM ({statement(f'blocks/{block}', kept=self._table('kept'), **names)})",
            {"view": piece.profile.view, "cart": piece.profile.cart},
        )

    def _stage_sessions(self, cleared: set[Pair]) -> set[Pair]:
        """Stage the sessions that started on the cleared days, or on days that have parts of their sessions.

        Returns all these days. The parts of the cleared days are staged.
        """
        staged = self._table("session_parts")
        parts = Parts(self.store, staged, cleared, self.lie)
        by_id = parts.sharing(cleared, cleared)
        note(self.store, SESSIONS, staged, cleared, self.lie)
        self._keep_others(("session_parts",), cleared)
        started = cleared | by_id | gap_linked(self.store, cleared, staged)
        stage_sessions(parts, started, by_id, self._table, {name: self._table(name) for name in _BY_START})
        self._keep_others(_BY_START, started)
        return started

    def _stage_users(self, cleared: set[Pair]) -> None:
        """Give new users their ids and stage the bitmaps; ids of users who then do not count do no harm."""
        day_ids, fresh_ids = self._table("day_ids"), self._table("fresh_ids")
        assign_ids(self.store, self._table("user_days"), day_ids, fresh_ids)
        stage_bitmaps(self.store, self._table("day_users"), day_ids, fresh_ids)
        self._keep_others(("user_days", "day_users"), cleared)

    def _keep_others(self, blocks: Sequence[str], pairs: set[Pair]) -> None:
        self.store.keep_others({block: self._table(block) for block in blocks}, pairs, self.lie.held)

    def _replace(self, blocks: Sequence[str], pairs: set[Pair], staged: Held) -> None:
        self.check()
        self.store.replace({block: self._table(block) for block in blocks}, pairs, staged)

    def _table(self, name: str) -> str:
        """The scratch table, or the twin of the block, made when it is first asked for."""
        with self._making:
            if name not in self._tables:
                make = self.store.scratch if name in SCRATCH else self.store.staged
                self._tables[name] = make(name)
            return self._tables[name]


def _pairs(plans: Mapping[str, ServicePlan]) -> set[Pair]:
    return {(name, day) for name, each in plans.items() for day in each.clear}
