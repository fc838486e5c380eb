"""Requests in Dagster: the job runs one that nobody claimed, the sensor tells of ended ones and starts the job."""

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import dagster as dg
import pytest
import sqlalchemy as sa

from data_platform.assets.unload_requests import UNLOAD_REQUESTS
from data_platform.clients import postgres
from data_platform.jobs.lookback import run_key
from data_platform.jobs.unload_requests import unload_request_job
from data_platform.ledger import migrate
from data_platform.ledger.unloads import unload_attempts, unload_requests
from data_platform.local.cloud import Cloud
from data_platform.resources.settings import SettingsResource
from data_platform.sensors.unload_requests import unload_requests_sensor
from data_platform.settings import Settings

pytestmark = pytest.mark.integration


@pytest.fixture
def own_settings(cloud: Cloud) -> Iterator[Settings]:
    """Settings with a ledger that no API process works on."""
    url = sa.make_url(cloud.settings.postgres_url.get_secret_value())  # type: ignore[union-attr]
    server = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    name = f"dagster_unload_{uuid4().hex}"
    with server.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    own = url.set(database=name).render_as_string(hide_password=False)
    yield Settings.model_validate({**cloud.settings.model_dump(), "postgres_url": own})
    with server.connect() as connection:
        connection.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))
    server.dispose()


def submitted(ledger: sa.Engine, sql: str) -> str:
    request_id = f"dag-{uuid4().hex[:8]}"
    with ledger.begin() as connection:
        connection.execute(
            sa.insert(unload_requests).values(
                request_id=request_id,
                caller="somebody",
                body_hash=bytes(32),
                sql=sql,
                options={"format": "csv", "header": True, "parallel": False},
                created_at=sa.func.now() - sa.text("interval '2 minutes'"),
            )
        )
    return request_id


def test_unclaimed_requests_are_run_by_the_job_and_told_once(own_settings: Settings) -> None:
    class Fixed(SettingsResource):
        def load(self) -> Settings:
            return own_settings

    ledger = postgres.engine(own_settings)
    migrate(ledger)
    good = submitted(ledger, "select 1 as one union all select 2")
    bad = submitted(ledger, "select * from nowhere.at_all")
    with dg.DagsterInstance.ephemeral() as instance:
        context = dg.build_sensor_context(instance=instance, resources={"platform": Fixed()})
        requests: list[Any] = list(unload_requests_sensor(start=False)(context))  # type: ignore[arg-type]
        assert [request.run_key for request in requests] == [run_key(name, "0", "0") for name in (good, bad)]
        outcomes = [
            unload_request_job.execute_in_process(
                run_config=request.run_config,
                resources={"platform": Fixed()},
                instance=instance,
                raise_on_error=False,
            )
            for request in requests
        ]
        assert [outcome.success for outcome in outcomes] == [True, False]
        told = instance.fetch_materializations(UNLOAD_REQUESTS, limit=10).records
        [event] = [record.asset_materialization for record in told]
        assert event is not None
        assert (event.metadata["request"].value, event.metadata["rows"].value) == (good, 2)
        context = dg.build_sensor_context(instance=instance, resources={"platform": Fixed()})
        [skipped] = list(unload_requests_sensor(start=False)(context))  # type: ignore[arg-type]
        assert isinstance(skipped, dg.SkipReason)
        assert len(instance.fetch_materializations(UNLOAD_REQUESTS, limit=10).records) == 1
    with ledger.connect() as connection:
        runs = connection.execute(sa.select(unload_attempts.c.run_id)).scalars().all()
    assert set(runs) == {outcome.run_id for outcome in outcomes}
    ledger.dispose()
