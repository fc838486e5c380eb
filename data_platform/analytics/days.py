"""Calendar days of a time zone as stretches of UTC, and which local days a UTC day touches. Pure.

Both engines get these boundaries instead of a zone's name: their tables of zones are of different years, and ClickHouse
26.9 told another day than Python's zoneinfo around changes of the clock in 11 of 599 zones.
"""

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

STEP_S = 6 * 3600  # no zone changed its clock twice within
DAY = timedelta(days=1)
MARGIN_DAYS = 2  # no zone is further from UTC than a day


@dataclass(frozen=True)
class LocalDays:
    """Stretches of time, each within one local day: `starts` in seconds since 1970, ascending, and their days.

    A day may have more than one stretch: where the clock is set back over midnight the day comes back too.
    """

    starts: tuple[int, ...]
    labels: tuple[date, ...]

    def day_of(self, second: int) -> date:
        """The local day of an instant, in seconds since 1970."""
        return self.labels[bisect_right(self.starts, second) - 1]

    def between(self, first: int, end: int) -> set[date]:
        """The local days touched by [first, end)."""
        at, to = bisect_right(self.starts, first) - 1, bisect_right(self.starts, end - 1)
        return set(self.labels[at:to])

    def span(self, days: set[date]) -> tuple[int, int] | None:
        """From when to when it is one of `days`, in seconds since 1970; None if there are others between."""
        at = [number for number, label in enumerate(self.labels) if label in days]
        unbroken = at[-1] - at[0] + 1 == len(at)
        return (self.starts[at[0]], self.starts[at[-1] + 1]) if unbroken else None

    def utc_days(self, days: set[date]) -> tuple[date, date]:
        """The first and the last UTC day that any of the local `days` has a part in."""
        ends = (*self.starts[1:], self.starts[-1] + 1)
        own = [(start, end) for start, end, label in zip(self.starts, ends, self.labels, strict=True) if label in days]
        first, last = min(start for start, _ in own), max(end for _, end in own) - 1
        return datetime.fromtimestamp(first, UTC).date(), datetime.fromtimestamp(last, UTC).date()


@lru_cache(maxsize=256)
def local_days(time_zone: str, first: date, last: date) -> LocalDays:
    """The stretches that cover the UTC days `first`..`last` and two days on either side."""
    zone = ZoneInfo(time_zone)
    begin = _midnight(first - MARGIN_DAYS * DAY)
    end = _midnight(last + (MARGIN_DAYS + 1) * DAY)
    starts: list[int] = []
    labels: list[date] = []
    for start, until, offset in _offsets(zone, begin, end):
        at = start
        while at < until:
            label = datetime.fromtimestamp(at + offset, UTC).date()
            if not labels or labels[-1] != label:
                starts.append(at)
                labels.append(label)
            at = _midnight(label + DAY) - offset
    return LocalDays(tuple(starts), tuple(labels))


def days_touched(time_zone: str, ds: Iterable[date]) -> set[date]:
    """The local days that the UTC days have a part in."""
    wanted = sorted(ds)
    if not wanted:
        return set()
    known = local_days(time_zone, wanted[0], wanted[-1])
    return set[date]().union(*(known.between(_midnight(day), _midnight(day + DAY)) for day in wanted))


def _offsets(zone: ZoneInfo, begin: int, end: int) -> Iterable[tuple[int, int, int]]:
    """(start, end, offset from UTC) of stretches without a change of the clock, all in seconds."""
    start, offset = begin, _offset(zone, begin)
    for later in range(begin + STEP_S, end + STEP_S, STEP_S):
        now = _offset(zone, later)
        if now != offset:
            low, high = later - STEP_S, later
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (middle, high) if _offset(zone, middle) == offset else (low, middle)
            yield start, high, offset
            start, offset = high, now
    yield start, end, offset


def _offset(zone: ZoneInfo, second: int) -> int:
    offset = datetime.fromtimestamp(second, zone).utcoffset()
    return 0 if offset is None else int(offset.total_seconds())


def _midnight(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp())
