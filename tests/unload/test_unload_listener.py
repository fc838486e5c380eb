"""Requests that another system has failed or cancelled: the ledger follows, tells once, and ignores repetitions."""

import json
from collections.abc import Iterator
from uuid import uuid4

import pytest
import sqlalchemy as sa

from data_platform.clients import aws
from data_platform.ledger.outbox import outbox
from data_platform.ledger.unload_requests import UnloadRequest
from data_platform.ledger.unloads import unload_requests
from data_platform.local.cloud import Cloud
from data_platform.unload.listener import Listener
from tests.unload_bench import Bench, make_bench

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def bench(cloud: Cloud) -> Iterator[Bench]:
    with make_bench(cloud) as made:
        yield made


@pytest.mark.parametrize(("reported", "code"), [("FAILED", "REPORTED"), ("CANCELLED", None)])
def test_what_another_system_reports_is_taken_over_once(bench: Bench, reported: str, code: str | None) -> None:
    request_id = f"ext-{uuid4().hex[:8]}"
    with bench.ledger.begin() as connection:
        connection.execute(
            sa.insert(unload_requests).values(
                request_id=request_id, caller="nobody", body_hash=bytes(32), sql="select 1", options={"format": "csv"}
            )
        )
    told: list[UnloadRequest] = []
    s3 = aws.s3(bench.settings)
    listener = Listener(bench.settings, bench.ledger, s3, on_ready=lambda: None, on_final=told.append)
    notice = json.dumps({"eventId": str(uuid4()), "requestId": request_id, "status": reported}).encode()
    assert listener.handle(notice) == reported.lower()
    assert listener.handle(notice) == "seen"
    [request] = told
    assert (request.status.value, request.error_code) == (reported, code)
    with bench.ledger.connect() as connection:
        events = connection.execute(sa.select(outbox.c.payload).where(outbox.c.key == request_id)).scalars().all()
    assert [event["status"] for event in events] == [reported]
