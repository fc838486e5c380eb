"""Unload requests as callers see them: accepted once per id, read, listed, cancelled, tried again, expired.

Every change is compare-and-set and is written with its line in `unload_changes`; the events that tell of it are the
unload package's, added to the outbox in the same transaction.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from importlib.resources import files
from typing import Any

import orjson
import sqlalchemy as sa  # noqa: TID253 - see base.py

from data_platform.errors import PlatformError
from data_platform.ledger.unloads import UnloadStatus, unload_changes, unload_requests

ATTEMPTS = 3
FINAL = frozenset({UnloadStatus.DONE, UnloadStatus.FAILED, UnloadStatus.CANCELLED, UnloadStatus.EXPIRED})
_OPEN = ("PENDING", "RUNNING")


@dataclass(frozen=True)
class NewRequest:
    """What a caller asks for; `body_hash` tells the same body from another."""

    request_id: str
    caller: str
    body_hash: bytes
    sql: str
    options: Mapping[str, Any]


@dataclass(frozen=True)
class UnloadRequest:
    """A request as it stands; sizes in bytes, times UTC. `files` are {key, bytes, rows} in the unload bucket."""

    request_id: str
    caller: str
    body_hash: bytes
    sql: str
    options: Mapping[str, Any]
    status: UnloadStatus
    attempt: int
    rows: int | None
    bytes: int | None
    files: Sequence[Mapping[str, Any]]
    error_code: str | None
    error_message: str | None
    cancel_requested_at: datetime | None
    created_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    expires_at: datetime | None


@dataclass(frozen=True)
class Change:
    """One change of state of a request."""

    id: int
    request_id: str
    attempt: int
    status: UnloadStatus
    actor: str
    at: datetime


class NotThatStateError(PlatformError):
    """The request is in a state in which this cannot be done; `request` is how it stands."""

    def __init__(self, message: str, request: UnloadRequest) -> None:
        super().__init__(message)
        self.request = request


COLUMNS = tuple(unload_requests.c[name] for name in UnloadRequest.__dataclass_fields__)


def request_of(row: Mapping[Any, Any]) -> UnloadRequest:
    """A row of COLUMNS."""
    values: dict[str, Any] = {name: row[name] for name in UnloadRequest.__dataclass_fields__}
    values["status"] = UnloadStatus(row["status"])
    return UnloadRequest(**values)


def submit(connection: sa.Connection, wanted: Sequence[NewRequest]) -> list[tuple[UnloadRequest, bool]]:
    """Accept requests whose id is new; per request how it stands and whether it was accepted now. Order is kept.

    An id that exists is returned as it is, whoever's it is: the caller compares caller and hash. One statement, which
    needs no transaction around it.
    """
    first = {request.request_id: request for request in reversed(wanted)}
    rows = connection.execute(
        _accept(), {"wanted": orjson.dumps([_values(each) for each in first.values()]).decode(), "attempts": ATTEMPTS}
    ).mappings()
    accepted: dict[str, UnloadRequest] = {}
    known: dict[str, UnloadRequest] = {}
    for row in rows:
        (accepted if row["accepted"] else known)[row["request_id"]] = request_of(row)
    missing = [request_id for request_id in first if request_id not in accepted and request_id not in known]
    known |= _by_id(connection, missing) if missing else {}
    answers: list[tuple[UnloadRequest, bool]] = []
    told: set[str] = set()
    for request in wanted:
        new = request.request_id in accepted and request.request_id not in told
        told.add(request.request_id)
        answers.append((accepted.get(request.request_id) or known[request.request_id], new))
    return answers


def get(connection: sa.Connection, request_id: str) -> UnloadRequest | None:
    """A request by id."""
    return _by_id(connection, [request_id]).get(request_id)


def page(
    connection: sa.Connection,
    caller: str,
    *,
    status: UnloadStatus | None = None,
    before: tuple[datetime, str] | None = None,
    limit: int = 50,
) -> list[UnloadRequest]:
    """The caller's requests, newest first; `before` is the (created_at, request_id) of the last one seen."""
    query = (
        sa.select(*COLUMNS)
        .where(unload_requests.c.caller == caller)
        .order_by(unload_requests.c.created_at.desc(), unload_requests.c.request_id.desc())
        .limit(limit)
    )
    if status is not None:
        query = query.where(unload_requests.c.status == status.value)
    if before is not None:
        query = query.where(sa.tuple_(unload_requests.c.created_at, unload_requests.c.request_id) < before)
    return [request_of(row) for row in connection.execute(query).mappings()]


def load_of(connection: sa.Connection, callers: Sequence[str]) -> dict[str, int]:
    """How many requests of each caller wait or run."""
    rows = connection.execute(
        sa.select(unload_requests.c.caller, sa.func.count())
        .where(unload_requests.c.caller.in_(callers), unload_requests.c.status.in_(_OPEN))
        .group_by(unload_requests.c.caller)
    )
    return {caller: number for caller, number in rows}  # noqa: C416 - rows are no pairs to the type checker


