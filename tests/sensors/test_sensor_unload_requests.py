"""Requests that nobody claims, over outages of the ledger, runs that die before their claim, and dying daemons."""

import random
from collections import Counter
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import dagster as dg
import pytest
import sqlalchemy as sa
from pydantic import SecretStr

from data_platform.assets.unload_requests import UNLOAD_REQUESTS
from data_platform.clients import postgres
from data_platform.ledger import migrate
from data_platform.ledger.unloads import unload_requests
from data_platform.local.cloud import Cloud
from data_platform.local.process import free_port
from data_platform.sensors.unload_requests import MAX_RUNS, unload_requests_sensor
from data_platform.settings import Settings
from tests.sensors.conftest import Daemon, death

pytestmark = pytest.mark.integration


class Ledger:
    """A database of its own with requests that have waited for two minutes."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.engine = postgres.engine(settings)
        self.done: Counter[str] = Counter()

    def submit(self) -> str:
        request_id = f"req-{uuid4().hex[:10]}"
        with self.engine.begin() as connection:
            connection.execute(
                sa.insert(unload_requests).values(
                    request_id=request_id,
                    caller="somebody",
                    body_hash=bytes(32),
                    sql="select 1",
                    options={"format": "csv"},
                    created_at=sa.func.now() - sa.text("interval '2 minutes'"),
                )
            )
        return request_id

    def finish(self, request_id: str) -> None:
        """What the run does with a request it has claimed."""
        self.done[request_id] += 1
        with self.engine.begin() as connection:
            connection.execute(
                sa.update(unload_requests)
                .where(unload_requests.c.request_id == request_id)
                .values(status="DONE", attempt=1, rows=1, bytes=1, completed_at=sa.func.now(), expires_at=sa.func.now())
            )


@pytest.fixture
def ledger(cloud: Cloud) -> Iterator[Ledger]:
    url = sa.make_url(cloud.settings.postgres_url.get_secret_value())  # type: ignore[union-attr]
    server = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    name = f"sensor_{uuid4().hex}"
    with server.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    own = SecretStr(url.set(database=name).render_as_string(hide_password=False))
    found = Ledger(cloud.settings.model_copy(update={"postgres_url": own}))
    migrate(found.engine)
    yield found
    found.engine.dispose()
    with server.connect() as connection:
        connection.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))
    server.dispose()


def told(instance: dg.DagsterInstance) -> Counter[str]:
    """How often Dagster was told of each finished request."""
    records = instance.fetch_materializations(UNLOAD_REQUESTS, limit=1000).records
    return Counter(str(each.asset_materialization.metadata["request"].value) for each in records)  # type: ignore[union-attr]


@pytest.mark.parametrize("ticks", [25, pytest.param(100, marks=pytest.mark.load)])
def test_every_request_is_run_once_and_told_over_outages_and_deaths(
    ledger: Ledger,
    instance: dg.DagsterInstance,
    chance: random.Random,
    ticks: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    submitted: list[str] = []
    settings, deaths = ledger.settings, Counter[str]()
    port = free_port()

    def work(request: dg.RunRequest) -> bool:
        if chance.random() < 0.3 and instance.get_runs_count(dg.RunsFilter(tags=request.tags)) < MAX_RUNS - 1:
            deaths["before the claim"] += 1
            return False
        ledger.finish(str(request.run_config["ops"]["run_unload_request"]["config"]["request_id"]))
        return True

    report = instance.report_runless_asset_event

    def told_then_dead(event: Any) -> None:
        report(event)
        if chance.random() < 0.2:
            deaths["behind the report"] += 1
            raise RuntimeError("the daemon died between Dagster and the ledger")

    monkeypatch.setattr(instance, "report_runless_asset_event", told_then_dead)
    daemon = Daemon(unload_requests_sensor(start=False), lambda: settings, instance, work)
    for _ in range(ticks):
        if chance.random() < 0.4:
            submitted.append(ledger.submit())
        settings = ledger.settings
        if chance.random() < 0.2:
            away = sa.make_url(settings.postgres_url.get_secret_value()).set(host="127.0.0.1", port=port)  # type: ignore[union-attr]
            settings = settings.model_copy(
                update={"postgres_url": SecretStr(away.render_as_string(hide_password=False))}
            )
            deaths["outage"] += 1
        daemon.tick(dies=death(chance))
    settings = ledger.settings
    monkeypatch.setattr(instance, "report_runless_asset_event", report)
    for _ in range(2 * MAX_RUNS):
        daemon.tick()
    assert ledger.done == Counter(submitted), "each was done, and once"
    found = told(instance)
    assert set(found) == set(submitted)
    assert sum(found.values()) <= len(submitted) + deaths["behind the report"], "only a death makes a second report"
    assert min(deaths[name] for name in ("outage", "before the claim", "behind the report")) > 0
    assert daemon.seen["failed"] >= deaths["outage"]


def test_a_request_whose_runs_die_is_left_to_a_person_in_the_end(ledger: Ledger, instance: dg.DagsterInstance) -> None:
    ledger.submit()
    daemon = Daemon(unload_requests_sensor(start=False), lambda: ledger.settings, instance, lambda _: False)
    for _ in range(MAX_RUNS + 3):
        assert daemon.tick()
    assert len(daemon.runs) == MAX_RUNS
    assert len({request.run_key for request in daemon.runs}) == MAX_RUNS
