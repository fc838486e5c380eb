"""Notices of finished unloads: made with the ledger's change, published to Kafka by a relay that may run anywhere.

The event id is derived from request, attempt and state, so a change that is told twice is one event to a consumer.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import UUID, uuid5

from data_platform.clients import kafka
from data_platform.errors import TransientError
from data_platform.ledger.outbox import OutboxEvent, published, take
from data_platform.settings import Settings
from data_platform.unload.execution import UnloadResult

if TYPE_CHECKING:
    from confluent_kafka import KafkaError, Message, Producer
    from sqlalchemy import Engine

    from data_platform.ledger.unload_requests import UnloadRequest

NAMESPACE = UUID("5b0c1c1e-6a4f-5d0e-9f57-3a1d1f0f9a11")
EVENT_TYPE = "data-platform.unload"
RELAY_BATCH = 200
FLUSH_S = 30.0


def event_id(request_id: str, attempt: int, status: str) -> UUID:
    """The id of a request's change of state: the same for the same change, whoever tells of it."""
    return uuid5(NAMESPACE, f"{request_id}/{attempt}/{status}")


def done_event(settings: Settings, request_id: str, attempt: int, result: UnloadResult) -> OutboxEvent:
    """The notice of a finished unload of a dataset."""
    keys = [file.key for file in result.files]
    return state_event(settings, request_id, attempt, "DONE", keys=keys, rows=result.rows, size=result.bytes)


def request_event(settings: Settings, request: "UnloadRequest") -> OutboxEvent:
    """The notice that a request is DONE, FAILED or CANCELLED."""
    return state_event(
        settings,
        request.request_id,
        request.attempt,
        request.status.value,
        keys=[str(file["key"]) for file in request.files],
        rows=request.rows,
        size=request.bytes,
        at=request.completed_at,
    )


def state_event(
    settings: Settings,
    request_id: str,
    attempt: int,
    status: str,
    *,
    keys: Sequence[str] = (),
    rows: int | None = None,
    size: int | None = None,
    at: datetime | None = None,
) -> OutboxEvent:
    """The notice of one change of state."""
    now = (at or datetime.now(UTC)).astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    identity = event_id(request_id, attempt, status)
    return OutboxEvent(
        identity,
        settings.kafka_unload_topic,
        request_id,
        {
            "eventId": str(identity),
            "requestId": request_id,
            "status": status,
            "s3FileUrl": single_file_url(settings.unload_bucket, keys),
            "files": [f"s3://{settings.unload_bucket}/{key}" for key in keys],
            "rows": rows,
            "bytes": size,
            "completedAt": now,
        },
        {
            "ce_specversion": "1.0",
            "ce_id": str(identity),
            "ce_type": EVENT_TYPE,
            "ce_source": f"/data-platform/{settings.env}",
            "ce_time": now,
            "content-type": "application/json",
        },
    )


def single_file_url(bucket: str, keys: Sequence[str]) -> str | None:
    """The plain HTTPS URL of a result that is one file; None otherwise. Never a presigned link."""
    return f"https://{bucket}.s3.amazonaws.com/{keys[0]}" if len(keys) == 1 else None


def relay(ledger: "Engine", producer: "Producer", *, limit: int = RELAY_BATCH) -> int:
    """Publish the oldest waiting events, in order; returns how many. What a broker does not confirm stays waiting.

    A crash between publishing and marking publishes again with the same event id: consumers drop what they have seen.
    Raises TransientError when a record was not delivered in time.
    """
    import orjson

    failed: list[str] = []

    def delivered(error: "KafkaError | None", _message: "Message") -> None:
        if error is not None:
            failed.append(str(error))

    with ledger.begin() as connection:
        waiting = take(connection, limit)
        for _, event in waiting:
            producer.produce(
                event.topic,
                key=event.key,
                value=orjson.dumps(dict(event.payload)),
                headers={name: value.encode() for name, value in event.headers.items()},
                on_delivery=delivered,
            )
        left = producer.flush(FLUSH_S)
        if failed or left:
            reason = failed[0] if failed else "the broker did not answer"
            raise TransientError(
                f"{len(failed) + left} of {len(waiting)} notices were not delivered: {reason}",
                hint="they stay in the outbox and follow when the broker is back",
            )
        published(connection, [number for number, _ in waiting])
    return len(waiting)


def relay_all(settings: Settings, ledger: "Engine") -> int:
    """Publish everything that waits; returns how many. Raises as `relay`."""
    producer = kafka.producer(settings)
    total = 0
    while True:
        sent = relay(ledger, producer)
        total += sent
        if sent < RELAY_BATCH:
            return total