def accepted_today(connection: sa.Connection, caller: str) -> int:
    """How many requests of the caller were accepted in the last 24 hours."""
    day = sa.func.clock_timestamp() - sa.text("interval '24 hours'")
    return connection.execute(
        sa.select(sa.func.count())
        .select_from(unload_requests)
        .where(unload_requests.c.caller == caller, unload_requests.c.created_at > day)
    ).scalar_one()


def cancel(connection: sa.Connection, request_id: str, actor: str) -> UnloadRequest:
    """CANCELLED at once where nothing runs; otherwise the worker that runs it is asked to stop it.

    Raises NotThatStateError when the request is final.
    """
    waiting = sa.and_(unload_requests.c.status.in_(_OPEN), unload_requests.c.lease_owner.is_(None))
    now = sa.func.clock_timestamp()
    row = _update(
        connection,
        sa.and_(unload_requests.c.request_id == request_id, waiting),
        {"status": "CANCELLED", "completed_at": now, "cancel_requested_at": now, "resume_at": None},
    )
    if row is not None:
        record(connection, row, actor)
        return row
    row = _update(
        connection,
        sa.and_(unload_requests.c.request_id == request_id, unload_requests.c.status == "RUNNING"),
        {"cancel_requested_at": sa.func.coalesce(unload_requests.c.cancel_requested_at, now)},
    )
    return row or _refuse(connection, request_id, "cannot be cancelled any more")


def retry(connection: sa.Connection, request_id: str, actor: str) -> UnloadRequest:
    """A FAILED request becomes PENDING, with new attempts. Raises NotThatStateError in any other state."""
    row = _update(
        connection,
        sa.and_(unload_requests.c.request_id == request_id, unload_requests.c.status == "FAILED"),
        {
            "status": "PENDING",
            "attempts_left": ATTEMPTS,
            "error_code": None,
            "error_message": None,
            "completed_at": None,
            "cancel_requested_at": None,
            "started_at": None,
            "rows": None,
            "bytes": None,
            "reported_at": None,
        },
    )
    if row is None:
        return _refuse(connection, request_id, "can only be tried again once it has FAILED")
    record(connection, row, actor)
    return row


def expire(connection: sa.Connection, actor: str, *, limit: int = 500) -> list[UnloadRequest]:
    """DONE requests whose retention is over become EXPIRED; their objects go by the bucket's lifecycle."""
    due = (
        sa.select(unload_requests.c.request_id)
        .where(unload_requests.c.status == "DONE", unload_requests.c.expires_at <= sa.func.clock_timestamp())
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    rows = connection.execute(
        sa.update(unload_requests)
        .where(unload_requests.c.request_id.in_(due), unload_requests.c.status == "DONE")
        .values(status="EXPIRED")
        .returning(*COLUMNS)
    ).mappings()
    expired = [request_of(row) for row in rows]
    for request in expired:
        record(connection, request, actor)
    return expired


def changes(connection: sa.Connection, request_id: str, after: int = 0) -> list[Change]:
    """The request's changes of state with a number above `after`, in order."""
    rows = connection.execute(
        sa.select(unload_changes)
        .where(unload_changes.c.request_id == request_id, unload_changes.c.id > after)
        .order_by(unload_changes.c.id)
    ).mappings()
    return [_change(dict(row)) for row in rows]


def record(connection: sa.Connection, request: UnloadRequest, actor: str) -> None:
    """Write down that the request is now in the state it is in."""
    connection.execute(
        sa.insert(unload_changes).values(
            request_id=request.request_id, attempt=request.attempt, status=request.status.value, actor=actor
        )
    )


def _change(row: dict[str, Any]) -> Change:
    row["status"] = UnloadStatus(row["status"])
    return Change(**row)


@cache
def _accept() -> sa.TextualSelect:
    names = ", ".join(f'"{column.name}"' for column in COLUMNS)
    text = (files("data_platform.ledger") / "sql" / "accept_requests.sql").read_text(encoding="utf-8")
    return sa.text(text.replace("{columns}", names)).columns(*COLUMNS, sa.column("accepted", sa.Boolean))


def _values(request: NewRequest) -> dict[str, Any]:
    return {
        "request_id": request.request_id,
        "caller": request.caller,
        "body_hash": request.body_hash.hex(),
        "sql": request.sql,
        "options": dict(request.options),
    }


def _by_id(connection: sa.Connection, ids: Sequence[str]) -> dict[str, UnloadRequest]:
    rows = connection.execute(sa.select(*COLUMNS).where(unload_requests.c.request_id.in_(ids))).mappings()
    return {row["request_id"]: request_of(row) for row in rows}


def _update(
    connection: sa.Connection, where: sa.ColumnElement[bool], values: Mapping[str, Any]
) -> UnloadRequest | None:
    row = connection.execute(sa.update(unload_requests).where(where).values(**values).returning(*COLUMNS)).mappings()
    found = row.one_or_none()
    return None if found is None else request_of(found)


def _refuse(connection: sa.Connection, request_id: str, what: str) -> UnloadRequest:
    request = get(connection, request_id)
    if request is None:
        raise PlatformError(f"there is no request {request_id}")
    raise NotThatStateError(f"request {request_id} is {request.status.value} and {what}", request)
