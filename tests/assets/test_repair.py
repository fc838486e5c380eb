"""Until when a schedule makes a failed day again by itself."""

from datetime import UTC, date, datetime

import pytest

from data_platform.assets.repair import Repair
from data_platform.jobs.lookback import last_days
from tests.desk.conftest import dataset_of

pytestmark = pytest.mark.unit
REPAIR = Repair("market_daily_schedule", 1, 7)


@pytest.mark.parametrize(
    ("now", "last"),
    [
        (datetime(2024, 3, 10, 2, tzinfo=UTC), date(2024, 3, 16)),
        (datetime(2024, 3, 16, 0, 59, tzinfo=UTC), date(2024, 3, 16)),
        (datetime(2024, 3, 16, 1, 0, tzinfo=UTC), None),  # the last tick is over
        (datetime(2024, 4, 1, tzinfo=UTC), None),
    ],
)
def test_a_day_is_promised_another_try_until_the_last_tick_that_looks_at_it(now: datetime, last: date | None) -> None:
    assert REPAIR.last_try("2024-03-09", now) == last


def test_the_last_tick_that_is_promised_looks_at_the_day_and_the_next_one_does_not() -> None:
    orders = dataset_of("orders")
    last = REPAIR.last_try("2024-03-09", datetime(2024, 3, 10, 2, tzinfo=UTC))
    assert last is not None
    at = [datetime(last.year, last.month, day, REPAIR.hour, tzinfo=UTC) for day in (last.day, last.day + 1)]
    assert ["2024-03-09" in last_days(orders, tick, REPAIR.lookback) for tick in at] == [True, False]


def test_a_snapshot_is_taken_anew_not_repaired() -> None:
    assert REPAIR.last_try(None, datetime(2024, 3, 10, tzinfo=UTC)) is None
    assert "takes a new snapshot every day at 01:00 UTC" in REPAIR.told(None, datetime(2024, 3, 10, tzinfo=UTC))
