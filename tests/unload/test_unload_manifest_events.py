"""A manifest's object event wakes the reconciler: a request whose worker died is resolved when its UNLOAD ends."""

import json
import time
from collections.abc import Iterator
from uuid import uuid4

import pytest
import sqlalchemy as sa

from data_platform.clients import aws, postgres
from data_platform.ledger import migrate
from data_platform.ledger.unload_claims import RECONCILER
from data_platform.ledger.unloads import unload_attempts, unload_requests
from data_platform.local.cloud import Cloud
from data_platform.unload.execution import UnloadTarget, bucket_prefix, run_attempt
from data_platform.unload.manifest_events import ManifestEvents, attempt_of
from data_platform.unload.reconcile import Reconciler
from data_platform.unload.statement import UnloadOptions

OPTIONS = {"format": "csv", "header": True, "parallel": False}


@pytest.mark.unit
@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("unload-results/r-1/2/manifest", ("r-1", 2)),
        ("unload-results/a.b_c/17/manifest", ("a.b_c", 17)),
        ("unload-results/r-1/2/0000_part_00", None),
        ("unload-results/r-1/0/manifest", None),
        ("unload-results/r-1/x/manifest", None),
        ("unload-results/r-1/2/manifest/more", None),
        ("elsewhere/r-1/2/manifest", None),
        (None, None),
    ],
)
def test_a_key_tells_request_and_attempt(key: str | None, expected: tuple[str, int] | None) -> None:
    assert attempt_of(json.dumps({"key": key})) == expected


@pytest.mark.unit
@pytest.mark.parametrize("body", ["", "{", "[]", "null", '"text"', "{}"])
def test_what_is_no_event_is_ignored(body: str) -> None:
    assert attempt_of(body) is None


@pytest.fixture
def ledger(cloud: Cloud) -> Iterator[sa.Engine]:
    engine = postgres.engine(cloud.settings)
    migrate(engine)
    yield engine
    engine.dispose()


def left_behind(ledger: sa.Engine, cloud: Cloud, owner: str) -> str:
    """A request whose attempt 1 runs under a lease that ends in an hour: only an event can be quicker."""
    request_id = f"m-{uuid4().hex[:12]}"
    with ledger.begin() as connection:
        connection.execute(
            sa.insert(unload_requests).values(
                request_id=request_id,
                caller="nobody",
                body_hash=bytes(32),
                sql="select 1 as a",
                options=OPTIONS,
                status="RUNNING",
                attempt=1,
                started_at=sa.func.now(),
                lease_owner=owner,
                lease_until=sa.func.now() + sa.text("interval '1 hour'"),
            )
        )
        connection.execute(
            sa.insert(unload_attempts).values(
                request_id=request_id, attempt=1, worker=owner, prefix=f"{bucket_prefix(cloud.settings)}{request_id}/1/"
            )
        )
    return request_id


def unload(cloud: Cloud, request_id: str) -> None:
    run_attempt(
        cloud.settings,
        aws.s3(cloud.settings),
        sql="select 1 as a",
        target=UnloadTarget(cloud.settings.unload_bucket, request_id, "1"),
        options=UnloadOptions.model_validate(OPTIONS),
    )


def status_of(ledger: sa.Engine, request_id: str) -> str:
    with ledger.connect() as connection:
        query = sa.select(unload_requests.c.status).where(unload_requests.c.request_id == request_id)
        return connection.execute(query).scalar_one()


@pytest.mark.integration
def test_the_event_of_a_manifest_wakes_the_reconciler(cloud: Cloud, ledger: sa.Engine) -> None:
    reconciler = Reconciler(cloud.settings, ledger, aws.s3(cloud.settings))  # not started: it does not look by itself
    request_id = left_behind(ledger, cloud, f"{RECONCILER}one that waits")
    events = ManifestEvents(cloud.settings, reconciler.told)
    events.start()
    try:
        unload(cloud, request_id)
        deadline = time.monotonic() + 60
        while status_of(ledger, request_id) != "DONE":
            assert time.monotonic() < deadline, "the reconciler was not woken"
            time.sleep(0.1)
    finally:
        events.stop()


@pytest.mark.integration
def test_a_living_worker_is_left_alone(cloud: Cloud, ledger: sa.Engine) -> None:
    reconciler = Reconciler(cloud.settings, ledger, aws.s3(cloud.settings))
    request_id = left_behind(ledger, cloud, "a worker")
    unload(cloud, request_id)
    assert reconciler.told(request_id, 1)
    assert status_of(ledger, request_id) == "RUNNING"
    with ledger.begin() as connection:
        connection.execute(sa.delete(unload_requests).where(unload_requests.c.request_id == request_id))
