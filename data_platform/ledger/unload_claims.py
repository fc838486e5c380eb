"""Unload requests as workers see them: claimed with a lease, one attempt at a time, ended by whoever holds the lease.

A worker that was paused past its lease finds every change refused (LostClaimError): the reconciler has the attempt.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import sqlalchemy as sa  # noqa: TID253 - see base.py

from data_platform.errors import PlatformError
from data_platform.ledger.api_tokens import Limits, api_tokens
from data_platform.ledger.unload_requests import COLUMNS, UnloadRequest, record, request_of
from data_platform.ledger.unloads import unload_attempts, unload_requests

# Claims are counted against the caller's concurrency, so they are made one after the other; each takes a millisecond.
_CLAIMING = 7_201_604_118
RECONCILER = "reconciler/"  # how the owner of a lease begins that only waits for what a dead worker left


@dataclass(frozen=True)
class Claim:
    """One attempt of a request, held by `owner` until its lease ends."""

    request: UnloadRequest
    owner: str
    attempts_left: int

    @property
    def request_id(self) -> str:
        """Of the request."""
        return self.request.request_id

    @property
    def attempt(self) -> int:
        """Number of the attempt, from 1."""
        return self.request.attempt


class LostClaimError(PlatformError):
    """The attempt is not this worker's any more."""


def claim(
    connection: sa.Connection,
    owner: str,
    lease: timedelta,
    bucket_prefix: str,
    *,
    request_id: str | None = None,
    unclaimed_for: timedelta | None = None,
    run_id: str | None = None,
    external: bool = False,
) -> Claim | None:
    """Take the next request that waits, or whose next attempt is due; None when there is none for now.

    `bucket_prefix` is `s3://bucket/unload-results/`; the attempt's own prefix is below it. Callers with the fewest
    running requests go first; `external` work is not counted against anybody. Commit at once.
    """
    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_CLAIMING)))
    table = unload_requests
    now = sa.func.clock_timestamp()
    running = (
        sa.select(table.c.caller, sa.func.count().label("number"))
        .where(table.c.status == "RUNNING")
        .group_by(table.c.caller)
        .subquery()
    )
    busy = sa.func.coalesce(running.c.number, 0)
    room = busy < sa.func.coalesce(api_tokens.c.concurrency, Limits.concurrency)
    ready = sa.true() if external else room
    due = sa.and_(table.c.status == "RUNNING", table.c.lease_owner.is_(None), table.c.resume_at <= now)
    query = (
        sa.select(table.c.request_id)
        .outerjoin(running, running.c.caller == table.c.caller)
        .outerjoin(api_tokens, api_tokens.c.name == table.c.caller)
        .where(table.c.status.in_(("PENDING", "RUNNING")), sa.or_(sa.and_(table.c.status == "PENDING", ready), due))
        .order_by((table.c.status == "PENDING"), busy, table.c.created_at, table.c.request_id)
        .limit(1)
        .with_for_update(of=table, skip_locked=True)
    )
    if request_id is not None:
        query = query.where(table.c.request_id == request_id)
    if unclaimed_for is not None:
        query = query.where(table.c.created_at < now - unclaimed_for)
    found = connection.execute(query).scalar_one_or_none()
    if found is None:
        return None
    row = (
        connection.execute(
            sa.update(table)
            .where(table.c.request_id == found)
            .values(
                status="RUNNING",
                attempt=table.c.attempt + 1,
                attempts_left=sa.func.greatest(table.c.attempts_left - 1, 0),
                lease_owner=owner,
                lease_until=now + lease,
                resume_at=None,
                started_at=sa.func.coalesce(table.c.started_at, now),
                rows=None,
                bytes=None,
            )
            .returning(*COLUMNS, table.c.attempts_left)
        )
        .mappings()
        .one()
    )
    request = request_of(row)
    connection.execute(
        sa.insert(unload_attempts).values(
            request_id=found,
            attempt=request.attempt,
            prefix=f"{bucket_prefix}{found}/{request.attempt}/",
            worker=owner,
            run_id=run_id,
        )
    )
    record(connection, request, owner)
    return Claim(request, owner, row["attempts_left"])


def beat(connection: sa.Connection, owner: str, lease: timedelta) -> dict[tuple[str, int], bool]:
    """Extend all leases of `owner`; what it still holds, and whether each is to be cancelled."""
    rows = connection.execute(
        sa.update(unload_requests)
        .where(unload_requests.c.lease_owner == owner, unload_requests.c.status == "RUNNING")
        .values(lease_until=sa.func.clock_timestamp() + lease)
        .returning(
            unload_requests.c.request_id,
            unload_requests.c.attempt,
            unload_requests.c.cancel_requested_at.is_not(None).label("cancelled"),
        )
    )
    return {(row.request_id, row.attempt): bool(row.cancelled) for row in rows}


def started(connection: sa.Connection, claim: Claim, backend_pid: int) -> None:
    """Note the session that is about to run the statement. Raises LostClaimError."""
    _hold(connection, claim)
    _attempt(connection, claim, {"backend_pid": backend_pid})


