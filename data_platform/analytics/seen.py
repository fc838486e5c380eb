"""Which days share keys with given ones, found without reading all days: what was ever seen where, ordered by key.

A `seen` table holds (key, day) of all that stands in its block, and of some that no longer does. It never misses a day;
whether the key is still there the block tells, of the few days that are left.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import date
from typing import Any

from data_platform.analytics.plan import chunks
from data_platform.analytics.sql_files import statement
from data_platform.analytics.store import DATABASE, BlockStore, Held, Pair, Partitions, partition_of
from data_platform.catalog.ddl import literal

KEY_ROWS = 6_000_000  # whose keys are held in memory at once: about 400 MB
# From so many keys seen, and so many times those looked for, a merge costs less than a set: 5 ns a key, not 15 to 30.
MANY, TIMES = 4_000_000, 8
PARTS = 8  # merged with one by one: to put parts together in order costs ten times as much as to compare them
SPARE_ROWS = 10_000_000  # more than twice what stands may be there in any case


_IN_PIECE = "day IN (SELECT day FROM piece) AND (service, day) IN (SELECT service, day FROM piece)"


@dataclass(frozen=True)
class Lie:
    """How things lie before a refresh changes them.

    `held`: the partitions of the blocks and of what was seen; `built`: the days of services that ever had something in
    the blocks; `rows`: how many events a day has, about.
    """

    held: Held
    built: AbstractSet[Pair]
    rows: Mapping[date, int]

    def standing(self, block: str, pairs: Iterable[Pair]) -> set[date]:
        """The days of the block that may hold something of these."""
        held = self.held[block]
        return {day for name, day in pairs if (name, day) in self.built and partition_of(block, day) in held}


@dataclass(frozen=True)
class Seen:
    """A table of what was seen, and what it tells of: the rows of a block where `only` holds, by `key`.

    `rest` tells apart rows of the same key, where the key does not.
    """

    table: str
    block: str
    key: str
    rest: str | None = None
    only: str = "true"
    timed: bool = False  # a day's keys may lie close together

    @property
    def names(self) -> dict[str, str]:
        """What the statements call these."""
        rest = self.rest or "toUInt32(0)"
        return {"block": f"{DATABASE}.{self.block}", "key": self.key, "rest": rest, "only": self.only}


RECORDS = Seen("seen_records", "record_uids", "key", "rest", timed=True)
SESSIONS = Seen("seen_sessions", "session_parts", "hash", only="kind = 'id'")


def renew(store: BlockStore, seen: Seen, held: Held, check: Callable[[], None]) -> None:
    """Make the table anew of its block, if it is much larger than that, or was emptied. `check`: of the lock."""
    live, known = _rows(held[seen.block]), _rows(held[seen.table])
    if known <= 2 * live + SPARE_ROWS and (known or not live):
        return
    twin = store.staged(seen.table)
    names = {**seen.names, "from": f"{DATABASE}.{seen.block}", "distinct": "DISTINCT"}
    rows = {date.fromisoformat(day): each.rows for day, each in held[seen.block].items()}
    for piece in chunks([*rows], rows, KEY_ROWS):
        store.run(f"INSERT INTO {twin} (key, day) {statement('blocks/all_seen', **names)}", days=_column(piece))
    anything = store.partitions([twin])[twin]
    check()
    if anything or known:
        verb = f"REPLACE PARTITION ID 'all' FROM {twin}" if anything else "DROP PARTITION ID 'all'"
        store.run(f"ALTER TABLE {DATABASE}.{seen.table} {verb}")


def note(store: BlockStore, seen: Seen, twin: str, pairs: Collection[Pair], lie: Lie, *, unique: bool = True) -> None:
    """Note what is staged of `pairs`, and nothing else is, before it takes the block's place.

    `unique`: whether no key stands twice on a day. Once a day is enough, and what is merged with costs the product.
    """
    old = lie.standing(seen.block, pairs)
    names = {**seen.names, "from": twin, "distinct": "" if unique else "DISTINCT"}
    new = {day for _, day in pairs} - old
    for piece in chunks([*new], lie.rows, KEY_ROWS):
        store.run(_note(seen, statement("blocks/all_seen", **names)), days=_column(piece))
    for piece in chunks([*old], lie.rows, KEY_ROWS):
        store.run(_note(seen, statement("blocks/newly_seen", **names)), days=_column(piece))


def sharing(
    store: BlockStore, seen: Seen, twin: str, pairs: Collection[Pair], targets: Collection[Pair], lie: Lie
) -> set[Pair]:
    """Days of the block outside of `targets` that share a key with one of `pairs`, as it is or as it is staged."""
    others = {date.fromisoformat(each) for each in lie.held[seen.block]} - _whole(targets)
    found: set[Pair] = set()
    for days in chunks([*{day for _, day in pairs}], lie.rows, KEY_ROWS) if others else ():
        within = set(days)
        piece = sorted(pair for pair in pairs if pair[1] in within)
        found |= _sharing(store, seen, twin, piece, sorted(targets), others, lie)
    return found


def _sharing(
    store: BlockStore,
    seen: Seen,
    twin: str,
    pairs: Sequence[Pair],
    targets: Sequence[Pair],
    others: set[date],
    lie: Lie,
) -> set[Pair]:
    days = sorted({day for _, day in pairs})
    before = lie.standing(seen.block, pairs)
    names = {**seen.names, "twin": twin}
    table = None
    if before or len(days) > 1:
        table = store.scratch("sought")
        store.run(f"INSERT INTO {table} (key, rest) {statement('blocks/sought', of=_IN_PIECE, **names)}", piece=pairs)
        if before:
            sql = statement("blocks/sought_before", of=_IN_PIECE, sought=table, **names)
            store.run(f"INSERT INTO {table} (key, rest) {sql}", piece=pairs)
        sought = table
    else:  # it lies in order as it is
        services = ", ".join(literal(name) for name, _ in pairs)
        sought = (
            f"({statement('blocks/sought', of=f'day = {literal(str(days[0]))} AND service IN ({services})', **names)})"
        )
    near = others & _candidates(store, seen, sought, lie.held[seen.table], sum(lie.rows.get(day, 0) for day in days))
    found: Sequence[Sequence[Any]] = ()
    if near:
        exact = f"AND ({seen.key}, {seen.rest}) IN (SELECT key, rest FROM {sought})" if seen.rest else ""
        sql = statement("blocks/sharing", sought=sought, exact=exact, **names)
        found = store.rows(sql, targets=targets, days=_column(near))
    if table:
        store.truncate(table)
    return {(str(name), day) for name, day in found}


def _candidates(store: BlockStore, seen: Seen, sought: str, held: Partitions, keys: int) -> set[date]:
    """The days that may have one of the about `keys` keys of `sought`."""
    ends = "true"
    if seen.timed:
        [[low, high]] = store.rows(f"SELECT min(key), max(key) FROM {sought}")
        ends = f"key BETWEEN {low} AND {high}"
    names = {"seen": f"{DATABASE}.{seen.table}", "sought": sought, "ends": ends}
    if _rows(held) > max(MANY, TIMES * keys):
        parts = [part for each in held.values() for part in each.parts][:PARTS]
        # What is merged meanwhile is in no part that was known; all else comes last, so nothing is left out.
        which = [f"_part = '{part}'" for part in parts] + [f"_part NOT IN {parts}"]
        sql = " UNION ALL ".join(f"({statement('blocks/seen_in_part', part=part, **names)})" for part in which)
        settings = "join_algorithm = 'full_sorting_merge', enable_shared_storage_snapshot_in_query = 1"
        sql = f"SELECT DISTINCT day FROM ({sql}) SETTINGS {settings}"
    else:
        sql = statement("blocks/seen_in_all", **names)
    return {row[0] for row in store.rows(sql)}


def _rows(held: Partitions) -> int:
    return sum(each.rows for each in held.values())


def _note(seen: Seen, sql: str) -> str:
    # What was noted before and then dropped may come again, the same to the byte.
    return f"INSERT INTO {DATABASE}.{seen.table} (key, day) SETTINGS insert_deduplicate = 0 {sql}"


def _whole(targets: Collection[Pair]) -> set[date]:
    """The days that are targets for every service that has targets."""
    names = {name for name, _ in targets}
    every = set(targets)
    return {day for day in {day for _, day in targets} if all((name, day) in every for name in names)}


def _column(days: Iterable[date]) -> list[tuple[object, ...]]:
    return [(day,) for day in sorted(days)]
