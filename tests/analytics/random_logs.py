"""Random logs of a service: few users and days, and every nuisance the definitions speak of."""

from datetime import UTC, date, datetime, timedelta
from random import Random
from zoneinfo import ZoneInfo

from tests.analytics.reference import Definitions, Event

ZONES = (
    *("UTC", "Asia/Seoul", "America/New_York", "Europe/London", "Australia/Lord_Howe", "America/Sao_Paulo"),
    *("Asia/Kathmandu", "Pacific/Apia", "Pacific/Kiritimati", "America/St_Johns", "Pacific/Pago_Pago", "Asia/Beirut"),
)
# Around changes of the clock, a date line crossed, an end of year.
STARTS = (date(2024, 3, 8), date(2024, 3, 30), date(2011, 12, 27), date(2010, 11, 4), date(2018, 11, 1))
NAMES = ("product_view", "add_to_cart", "page_view", "búsqueda 検索", "buy", "look")
MINUTE = 60 * 10**9
# Random ones, and those that begin with their time.
KINDS_OF_ID = ("uid-{0}", "uid-{0}", "01HV{1}{0:021}", "018f{1}b{0:030}", "01{0}")


def random_definitions(random: Random) -> Definitions:
    start = random.choice(STARTS)
    return Definitions(
        time_zone=random.choice(ZONES),
        min_date=start + timedelta(days=random.randrange(5)) if random.random() < 0.2 else None,
        **({"view": "look", "cart": "buy"} if random.random() < 0.3 else {}),
        ages=random.choice(((7, 30, 90), (7, 30, 90), (1, 2, 3), (2, 5, 9))),
    )


def random_events(random: Random, definitions: Definitions, start: date | None = None) -> list[Event]:
    """Events of a service in the order they were written; none for a few services."""
    if random.random() < 0.03:
        return []
    zone = ZoneInfo(definitions.time_zone)
    start = start or random.choice(STARTS)
    span = random.choice((1, 3, 8, 20, 45, 45, 100 if start.year == 2024 else 8))
    users = [None, *(f"user-{n}" for n in range(random.choice((1, 3, 8))))]
    sessions = [f"s{n}" for n in range(random.choice((1, 4, 12)))]
    steps = (0, 1, MINUTE, 29 * MINUTE, 30 * MINUTE, 30 * MINUTE + 1, 31 * MINUTE, 9 * 3600 * 10**9)
    midnights = [
        int(datetime(day.year, day.month, day.day, tzinfo=zone).timestamp()) * 10**9
        for day in (start + timedelta(days=random.randrange(span)) for _ in range(random.randint(1, 6)))
    ]
    if random.random() < 0.1:  # somebody who is never away for half an hour, over days
        now, user = midnights[0], random.choice(users)
        chain = [now + n * 29 * MINUTE for n in range(random.randint(60, 180))]
        named = None
    else:
        chain, user, named = [], None, None
    written: list[tuple[int, str | None, str | None]] = [(at, user, named) for at in chain]
    for midnight in midnights:
        now = midnight + random.choice(
            (-40 * MINUTE, -10 * MINUTE, -1, 0, 1, 10 * MINUTE, random.randrange(86_400 * 10**9))
        )
        user = random.choice(users)
        session = random.choice(sessions) if random.random() < 0.6 else None
        for _ in range(random.randint(1, 7)):
            other = random.choice(users) if random.random() < 0.1 else user
            written.append((now, other, session))
            now += random.choice(steps)
    events: list[Event] = []
    for position, (time_ns, user, session) in enumerate(written):
        uid = (
            None
            if random.random() < 0.3
            else random.choice(KINDS_OF_ID).format(
                random.randrange(4 * len(written)) if random.random() < 0.2 else position + 10**6,
                time_ns // (9 * 3600 * 10**9) % 10,
            )
        )
        events.append(Event(time_ns, random.choice(NAMES), user, session, uid, f"o/{random.randrange(3)}", position))
    for event in random.sample(events, len(events) // 10):  # delivered again, in another object, some days apart
        time_ns = event.time_ns + random.choice((0, 0, 0, 1, 5)) * 86_400 * 10**9
        events.append(
            Event(time_ns, event.name, event.user, event.session, event.uid, f"o/{random.randrange(5)}", len(events))
        )
    return events


def utc_day(event: Event) -> date:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=event.time_ns // 1000)).date()