def finish(
    connection: sa.Connection,
    claim: Claim,
    *,
    rows: int,
    size: int,
    files: Sequence[Mapping[str, Any]],
    manifest_url: str | None,
    query_id: str | None,
    retention: timedelta,
) -> UnloadRequest:
    """The attempt has won: DONE. Raises LostClaimError."""
    now = sa.func.clock_timestamp()
    request = _end(
        connection,
        claim,
        {
            "status": "DONE",
            "rows": rows,
            "bytes": size,
            "files": list(files),
            "error_code": None,
            "error_message": None,
            "expires_at": now + retention,
        },
    )
    _attempt(
        connection,
        claim,
        {
            "status": "DONE",
            "finished_at": now,
            "rows": rows,
            "bytes": size,
            "file_count": len(files),
            "manifest_url": manifest_url,
            "query_id": query_id,
        },
    )
    return request


def fail(connection: sa.Connection, claim: Claim, *, code: str, message: str) -> UnloadRequest:
    """No attempt is left, or none would help: FAILED. Raises LostClaimError."""
    request = _end(
        connection,
        claim,
        {"status": "FAILED", "error_code": code, "error_message": message, "rows": None, "bytes": None},
    )
    _fail_attempt(connection, claim, "FAILED", code, message)
    return request


def cancelled(connection: sa.Connection, claim: Claim) -> UnloadRequest:
    """The caller's cancel has been done. Raises LostClaimError."""
    request = _end(connection, claim, {"status": "CANCELLED", "rows": None, "bytes": None})
    _fail_attempt(connection, claim, "CANCELLED", "CANCELLED", "cancelled by the caller")
    return request


def try_again(
    connection: sa.Connection, claim: Claim, *, code: str, message: str, after: timedelta, free: bool = False
) -> None:
    """This attempt has failed, another may follow `after` a while; it stays RUNNING. `free`: it does not count.

    Raises LostClaimError.
    """
    changed = connection.execute(
        sa.update(unload_requests)
        .where(_held(claim))
        .values(
            lease_owner=None,
            lease_until=None,
            resume_at=sa.func.clock_timestamp() + after,
            attempts_left=unload_requests.c.attempts_left + int(free),
            rows=None,
            bytes=None,
        )
    )
    if changed.rowcount != 1:
        raise _lost(claim)
    _fail_attempt(connection, claim, "FAILED", code, message)


def take_over(
    connection: sa.Connection, owner: str, lease: timedelta, *, only: tuple[str, int] | None = None
) -> Claim | None:
    """A RUNNING request whose lease is over, now leased to `owner`; the attempt stays the one it is. Commit at once.

    `only` this request and attempt: also where another reconciler waits for it, but never from a living worker.
    """
    now = sa.func.clock_timestamp()
    table = unload_requests
    left = table.c.lease_until < now
    if only is not None:
        left = sa.and_(
            table.c.request_id == only[0],
            table.c.attempt == only[1],
            sa.or_(left, table.c.lease_owner.startswith(RECONCILER, autoescape=True)),
        )
    stale = (
        sa.select(table.c.request_id)
        .where(table.c.status == "RUNNING", left)
        .order_by(table.c.lease_until)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    row = (
        connection.execute(
            sa.update(table)
            .where(table.c.request_id.in_(stale), table.c.status == "RUNNING", left)
            .values(lease_owner=owner, lease_until=now + lease)
            .returning(*COLUMNS, table.c.attempts_left)
        )
        .mappings()
        .one_or_none()
    )
    return None if row is None else Claim(request_of(row), owner, row["attempts_left"])


def _held(claim: Claim) -> sa.ColumnElement[bool]:
    return sa.and_(
        unload_requests.c.request_id == claim.request_id,
        unload_requests.c.attempt == claim.attempt,
        unload_requests.c.lease_owner == claim.owner,
        unload_requests.c.status == "RUNNING",
    )


def _hold(connection: sa.Connection, claim: Claim) -> None:
    query = sa.select(unload_requests.c.request_id).where(_held(claim)).with_for_update()
    if connection.execute(query).first() is None:
        raise _lost(claim)


def _end(connection: sa.Connection, claim: Claim, values: Mapping[str, Any]) -> UnloadRequest:
    row = (
        connection.execute(
            sa.update(unload_requests)
            .where(_held(claim))
            .values(completed_at=sa.func.clock_timestamp(), lease_owner=None, lease_until=None, **values)
            .returning(*COLUMNS)
        )
        .mappings()
        .one_or_none()
    )
    if row is None:
        raise _lost(claim)
    request = request_of(row)
    record(connection, request, claim.owner)
    return request


def _attempt(connection: sa.Connection, claim: Claim, values: Mapping[str, Any]) -> None:
    connection.execute(
        sa.update(unload_attempts)
        .where(
            unload_attempts.c.request_id == claim.request_id,
            unload_attempts.c.attempt == claim.attempt,
            unload_attempts.c.status == "RUNNING",
        )
        .values(**values)
    )


def _fail_attempt(connection: sa.Connection, claim: Claim, status: str, code: str, message: str) -> None:
    now = sa.func.clock_timestamp()
    _attempt(connection, claim, {"status": status, "error_code": code, "error_message": message, "finished_at": now})


def _lost(claim: Claim) -> LostClaimError:
    return LostClaimError(
        f"attempt {claim.attempt} of {claim.request_id} was taken over from {claim.owner}, silent for too long",
        hint="nothing is to be done: whoever took it over finishes it",
    )
