"""Which engine a service's summaries are computed on: the catalogue's, else the settings'."""

import dagster as dg
import pytest
from pydantic import ValidationError

from data_platform.assets.summaries import SummaryConfig, summary_assets
from data_platform.catalog.models import Service
from data_platform.errors import ConfigurationError
from data_platform.settings import Settings

pytestmark = pytest.mark.unit
ON_ATHENA = Settings(metrics_engine="athena")  # pyright: ignore[reportCallIssue]


def upstream(service: Service, settings: Settings | None = None) -> dg.AssetKey:
    assets = summary_assets(service, settings)
    (key,) = {dep.asset_key for spec in assets.specs for dep in spec.deps}
    return key


def test_the_catalogue_decides_and_the_settings_where_it_does_not() -> None:
    curated, loaded = (
        dg.AssetKey(["curated", "analytics", "events"]),
        dg.AssetKey(["clickhouse", "analytics", "events"]),
    )
    assert upstream(Service(name="a")) == loaded
    assert upstream(Service(name="a"), ON_ATHENA) == curated
    assert upstream(Service(name="a", engine="clickhouse"), ON_ATHENA) == loaded
    assert upstream(Service(name="a", engine="athena")) == curated


def test_the_operation_takes_a_slot_of_its_engine_and_declares_its_checks() -> None:
    assets = summary_assets(Service(name="a", engine="athena"))
    assert assets.op.pool == "athena"
    names = {spec.name for spec in assets.check_specs}
    assert {"equals_other_engine", "equals_distinct_users", "not_empty"} <= names
    assert {"athena", "sql"} == set(next(iter(assets.specs)).kinds)


def test_an_engine_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValidationError):
        Service.model_validate({"name": "a", "engine": "spark"})
    with pytest.raises(ConfigurationError, match="spark"):
        _ = SummaryConfig(engine="spark").chosen
    assert SummaryConfig().chosen is None
