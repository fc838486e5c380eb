"""Sessions put together from their parts: over midnight, over a day without a break, over whatever days they lie on."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from functools import partial
from typing import Any

from data_platform.analytics.days import DAY
from data_platform.analytics.plan import ELSEWHERE, GAP_PARTS, ID_PARTS, chunks
from data_platform.analytics.sql_files import statement
from data_platform.analytics.store import BlockStore, Pair, Rows, both, together

SESSION_DAYS = 31  # whose sessions are put together at once
# Of the parts of a user's events without session.id only one this long can carry a session over a whole day; the
# shortest local day has 22 hours or so.
WHOLE_DAY_NS = 20 * 3600 * 10**9


def id_linked(store: BlockStore, pairs: set[Pair], staged: str) -> set[Pair]:
    """Days with parts of the sessions, by session.id, that have a part in `pairs`, present or staged."""
    if not pairs:
        return set()
    rows = store.rows(statement("blocks/id_links", staged=staged), targets=sorted(pairs))
    return {(str(name), day) for name, day in rows}


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


def stage_sessions(
    store: BlockStore, pairs: set[Pair], linked: tuple[set[Pair], set[Pair]], raw: str, twins: Mapping[str, str]
) -> None:
    """Fill the twins of sessions and session_days with the sessions that started on the days of `pairs`.

    `linked`: days whose id_linked days are known, and these.
    """
    known, by_id = linked
    of_raw = {
        "sessions": f"SELECT service, day, events, duration_ns, viewed, carted FROM {raw}",
        "session_days": f"SELECT service, day, count(), uniqExactArray(users) FROM {raw} GROUP BY service, day",
    }
    for number, piece in enumerate(chunks([*{day for _, day in pairs}], defaultdict(lambda: 1), SESSION_DAYS)):
        within = set(piece)
        targets = {pair for pair in pairs if pair[1] in within}
        if number:
            store.truncate(raw)
        elsewhere = (by_id | id_linked(store, targets - known, twins["session_parts"])) - targets
        of_ids = [ID_PARTS, ELSEWHERE] if elsewhere else [ID_PARTS]
        tables = {"targets": sorted(targets), "piece": sorted(elsewhere)}
        both(
            partial(_put, store, raw, of_ids, tables),
            lambda days=within, tables=tables: _put(store, raw, [GAP_PARTS], tables, gap_days=_gap_days(store, days)),
        )
        together([partial(store.run, f"INSERT INTO {twins[block]} {sql}") for block, sql in of_raw.items()])


def _put(store: BlockStore, raw: str, parts: Sequence[str], tables: Mapping[str, Rows], **parameters: Any) -> None:
    """Put the sessions made of the parts into `raw`."""
    made_of = "UNION ALL\n".join(f"{statement(f'blocks/{each}')}\n" for each in parts)
    store.run(f"INSERT INTO {raw} {statement('blocks/sessions', parts=made_of)}", parameters, **tables)


def _gap_days(store: BlockStore, days: Iterable[date]) -> list[date]:
    """The days whose parts can belong to a session that started on `days`, or show that it started before."""
    wanted = set(_near(days))
    while True:
        edges = [day for day in wanted if {day - DAY, day + DAY} - wanted]
        sql = statement("blocks/long_gap_parts", whole_day_ns=str(WHOLE_DAY_NS))
        long = {row[0] for row in store.rows(sql, {"edges": edges})}
        more = set(_near(long)) - wanted
        if not more:
            return sorted(wanted)
        wanted |= more


def _near(days: Iterable[date]) -> list[date]:
    """The days and two on either side: a zone that crosses the date line leaves a day out."""
    return sorted({day + DAY * step for day in days for step in range(-2, 3)})
