"""Notices of finished unloads: made with the ledger's change, published to Kafka by a relay that may run anywhere.

The event id is derived from request, attempt and state, so a change that is told twice is one event to a consumer.
"""

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

NAMESPACE = UUID("5b0c1c1e-6a4f-5d0e-9f57-3a1d1f0f9a11")
EVENT_TYPE = "data-platform.unload"
RELAY_BATCH = 200
FLUSH_S = 30.0


def event_id(request_id: str, attempt: int, status: str) -> UUID:
    """The id of a request's change of state: the same for the same change, whoever tells of it."""
    return uuid5(NAMESPACE, f"{request_id}/{attempt}/{status}")


def done_event(settings: Settings, request_id: str, attempt: int, result: UnloadResult) -> OutboxEvent:
    """The notice of a finished unload; `s3FileUrl` only where it is one file, and never a presigned link."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    identity = event_id(request_id, attempt, "DONE")
    files = [f"s3://{result.target.bucket}/{file.key}" for file in result.files]
    single = None
    if len(result.files) == 1:
        single = f"https://{result.target.bucket}.s3.amazonaws.com/{result.files[0].key}"
    return OutboxEvent(
        identity,
        settings.kafka_unload_topic,
        request_id,
        {
            "eventId": str(identity),
            "requestId": request_id,
            "status": "DONE",
            "s3FileUrl": single,
            "files": files,
            "rows": result.rows,
            "bytes": result.bytes,
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
