"""What Dagster is told of unload requests: which have come to an end and were not told, which nobody has claimed."""

from datetime import timedelta

import sqlalchemy as sa  # noqa: TID253 - see base.py

from data_platform.ledger.unload_requests import COLUMNS, UnloadRequest, request_of
from data_platform.ledger.unloads import unload_requests

_TOLD = ("DONE", "FAILED", "CANCELLED")


def unreported(connection: sa.Connection, *, request_id: str | None = None, limit: int = 100) -> list[UnloadRequest]:
    """Requests that have ended and were not told yet, in order of their end; locked, so that two sensors tell once."""
    query = (
        sa.select(*COLUMNS)
        .where(unload_requests.c.status.in_(_TOLD), unload_requests.c.reported_at.is_(None))
        .order_by(unload_requests.c.completed_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    if request_id is not None:
        query = query.where(unload_requests.c.request_id == request_id)
    return [request_of(row) for row in connection.execute(query).mappings()]


def reported(connection: sa.Connection, request: UnloadRequest) -> None:
    """Dagster has it."""
    connection.execute(
        sa.update(unload_requests)
        .where(unload_requests.c.request_id == request.request_id, unload_requests.c.attempt == request.attempt)
        .values(reported_at=sa.func.clock_timestamp())
    )


def unclaimed(connection: sa.Connection, older_than: timedelta, *, limit: int = 20) -> list[UnloadRequest]:
    """Requests that have waited for so long that no worker can be there, oldest first."""
    rows = connection.execute(
        sa.select(*COLUMNS)
        .where(
            unload_requests.c.status == "PENDING",
            unload_requests.c.created_at < sa.func.clock_timestamp() - older_than,
        )
        .order_by(unload_requests.c.created_at)
        .limit(limit)
    ).mappings()
    return [request_of(row) for row in rows]
