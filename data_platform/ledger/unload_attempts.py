"""Attempts of unload requests as they are looked at afterwards: what is known of one, how far it is, what it left.

They begin and end with the claims of their requests (unload_claims.py).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa  # noqa: TID253 - see base.py

from data_platform.ledger.unloads import unload_attempts, unload_requests


@dataclass(frozen=True)
class Attempt:
    """What is known of an attempt."""

    request_id: str
    attempt: int
    prefix: str
    status: str
    worker: str
    query_id: str | None
    backend_pid: int | None
    started_at: datetime


def progress(connection: sa.Connection, totals: Mapping[tuple[str, int], tuple[int, int, str]]) -> None:
    """What the warehouse's views say of running attempts: rows, bytes, query id."""
    for (request_id, number), (rows, size, query_id) in totals.items():
        connection.execute(
            sa.update(unload_requests)
            .where(
                unload_requests.c.request_id == request_id,
                unload_requests.c.attempt == number,
                unload_requests.c.status == "RUNNING",
            )
            .values(rows=rows, bytes=size)
        )
        connection.execute(
            sa.update(unload_attempts)
            .where(unload_attempts.c.request_id == request_id, unload_attempts.c.attempt == number)
            .values(query_id=query_id)
        )


def get(connection: sa.Connection, request_id: str, number: int) -> Attempt | None:
    """One attempt of a request."""
    columns = tuple(unload_attempts.c[name] for name in Attempt.__dataclass_fields__)
    row = connection.execute(
        sa.select(*columns).where(unload_attempts.c.request_id == request_id, unload_attempts.c.attempt == number)
    ).mappings()
    found = row.one_or_none()
    return None if found is None else Attempt(**found)


def cleaned(connection: sa.Connection, request_id: str, number: int) -> None:
    """The files of an attempt that did not win are gone."""
    connection.execute(
        sa.update(unload_attempts)
        .where(unload_attempts.c.request_id == request_id, unload_attempts.c.attempt == number)
        .values(cleaned_at=sa.func.clock_timestamp())
    )


def uncleaned(connection: sa.Connection, older_than: timedelta, limit: int = 100) -> list[Attempt]:
    """Attempts that did not win and whose files nobody has removed, though they ended a while ago."""
    columns = tuple(unload_attempts.c[name] for name in Attempt.__dataclass_fields__)
    rows = connection.execute(
        sa.select(*columns)
        .where(
            unload_attempts.c.status.in_(("FAILED", "CANCELLED")),
            unload_attempts.c.cleaned_at.is_(None),
            unload_attempts.c.finished_at < sa.func.clock_timestamp() - older_than,
        )
        .order_by(unload_attempts.c.finished_at)
        .limit(limit)
    ).mappings()
    return [Attempt(**row) for row in rows]
