"""The definitions of the metrics in plain Python: short, slow, obviously right. Nothing of the platform is used."""

from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from math import ceil
from zoneinfo import ZoneInfo

GAP_NS = 30 * 60 * 10**9
DAY = timedelta(days=1)
ONE = timedelta(seconds=1)
Row = tuple[object, ...]


@dataclass(frozen=True)
class Event:
    """One log record as it lies in the bucket."""

    time_ns: int
    name: str
    user: str | None
    session: str | None
    uid: str | None
    source: str
    position: int


@dataclass(frozen=True)
class Definitions:
    """What a service chooses."""

    time_zone: str = "UTC"
    min_date: date | None = None
    view: str = "product_view"
    cart: str = "add_to_cart"
    ages: tuple[int, int, int] = (7, 30, 90)


@dataclass(frozen=True)
class Session:
    day: date
    events: list[Event]

    @property
    def duration_ns(self) -> int:
        return self.events[-1].time_ns - self.events[0].time_ns


def order(event: Event) -> tuple[int, str, int]:
    return event.time_ns, event.source, event.position


def day_of(event: Event, zone: ZoneInfo) -> date:
    seconds = event.time_ns // 10**9
    return (datetime(1970, 1, 1, tzinfo=UTC) + seconds * ONE).astimezone(zone).date()


class Reference:
    """All seven tables of one service, rows without execution_date, sorted."""

    def __init__(self, events: list[Event], definitions: Definitions) -> None:
        self.definitions = definitions
        zone = ZoneInfo(definitions.time_zone)
        kept: dict[object, Event] = {}
        for event in sorted(events, key=lambda event: (event.source, event.position)):
            if definitions.min_date is None or day_of(event, zone) >= definitions.min_date:
                kept.setdefault(event.uid if event.uid is not None else (event.source, event.position), event)
        self.events: dict[date, list[Event]] = defaultdict(list)
        for event in kept.values():
            self.events[day_of(event, zone)].append(event)
        self.users = {day: {e.user for e in each if e.user is not None} for day, each in self.events.items()}
        self.first_day: dict[str, date] = {}
        for day in sorted(self.users):
            for user in self.users[day]:
                self.first_day.setdefault(user, day)
        self.sessions: dict[date, list[Session]] = defaultdict(list)
        for session in self._sessions(sorted(kept.values(), key=order)):
            day = day_of(session[0], zone)
            self.sessions[day].append(Session(day, session))

    def _sessions(self, events: list[Event]) -> list[list[Event]]:
        named: dict[str, list[Event]] = defaultdict(list)
        chains: dict[str, list[list[Event]]] = defaultdict(list)
        for event in events:
            if event.session is not None:
                named[event.session].append(event)
            elif event.user is not None:
                chain = chains[event.user]
                if not chain or event.time_ns - chain[-1][-1].time_ns > GAP_NS:
                    chain.append([])
                chain[-1].append(event)
        return [*named.values(), *(session for chain in chains.values() for session in chain)]

    def active(self, day: date) -> set[str]:
        return self.users.get(day, set())

    def within(self, last: date, days: int) -> set[str]:
        return set[str]().union(*(self.active(last - DAY * n) for n in range(days)))

    def dau(self) -> list[Row]:
        rows: list[Row] = []
        for day, events in self.events.items():
            new = sum(self.first_day[user] == day for user in self.active(day))
            dau = len(self.active(day))
            rows.append((day, dau, new, dau - new, len(self.sessions.get(day, [])), len(events)))
        return sorted(rows)

    def mau(self) -> list[Row]:
        rows: list[Row] = []
        day = min(self.events, default=date.max)
        while self.events and day <= max(self.events):
            mau, dau = len(self.within(day, 30)), len(self.active(day))
            stickiness = dau / mau if mau else None
            rows.append((day, mau, len(self.within(day, 28)), len(self.within(day, day.day)), dau, stickiness))
            day += DAY
        return rows

    def retention(self) -> list[Row]:
        rows: list[Row] = []
        for cohort_date in sorted(set(self.first_day.values())):
            cohort = {user for user, day in self.first_day.items() if day == cohort_date}
            exact: list[int | None] = []
            later: list[int | None] = []
            for n in (1, 7, 30):
                at = cohort_date + DAY * n
                ripe = at <= max(self.events)
                back = {user for day, users in self.users.items() if day >= at for user in users}
                exact.append(len(cohort & self.active(at)) if ripe else None)
                later.append(len(cohort & back) if ripe else None)
            rates = [None if found is None else found / len(cohort) for found in exact]
            rows.append((cohort_date, len(cohort), *exact, *rates, *later))
        return rows

    def conversion(self) -> list[Row]:
        rows: list[Row] = []
        for day, sessions in self.sessions.items():
            viewed = carted = 0
            for session in sessions:
                names = [event.name for event in session.events]
                if self.definitions.view in names:
                    viewed += 1
                    carted += self.definitions.cart in names[names.index(self.definitions.view) :]
            n = len(sessions)
            rows.append((day, n, viewed, carted, viewed / n, carted / viewed if viewed else None, carted / n))
        return sorted(rows)

    def user_cohort(self) -> list[Row]:
        rows: list[Row] = []
        recent, active, veteran = self.definitions.ages
        bands = {
            "new": (0, recent),
            "recent": (recent, active),
            "active": (active, veteran),
            "veteran": (veteran, 10**9),
        }
        for day, users in self.users.items():
            ages = [(day - self.first_day[user]).days for user in users]
            for cohort, (low, high) in bands.items() if users else ():
                n = sum(low <= age < high for age in ages)
                rows.append((day, cohort, n, n / len(users)))
        return sorted(rows)

    def session_metrics(self) -> list[Row]:
        rows: list[Row] = []
        for day, sessions in self.sessions.items():
            n = len(sessions)
            sizes = sorted(len(session.events) for session in sessions)
            lengths = sorted(session.duration_ns for session in sessions)
            users = {event.user for session in sessions for event in session.events if event.user is not None}

            def rank(values: list[int], percent: int, n: int = n) -> int:
                return values[ceil(percent * n / 100) - 1]

            rows.append(
                (day, n, len(users), sum(sizes), sum(sizes) / n, rank(sizes, 50), rank(sizes, 90), rank(sizes, 99),
                 sizes[-1], sum(lengths) / n / 1e9, rank(lengths, 50) / 1e9, rank(lengths, 90) / 1e9, sizes.count(1))
            )  # fmt: skip
        return sorted(rows)

    def event_distribution(self) -> list[Row]:
        rows: list[Row] = []
        for day, events in self.events.items():
            for name in {event.name for event in events}:
                those = [event for event in events if event.name == name]
                users = {event.user for event in those if event.user is not None}
                rows.append((day, name, len(those), len(users), len(those) / len(events)))
        return sorted(rows)
