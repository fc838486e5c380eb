"""Requests while things fail: cancelled, capped, retried, killed workers, a broker that is away, an API that ends."""

import json
import time
from typing import Any
from uuid import uuid4

import pytest
import sqlalchemy as sa

from data_platform.clients import aws, kafka
from data_platform.ledger.outbox import outbox
from data_platform.ledger.unloads import unload_attempts, unload_requests
from data_platform.local.cloud import Cloud
from data_platform.unload.events import event_id

pytestmark = pytest.mark.scenario


def objects(cloud: Cloud, request_id: str) -> set[str]:
    s3 = aws.s3(cloud.settings)
    listed = s3.list_objects_v2(Bucket=cloud.settings.unload_bucket, Prefix=f"unload-results/{request_id}/")
    return {item.get("Key", "") for item in listed.get("Contents", [])}


def eventually(condition: Any, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.1)


def query(name: str) -> str:
    return f"select id as {name}, name from market.api_rows"


def attempts(ledger: sa.Engine, request_id: str) -> list[tuple[int, str, str | None]]:
    columns = (unload_attempts.c.attempt, unload_attempts.c.status, unload_attempts.c.error_code)
    with ledger.connect() as connection:
        rows = connection.execute(
            sa.select(*columns).where(unload_attempts.c.request_id == request_id).order_by(unload_attempts.c.attempt)
        )
        return [tuple(row) for row in rows]


def test_cancel_stops_the_query_within_seconds_and_leaves_nothing(client: Any, cloud: Cloud) -> None:
    name = f"c{uuid4().hex[:8]}"
    slow = cloud.faults("warehouse").arm("unload.slow", match={"query": f"*{name}*"}, seconds=60)
    request_id = client.submit(query(name)).body["requestId"]
    eventually(lambda: cloud.faults("warehouse").struck(slow) == 1)
    started = time.monotonic()
    assert client.call("POST", f"/api/unload/{request_id}/cancel").status == 202
    assert client.wait(request_id)["status"] == "CANCELLED"
    assert time.monotonic() - started < 5
    eventually(lambda: not objects(cloud, request_id))
    assert client.call("POST", f"/api/unload/{request_id}/cancel").status == 409


def test_transient_failure_is_tried_again_under_another_prefix(client: Any, cloud: Cloud, ledger: sa.Engine) -> None:
    name = f"t{uuid4().hex[:8]}"
    fault = cloud.faults("warehouse").arm("redshift.error", match={"sql": f"UNLOAD*{name}*"}, times=2)
    state = client.unload(query(name))
    assert (state["status"], state["rows"]) == ("DONE", 1000)
    assert cloud.faults("warehouse").struck(fault) == 2
    assert [status for _, status, _ in attempts(ledger, state["requestId"])] == ["FAILED", "FAILED", "DONE"]
    assert {key.split("/")[2] for key in objects(cloud, state["requestId"])} == {"3"}


def test_after_three_attempts_it_is_failed(client: Any, cloud: Cloud, ledger: sa.Engine) -> None:
    name = f"t{uuid4().hex[:8]}"
    fault = cloud.faults("warehouse").arm("unload.s3_error", match={"query": f"*{name}*"}, times=None)
    state = client.unload(query(name))
    assert state["status"] == "FAILED"
    assert "InternalError" in state["error"]["message"]
    assert cloud.faults("warehouse").struck(fault) == 3
    assert len(attempts(ledger, state["requestId"])) == 3
    eventually(lambda: not objects(cloud, state["requestId"]))


@pytest.mark.parametrize(
    ("kind", "arguments", "code"),
    [
        ("unload.refuse_role", {}, "XX000"),
        ("unload.no_manifest", {}, "PROOF"),
        ("unload.lying_manifest", {"what": "missing_entry"}, "PROOF"),
        ("unload.lying_manifest", {"what": "extra_entry"}, "PROOF"),
        ("unload.lying_manifest", {"what": "wrong_count"}, "PROOF"),
        ("unload.lying_manifest", {"what": "wrong_length"}, "PROOF"),
        ("unload.wrong_count", {"by": 1}, "PROOF"),
        ("unload.timeout", {}, "TIMEOUT"),
        ("unload.die_after_files", {"files": 1}, "XX000"),
    ],
)
def test_permanent_failure_is_told_once_and_leaves_no_files(
    client: Any, cloud: Cloud, kind: str, arguments: dict[str, Any], code: str
) -> None:
    name = f"p{uuid4().hex[:8]}"
    fault = cloud.faults("warehouse").arm(kind, match={"query": f"*{name}*"}, times=None, **arguments)
    state = client.unload(query(name), parallel=True)
    assert (state["status"], state["error"]["code"]) == ("FAILED", code), state
    assert cloud.faults("warehouse").struck(fault) == 1
    eventually(lambda: not objects(cloud, state["requestId"]))


def test_lost_session_is_tried_again(client: Any, cloud: Cloud) -> None:
    name = f"l{uuid4().hex[:8]}"
    fault = cloud.faults("warehouse").arm("redshift.drop_connection", match={"sql": f"UNLOAD*{name}*"}, when="after")
    state = client.unload(query(name))
    assert (state["status"], state["rows"]) == ("DONE", 1000)
    assert cloud.faults("warehouse").struck(fault) == 1
    eventually(lambda: {key.split("/")[2] for key in objects(cloud, state["requestId"])} == {"2"})


