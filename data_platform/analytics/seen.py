"""Which days share keys with given ones, found without reading all days: what was ever seen where, ordered by key.

A `seen` table holds (key, day) of all that stands in its block, and of some that no longer does. It never misses a day;
whether the key is still there the block tells, of the few days that are left.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from data_platform.analytics.plan import chunks
from data_platform.analytics.sql_files import statement
from data_platform.analytics.store import DATABASE, BlockStore, Held, Pair, Partitions, partition_of

KEY_ROWS = 6_000_000  # whose keys are held in memory at once: about 200 MB
# From so many keys seen, and so many times those looked for, a merge costs less than a set: 5 ns a key, not 15 to 30.
MANY, TIMES = 4_000_000, 8
PARTS = 8  # merged with one by one: to put parts together in order costs ten times as much as to compare them
SPARE_ROWS = 10_000_000  # may be out of date in any case


@dataclass(frozen=True)
class Seen:
    """A table of what was seen, and what it tells of: the rows of a block where `only` holds, by `key` and `rest`."""

    table: str
    block: str
    key: str
    rest: str = "toUInt32(0)"
    only: str = "true"
    timed: bool = False  # a day's keys may lie close together

    @property
    def names(self) -> dict[str, str]:
        """What the statements call these."""
        return {"block": f"{DATABASE}.{self.block}", "key": self.key, "rest": self.rest, "only": self.only}


RECORDS = Seen("seen_records", "record_uids", "key", "rest", timed=True)
SESSIONS = Seen("seen_sessions", "session_parts", "hash", only="kind = 'id'")


def renew(store: BlockStore, seen: Seen, held: Held) -> None:
    """Make the table anew of what its block holds, if more than half of it is out of date."""
    live = _rows(held[seen.block])
    if _rows(held[seen.table]) <= 2 * live + SPARE_ROWS:
        return
    twin = store.staged(seen.table)
    if live:
        names = {**seen.names, "from": f"{DATABASE}.{seen.block}"}
        days = _column(map(date.fromisoformat, held[seen.block]))
        store.run(f"INSERT INTO {twin} (key, day) {statement('blocks/all_seen', **names)}", days=days)
    verb = f"REPLACE PARTITION ID 'all' FROM {twin}" if live else "DROP PARTITION ID 'all'"
    store.run(f"ALTER TABLE {DATABASE}.{seen.table} {verb}")


def note(
    store: BlockStore,
    seen: Seen,
    twin: str,
    days: Collection[date],
    held: Partitions,
    rows: Mapping[date, int],
) -> None:
    """Note what is staged on the days, before it takes the block's place; what stands there has been noted.

    `held`: the partitions of the block. `rows`: about how many a day has.
    """
    old = [day for day in days if partition_of(seen.block, day) in held]
    names = {**seen.names, "from": twin}
    new = [*{*days} - {*old}]
    if new:
        store.run(_note(seen, statement("blocks/all_seen", **names)), days=_column(new))
    for piece in chunks(old, rows, KEY_ROWS):
        store.run(_note(seen, statement("blocks/newly_seen", **names)), days=_column(piece))


def sharing(
    store: BlockStore,
    seen: Seen,
    twin: str,
    pairs: Sequence[Pair],
    targets: Sequence[Pair],
    held: Held,
    rows: Mapping[date, int],
) -> set[Pair]:
    """Days of the block outside of `targets` that share a key with one of `pairs`, as it is or as it is staged.

    `held`: the partitions of the block and of what was seen. `rows`: about how many a day has.
    """
    others = {date.fromisoformat(each) for each in held[seen.block]} - _whole(targets)
    if not others or not pairs:
        return set()
    days = {day for _, day in pairs}
    names = {**seen.names, "twin": twin, "first": f"{min(days)}", "last": f"{max(days)}"}
    sought = f"({statement('blocks/sought', **names)})"
    before = any(partition_of(seen.block, day) in held[seen.block] for day in days)
    if before or len(days) > 1:  # else it lies in order as it is
        table = store.scratch("sought")
        store.run(f"INSERT INTO {table} (key, rest) {statement('blocks/sought', **names)}")
        if before:
            sql = statement("blocks/sought_before", sought=table, **names)
            store.run(f"INSERT INTO {table} (key, rest) {sql}", piece=pairs)
        sought = table
    near = others & _candidates(store, seen, sought, held[seen.table], sum(rows.get(day, 0) for day in days))
    if not near:
        return set()
    found = store.rows(statement("blocks/sharing", sought=sought, **names), targets=targets, days=_column(near))
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


def _whole(targets: Sequence[Pair]) -> set[date]:
    """The days that are targets for every service that has targets."""
    names = {name for name, _ in targets}
    every = set(targets)
    return {day for day in {day for _, day in targets} if all((name, day) in every for name in names)}


def _column(days: Iterable[date]) -> list[tuple[object, ...]]:
    return [(day,) for day in sorted(days)]
