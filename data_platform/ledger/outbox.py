"""Events that are to be published, written in the transaction that makes them true; the relay sends them later."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import sqlalchemy as sa  # noqa: TID253 - see base.py
from sqlalchemy.dialects import postgresql  # noqa: TID253 - see base.py

from data_platform.ledger.base import document, instant, metadata

outbox = sa.Table(
    "outbox",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    # uuid5 of what happened: the same state change can be written twice and is published once.
    sa.Column("event_id", sa.Uuid, nullable=False, unique=True),
    sa.Column("topic", sa.Text, nullable=False),
    sa.Column("key", sa.Text, nullable=False),
    document("payload", "{}"),
    document("headers", "{}"),
    instant("created_at", now=True),
    instant("published_at"),
    # The relay reads in order of id what is not published yet; that is a handful of rows of a table that grows.
    sa.Index("ix_outbox_unpublished", "id", postgresql_where=sa.text("published_at IS NULL")),
)


@dataclass(frozen=True)
class OutboxEvent:
    """One event: where it goes, its deterministic id, key, JSON payload and text headers."""

    event_id: UUID
    topic: str
    key: str
    payload: Mapping[str, Any]
    headers: Mapping[str, str]


def add(connection: sa.Connection, event: OutboxEvent) -> bool:
    """Write the event with the change it tells of; False when it stands there already."""
    inserted = connection.execute(
        postgresql.insert(outbox)
        .values(
            event_id=event.event_id,
            topic=event.topic,
            key=event.key,
            payload=dict(event.payload),
            headers=dict(event.headers),
        )
        .on_conflict_do_nothing(index_elements=["event_id"])
        .returning(outbox.c.id)
    )
    return inserted.first() is not None


def exists(connection: sa.Connection, event_id: UUID) -> bool:
    """Whether this platform wrote the event, published or not."""
    return connection.execute(sa.select(outbox.c.id).where(outbox.c.event_id == event_id)).first() is not None


def take(connection: sa.Connection, limit: int) -> list[tuple[int, OutboxEvent]]:
    """The oldest unpublished events with their numbers, locked until the transaction ends; others take none of them."""
    rows = connection.execute(
        sa.select(outbox)
        .where(outbox.c.published_at.is_(None))
        .order_by(outbox.c.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    ).mappings()
    return [
        (row["id"], OutboxEvent(row["event_id"], row["topic"], row["key"], row["payload"], row["headers"]))
        for row in rows
    ]


def published(connection: sa.Connection, numbers: Sequence[int]) -> None:
    """Mark events as published, in the transaction that took them."""
    connection.execute(sa.update(outbox).where(outbox.c.id.in_(numbers)).values(published_at=sa.func.clock_timestamp()))
