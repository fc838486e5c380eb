"""Which days of a service hang together, and so which have to be read and written again when some change. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from functools import lru_cache

from data_platform.analytics.days import DAY, local_days

Links = Mapping[date, frozenset[date]]


@dataclass(frozen=True)
class DayGraph:
    """Days that share records (by log.record.uid), share sessions (by session.id), and days that somebody fills."""

    records: Links = field(default_factory=dict[date, frozenset[date]])
    sessions: Links = field(default_factory=dict[date, frozenset[date]])
    fills: frozenset[date] = frozenset()

    def with_days(self, days: Iterable[date], pairs: Iterable[tuple[str, date, date]]) -> "DayGraph":
        """The graph after `days` were built anew: their ties are those of `pairs` (kind, day, other day) only."""
        anew = set(days)
        found: dict[str, dict[date, set[date]]] = {"record": {}, "session": {}, "fills": {}}
        for kind, mine, other in pairs:
            found[kind].setdefault(mine, set()).add(other)
            found[kind].setdefault(other, set()).add(mine)
        return DayGraph(
            _replaced(self.records, anew, found["record"]),
            _replaced(self.sessions, anew, found["session"]),
            frozenset((self.fills - anew) | found["fills"].keys()),
        )

    def joined(self, other: "DayGraph") -> "DayGraph":
        """What is tied in either: as it was and as it is."""

        def both(a: Links, b: Links) -> Links:
            return {day: a.get(day, frozenset()) | b.get(day, frozenset()) for day in a.keys() | b.keys()}

        return DayGraph(
            both(self.records, other.records), both(self.sessions, other.sessions), self.fills | other.fills
        )

    def copies(self, days: Iterable[date]) -> set[date]:
        """The days and those that share a record with them."""
        return _with(self.records, days)

    def session_days(self, days: Iterable[date], time_zone: str) -> set[date]:
        """The days and those a session of theirs may reach: by session.id, or from one day into the next.

        A session without session.id reaches over a whole day only where somebody fills that day.
        """
        found = frontier = set(days)
        while frontier:
            near = set[date]().union(*(neighbours(time_zone, day) for day in frontier)) - found
            found = found | near
            frontier = near & self.fills
        return found | _with(self.sessions, days)


@dataclass(frozen=True)
class Rebuild:
    """What follows from changed days: whose events change, whose sessions change, and what each has to read."""

    events: frozenset[date]
    sessions: frozenset[date]
    read_for_events: frozenset[date]
    read_for_sessions: frozenset[date]


def rebuild_of(changed: Iterable[date], graph: DayGraph, time_zone: str) -> Rebuild:
    """The rebuild of the `changed` days; `graph` has the ties before and after."""
    # Where a copy counts may move to or from every day that shares the record.
    events = graph.copies(changed)
    sessions = graph.session_days(events, time_zone)
    whole = graph.session_days(sessions, time_zone)  # of every session that started on one of them, all events
    return Rebuild(
        frozenset(events), frozenset(sessions), frozenset(graph.copies(events)), frozenset(graph.copies(whole))
    )


@lru_cache(maxsize=4096)
def neighbours(time_zone: str, day: date) -> frozenset[date]:
    """The day before and the day after, as the zone's calendar has them."""
    known = sorted(set(local_days(time_zone, day - 2 * DAY, day + 2 * DAY).labels))
    before = [each for each in known if each < day]
    after = [each for each in known if each > day]
    return frozenset([*before[-1:], *after[:1]])


def _replaced(old: Links, anew: set[date], found: Mapping[date, set[date]]) -> Links:
    made: dict[date, frozenset[date]] = {}
    for day in old.keys() | found.keys():
        kept = frozenset() if day in anew else old.get(day, frozenset()) - anew
        tied = kept | found.get(day, set())
        if tied:
            made[day] = frozenset(tied)
    return made


def _with(links: Links, days: Iterable[date]) -> set[date]:
    return set(days).union(*(links.get(day, frozenset()) for day in days))
