"""Sessions put together from their parts: over midnight, over a day without a break, over whatever days they lie on."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from functools import partial

from data_platform.analytics.days import DAY
from data_platform.analytics.plan import chunks
from data_platform.analytics.seen import KEY_ROWS, SESSIONS, Lie, sharing
from data_platform.analytics.sql_files import statement
from data_platform.analytics.store import BlockStore, Pair, Rows, both, together

SESSION_DAYS = 31  # whose sessions are put together at once
# Of the parts of a user's events without session.id only one this long can carry a session over a whole day; the
# shortest local day has 22 hours or so.
WHOLE_DAY_NS = 20 * 3600 * 10**9


def gap_linked(store: BlockStore, pairs: set[Pair], staged: str) -> set[Pair]:
    """Days with parts of users' events without session.id that are of one session with parts in `pairs`, or staged."""
    found: set[Pair] = set()
    seen = set(pairs)
    frontier = set(pairs)
    while frontier:
        rows = store.rows(
            statement("blocks/gap_links", staged=staged, whole_day_ns=str(WHOLE_DAY_NS)),
            {"near": _near(day for _, day in frontier)},
            targets=sorted(frontier),
        )
        found |= {(str(name), day) for name, day, _ in rows}
        # Only a part that fills its day carries a session further; its whole day is followed, which costs little.
        frontier = {(str(name), day) for name, day, long in rows if long} - seen
        seen |= frontier
    return found


@dataclass(frozen=True)
class Parts:
    """The parts of sessions as they will be when the days of `cleared` have been replaced by those that are staged."""

    store: BlockStore
    staged: str
    cleared: set[Pair]
    lie: Lie

    def sharing(self, pairs: set[Pair], targets: set[Pair]) -> set[Pair]:
        """Days outside of `targets` with parts of the sessions, by session.id, that have or had a part in `pairs`."""
        return sharing(self.store, SESSIONS, self.staged, pairs, targets, self.lie)

    def statement(self, name: str, **names: str) -> str:
        """A statement over the parts."""
        parts = statement("blocks/parts_to_be", staged=self.staged)
        return statement(f"blocks/{name}", session_parts=parts, **names)

    @property
    def cleared_days(self) -> Rows:
        """The days of `cleared`, a table that travels with each statement over the parts."""
        return [(day,) for day in sorted({day for _, day in self.cleared})]


def stage_sessions(
    parts: Parts, pairs: set[Pair], by_id: set[Pair], scratch: Callable[[str], str], twins: Mapping[str, str]
) -> None:
    """Fill the twins of sessions and session_days with the sessions that started on the days of `pairs`.

    `by_id`: the days outside of parts.cleared that share sessions, by session.id, with it. `scratch`: makes a table.
    """
    store, raw = parts.store, scratch("sessions_raw")
    of_raw = {
        "sessions": f"SELECT service, day, events, duration_ns, viewed, carted FROM {raw}",
        "session_days": f"SELECT service, day, count(), uniqExactArray(users) FROM {raw} GROUP BY service, day",
    }
    near = pairs | by_id | parts.sharing(pairs - parts.cleared, pairs)
    days = {day for _, day in pairs}
    cut = None
    if len({day for _, day in near}) > 1:
        cut = scratch("cut")
        _find_cut(parts, near, cut)
    for number, piece in enumerate(chunks([*days], dict.fromkeys(days, 1), SESSION_DAYS)):
        within = set(piece)
        targets = {pair for pair in pairs if pair[1] in within}
        if number:
            store.truncate(raw)
        both(partial(_put_by_id, parts, raw, targets, near, cut), partial(_put_by_gaps, parts, raw, targets))
        together([partial(store.run, f"INSERT INTO {twins[block]} {sql}") for block, sql in of_raw.items()])


def _find_cut(parts: Parts, near: set[Pair], cut: str) -> None:
    """Fill `cut` with the sessions by session.id that have more than one part on the days of `near`."""
    events = sum(parts.lie.rows.get(day, 0) for day in {day for _, day in near})
    slices = 1 + events // (2 * KEY_ROWS)  # no more sessions than events
    for number in range(slices):
        parts.store.run(
            f"INSERT INTO {cut} {parts.statement('cut_sessions')}",
            {"slices": slices, "slice": number},
            near=sorted(near),
            cleared=parts.cleared_days,
        )


def _put_by_id(parts: Parts, raw: str, targets: set[Pair], near: set[Pair], cut: str | None) -> None:
    """Put the sessions by session.id into `raw`: nearly all lie in one day, and are not put together of parts."""
    if cut is None:
        sql = parts.statement("whole_sessions", unless="")
    else:
        whole = parts.statement("whole_sessions", unless=statement("blocks/but_cut", cut=cut))
        put_together = parts.statement("sessions", parts=parts.statement("id_parts", cut=cut))
        sql = f"{whole}\nUNION ALL\n{put_together}"
    parts.store.run(f"INSERT INTO {raw} {sql}", targets=sorted(targets), near=sorted(near), cleared=parts.cleared_days)


def _put_by_gaps(parts: Parts, raw: str, targets: set[Pair]) -> None:
    """Put the sessions of users' events without session.id into `raw`."""
    sql = parts.statement("sessions", parts=parts.statement("gap_parts"))
    days = _gap_days(parts, {day for _, day in targets})
    parts.store.run(f"INSERT INTO {raw} {sql}", {"gap_days": days}, targets=sorted(targets), cleared=parts.cleared_days)


def _gap_days(parts: Parts, days: Iterable[date]) -> list[date]:
    """The days whose parts can belong to a session that started on `days`, or show that it started before."""
    wanted = set(_near(days))
    sql = parts.statement("long_gap_parts", whole_day_ns=str(WHOLE_DAY_NS))
    while True:
        edges = [day for day in wanted if {day - DAY, day + DAY} - wanted]
        long = {row[0] for row in parts.store.rows(sql, {"edges": edges}, cleared=parts.cleared_days)}
        more = set(_near(long)) - wanted
        if not more:
            return sorted(wanted)
        wanted |= more


def _near(days: Iterable[date]) -> list[date]:
    """The days and two on either side: a zone that crosses the date line leaves a day out."""
    return sorted({day + DAY * step for day in days for step in range(-2, 3)})