def test_events_follow_once_the_broker_is_back(client: Any, cloud: Cloud, ledger: sa.Engine) -> None:
    cloud.kill("kafka")
    try:
        state = client.unload(query(f"b{uuid4().hex[:8]}"))
        assert state["status"] == "DONE"
    finally:
        cloud.restart("kafka")
    identity = event_id(state["requestId"], 1, "DONE")

    def published() -> bool:
        with ledger.connect() as connection:
            row = connection.execute(sa.select(outbox.c.published_at).where(outbox.c.event_id == identity)).one()
            return row[0] is not None

    eventually(published, 60)
    found = [each for each in read_topic(cloud) if each["eventId"] == str(identity)]
    assert {json.dumps(each, sort_keys=True) for each in found} == {json.dumps(found[0], sort_keys=True)}
    assert set(found[0]) == {
        "eventId", "requestId", "status", "s3FileUrl", "files", "rows", "bytes", "completedAt"
    }  # fmt: skip
    assert (found[0]["status"], found[0]["rows"], found[0]["s3FileUrl"]) == ("DONE", 1000, state["s3FileUrl"])


def read_topic(cloud: Cloud, topic: str | None = None, seconds: float = 8) -> list[Any]:
    """Every record of the topic so far, decoded."""
    consumer = kafka.consumer(cloud.settings, f"test-{uuid4().hex}", topic or cloud.settings.kafka_unload_topic)
    found: list[Any] = []
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        message = consumer.poll(0.5)
        if message is not None and message.error() is None:
            found.append(json.loads(message.value() or b"null"))
            deadline = min(deadline, time.monotonic() + 2)
    consumer.close()
    return found


def test_unload_finished_by_somebody_else_is_adopted_after_the_proof(
    new_client: Any, cloud: Cloud, ledger: sa.Engine
) -> None:
    """A bare request id, the oldest form: believed only because the warehouse and S3 agree."""
    from data_platform.unload.execution import UnloadTarget, run_attempt
    from data_platform.unload.listener import Listener, UnknownRequestError
    from data_platform.unload.message import PoisonError
    from data_platform.unload.statement import UnloadOptions

    request_id = f"ext-{uuid4().hex[:8]}"
    with ledger.begin() as connection:
        connection.execute(
            sa.insert(unload_requests).values(
                request_id=request_id, caller="nobody", body_hash=bytes(32), sql="select 1", attempt=0,
                options={"format": "csv", "header": True, "compression": "gzip", "parallel": False},
                status="RUNNING", lease_owner="somebody else", lease_until=sa.func.now() + sa.text("interval '1 hour'"),
            )
        )  # fmt: skip
    s3 = aws.s3(cloud.settings)
    listener = Listener(cloud.settings, ledger, s3, on_ready=lambda: None)
    assert listener.handle(request_id.encode()) == "seen"  # its worker holds the lease, and will end it
    with ledger.begin() as connection:
        connection.execute(
            sa.update(unload_requests)
            .where(unload_requests.c.request_id == request_id)
            .values(lease_owner=None, lease_until=None, resume_at=sa.func.now(), attempt=1)
        )
    run_attempt(
        cloud.settings, s3, sql="select id from market.api_rows",
        target=UnloadTarget(cloud.settings.unload_bucket, request_id, "0"),
        options=UnloadOptions.model_validate({"format": "csv", "header": True, "parallel": False}),
    )  # fmt: skip
    # Workers may be quicker to resume it by themselves; either way it ends DONE and is then only seen.
    assert listener.handle(json.dumps({"requestId": request_id, "s3FileUrl": None}).encode()) in {"done", "seen"}
    eventually(lambda: status_of(ledger, request_id) == "DONE")
    assert listener.handle(request_id.encode()) == "seen"
    with pytest.raises(UnknownRequestError):
        listener.handle(b"never-heard-of")
    for poison in (b"", b"\xff", b"{", b"[]", b"null", b'{"requestId": "../x"}', b'{"requestId": "a", "eventId": "x"}'):
        with pytest.raises(PoisonError):
            listener.handle(poison)


def status_of(ledger: sa.Engine, request_id: str) -> str:
    with ledger.connect() as connection:
        return connection.execute(
            sa.select(unload_requests.c.status).where(unload_requests.c.request_id == request_id)
        ).scalar_one()


def test_poison_goes_to_the_dead_letters_and_blocks_nothing(client: Any, cloud: Cloud) -> None:
    topic = cloud.settings.kafka_unload_topic
    poison = f"not-json-{uuid4().hex} {{"
    producer = kafka.producer(cloud.settings)
    producer.produce(topic, key=b"k", value=poison.encode())
    assert producer.flush(20) == 0
    assert client.unload(query(f"d{uuid4().hex[:8]}"))["status"] == "DONE"
    consumer = kafka.consumer(cloud.settings, f"test-{uuid4().hex}", f"{topic}.dlq")
    deadline = time.monotonic() + 40
    found = None
    while found is None and time.monotonic() < deadline:
        message = consumer.poll(0.5)
        if message is not None and message.error() is None and message.value() == poison.encode():
            found = message
    consumer.close()
    assert found is not None
    headers = dict(found.headers())
    assert headers["__connect.errors.topic"] == topic.encode()
    assert b"requestId" in headers["__connect.errors.exception.message"]
    assert {f"__connect.errors.{name}" for name in ("partition", "offset", "exception.class.name")} <= set(headers)
