"""Who did what in the two sample shops: users that come, return and leave, and their sessions. Pure and seeded.

What belongs here: the people's behaviour. What does not: telemetry formats (otel.py) and S3 (load.py).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from functools import cached_property
from random import Random
from zoneinfo import ZoneInfo

# 64 days inside the year of the sample flights, so that one range of days covers every dataset, and long enough for
# D+30 retention of half of the cohorts.
FIRST_DAY = date(2013, 1, 1)
LAST_DAY = date(2013, 3, 5)
SEED = "shops-1"

NANOSECONDS = 1_000_000_000
DAY = timedelta(days=1)
# Share of a day's sessions that start in each local hour: lunch and evening peaks, a little before midnight.
HOURS = (2, 1, 1, 1, 1, 2, 4, 7, 10, 12, 13, 14, 16, 14, 12, 12, 13, 14, 16, 19, 22, 20, 14, 9)
WEEKDAYS = (0.9, 0.88, 0.92, 0.95, 1.05, 1.2, 1.12)  # Monday first
LATE_SHARE = 0.004  # delivered by a phone that was offline, up to three days later
DUPLICATE_SHARE = 0.003  # delivered twice by an exporter that retried
# (next step, its chance) after each step of a visit; what is left is leaving the shop.
STEPS: dict[str, tuple[tuple[str, float], ...]] = {
    "session_start": (("page_view", 0.55), ("product_view", 0.27), ("search", 0.12)),
    "page_view": (("product_view", 0.46), ("page_view", 0.14), ("search", 0.14)),
    "search": (("product_view", 0.68), ("search", 0.12)),
    "product_view": (("product_view", 0.36), ("add_to_cart", 0.2), ("page_view", 0.1)),
    "add_to_cart": (("purchase", 0.38), ("product_view", 0.26), ("page_view", 0.08)),
    "purchase": (("page_view", 0.12),),
}


@dataclass(frozen=True, slots=True)
class ShopEvent:
    """One thing that happened. Times are nanoseconds since 1970; `delivered_ns` is when the log was exported."""

    time_ns: int
    delivered_ns: int
    name: str
    uid: str  # log.record.uid: the same for every delivery of one event
    user_id: str | None
    session_id: str | None
    trace_id: int
    attributes: dict[str, str | int | float | bool] = field(default_factory=dict[str, str | int | float | bool])


@dataclass(frozen=True)
class Shop:
    """One sample service. `legacy_share` of its visits come from an app that still writes the older attributes."""

    service: str
    time_zone: str
    users: int
    products: int
    categories: tuple[str, ...]
    legacy_share: float = 0.0

    @cached_property
    def zone(self) -> ZoneInfo:
        """The zone in which its customers live."""
        return ZoneInfo(self.time_zone)


SHOPS = (
    Shop("theshop-brand", "UTC", users=1000, products=240, categories=("bags", "shoes", "coats", "watches")),
    Shop(
        "theshop-pharmacy",
        "Asia/Seoul",
        users=650,
        products=120,
        categories=("vitamins", "skin", "first-aid", "baby"),
        legacy_share=0.12,
    ),
)


@dataclass(frozen=True, slots=True)
class _Customer:
    user_id: str
    first_day: int  # day of the first visit, counted from FIRST_DAY
    last_day: int  # the day from which the customer never comes back
    loyalty: float  # chance of a visit on a day in between


def days() -> list[date]:
    """Every sample day, first to last."""
    return [FIRST_DAY + DAY * n for n in range((LAST_DAY - FIRST_DAY).days + 1)]


def shop_events(shop: Shop) -> list[ShopEvent]:
    """All deliveries of a shop in the order of their export, late and repeated ones included."""
    random = Random(f"{SEED}:{shop.service}")  # noqa: S311 - sample data, not a secret
    customers = [_customer(shop, number, random) for number in range(1, shop.users + 1)]
    events: list[ShopEvent] = []
    for number, day in enumerate(days()):
        for customer in customers:
            comes = number == customer.first_day or (
                customer.first_day < number < customer.last_day
                and random.random() < customer.loyalty * WEEKDAYS[day.weekday()]
            )
            if comes:
                for _ in range(2 if random.random() < 0.18 else 1):
                    events.extend(_visit(shop, day, customer.user_id, random))
        for _ in range(random.randint(2, 5)):
            events.extend(_visit(shop, day, None, random))
        events.extend(_strays(day, customers, random))
    end = _nanoseconds(datetime.combine(LAST_DAY + DAY, time(), UTC))
    # A visit of the last local day may run past the last UTC day; what is outside the range is not sample data.
    begin = _nanoseconds(datetime.combine(FIRST_DAY, time(), UTC))
    inside = [event for event in events if begin <= event.time_ns < end]
    return sorted([*inside, *_repeated(inside, random)], key=lambda event: (event.delivered_ns, event.uid))


def _customer(shop: Shop, number: int, random: Random) -> _Customer:
    first = int((LAST_DAY - FIRST_DAY).days * random.random() ** 1.5)
    stay = 1 + int(random.expovariate(1 / 34))
    return _Customer(
        user_id=f"{shop.service.removeprefix('theshop-')}-{number:05d}",
        first_day=first,
        last_day=first + stay,
        loyalty=0.08 + 0.6 * random.random() ** 1.8,
    )


def _visit(shop: Shop, day: date, user_id: str | None, random: Random) -> Iterator[ShopEvent]:
    """One session of a customer, or of somebody who did not log in."""
    hour = random.choices(range(24), HOURS)[0]
    local = datetime.combine(day, time(hour, random.randrange(60), random.randrange(60)), shop.zone)
    now = _nanoseconds(local) + random.randrange(NANOSECONDS)
    session = f"{random.getrandbits(64):016x}"
    trace = random.getrandbits(128)
    legacy = random.random() < shop.legacy_share
    step = "session_start"
    while step:
        attributes = _attributes(shop, step, random)
        if legacy:
            attributes["app.legacy"] = True
        yield _event(now, step, user_id, session, trace, attributes, random)
        now += int((4 + random.expovariate(1 / 70)) * NANOSECONDS)
        step = _next_step(step, random)


def _next_step(step: str, random: Random) -> str:
    chance = random.random()
    for following, share in STEPS[step]:
        chance -= share
        if chance < 0:
            return following
    return ""


def _attributes(shop: Shop, step: str, random: Random) -> dict[str, str | int | float | bool]:
    if step in {"product_view", "add_to_cart", "purchase"}:
        product = random.randrange(shop.products)
        attributes: dict[str, str | int | float | bool] = {
            "product.id": f"p{product:04d}",
            "product.category": shop.categories[product % len(shop.categories)],
        }
        if step != "product_view":
            attributes["product.quantity"] = random.choice((1, 1, 1, 2, 3))
        if step == "purchase":
            attributes["order.total"] = round(5 + random.expovariate(1 / 60), 2)
        return attributes
    if step == "search":
        return {"search.results": random.randrange(40)}
    return {"url.path": "/" if step == "session_start" else f"/{random.choice(shop.categories)}"}


def _strays(day: date, customers: list[_Customer], random: Random) -> Iterator[ShopEvent]:
    """Events outside any session: a notice opened by a user, a crash of an app that knows neither user nor session."""
    midnight = _nanoseconds(datetime.combine(day, time(), UTC))
    number = (day - FIRST_DAY).days
    present = [customer for customer in customers if customer.first_day < number < customer.last_day]
    for customer in random.sample(present, min(len(present), random.randint(1, 4))):
        now = midnight + random.randrange(86_400) * NANOSECONDS
        for _ in range(random.randint(1, 2)):  # two within half an hour are one session of that user
            yield _event(now, "notification_open", customer.user_id, None, 0, {"campaign": f"c{number:02d}"}, random)
            now += random.randrange(60, 3_000) * NANOSECONDS
    if random.random() < 0.5:
        now = midnight + random.randrange(86_400) * NANOSECONDS
        yield _event(now, "app_crash", None, None, 0, {"exception.type": "OutOfMemoryError"}, random)


def _event(
    time_ns: int,
    name: str,
    user_id: str | None,
    session_id: str | None,
    trace_id: int,
    attributes: dict[str, str | int | float | bool],
    random: Random,
) -> ShopEvent:
    waited = random.randrange(3_600, 3 * 86_400) if random.random() < LATE_SHARE else random.randrange(1, 20)
    return ShopEvent(
        time_ns=time_ns,
        delivered_ns=time_ns + waited * NANOSECONDS,
        name=name,
        uid=f"{random.getrandbits(128):032x}",
        user_id=user_id,
        session_id=session_id,
        trace_id=trace_id,
        attributes=attributes,
    )


def _repeated(events: list[ShopEvent], random: Random) -> Iterator[ShopEvent]:
    """Second deliveries: the record is the same to the byte, only its export is later."""
    for event in events:
        if random.random() < DUPLICATE_SHARE:
            delay = random.choice((5, 30, 3_600, 86_400)) * NANOSECONDS
            yield ShopEvent(
                event.time_ns, event.delivered_ns + delay, event.name, event.uid, event.user_id, event.session_id,
                event.trace_id, event.attributes,
            )  # fmt: skip


def _nanoseconds(moment: datetime) -> int:
    return int(moment.timestamp()) * NANOSECONDS
