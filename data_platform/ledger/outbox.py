"""Events that are to be published, written in the transaction that makes them true; the relay sends them later."""

import sqlalchemy as sa  # noqa: TID253 - see base.py

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
