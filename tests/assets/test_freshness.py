"""When a table counts as late: the default, a dataset's own word, a history that is closed, and what has a policy."""

from datetime import UTC, date, datetime, timedelta

import dagster as dg
import pytest

from data_platform.assets.freshness import CYCLE, freshness_of, policy, with_freshness
from data_platform.assets.keys import Stage, stage_key
from tests.desk.conftest import catalog_of, dataset_of

pytestmark = pytest.mark.unit
NOW = datetime(2024, 3, 10, 6, tzinfo=UTC)


def windows(found: dg.FreshnessPolicy | None) -> tuple[timedelta, timedelta | None] | None:
    """When it fails and warns, for a policy of the kind we make."""
    if found is None:
        return None
    window = getattr(found, "fail_window", None)
    warn = getattr(found, "warn_window", None)
    return window.to_timedelta(), None if warn is None else warn.to_timedelta()


def test_a_table_is_late_a_cycle_and_its_hours_after_the_last_event_and_warns_half_way() -> None:
    assert windows(policy(36)) == (timedelta(hours=60), timedelta(hours=42))
    assert timedelta(hours=24) == CYCLE


def test_the_catalogue_s_hours_outweigh_the_default() -> None:
    assert windows(freshness_of(dataset_of("a"), default_hours=36, today=NOW)) == windows(policy(36))
    assert windows(freshness_of(dataset_of("a", freshness_hours=2), default_hours=36, today=NOW)) == windows(policy(2))


@pytest.mark.parametrize(
    ("end", "late"), [(date(2024, 3, 9), False), (date(2024, 3, 10), True), (date(2024, 12, 31), True)]
)
def test_a_history_that_is_closed_is_never_late(end: date, late: bool) -> None:
    found = freshness_of(dataset_of("a", end=end.isoformat()), default_hours=36, today=NOW)
    assert (found is not None) == late


def test_what_people_read_has_a_policy_and_one_s_own_is_kept() -> None:
    daily, closed = dataset_of("daily", freshness_hours=5), dataset_of("closed", end="2024-01-31")
    own = dg.FreshnessPolicy.time_window(fail_window=timedelta(hours=1))
    keys = [stage_key(stage, dataset) for dataset in (daily, closed) for stage in Stage]
    assets = [
        *(dg.AssetSpec(key) for key in keys),
        dg.AssetSpec(["summaries", "shop", "dau"]),
        dg.AssetSpec(["summaries", "shop", "mau"], freshness_policy=own),
        dg.AssetSpec(["redshift", "desk", "daily"]),
    ]
    fresh = dg.Definitions(with_freshness(assets, catalog_of(daily, closed), default_hours=36, today=NOW))
    found = {spec.key.to_user_string(): spec.freshness_policy for spec in fresh.resolve_all_asset_specs()}
    assert {key: windows(each) for key, each in found.items() if each is not None} == {
        "clickhouse/market/daily": windows(policy(5)),
        "summaries/shop/dau": windows(policy(36)),
        "summaries/shop/mau": windows(own),
    }
