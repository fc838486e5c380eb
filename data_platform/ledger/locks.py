"""Named locks with an owner, a lease and a fencing token.

A lease alone is no lock: a holder that was paused may wake after its lease and write. So the transaction that writes
calls `hold`, which fails for a token that is no longer the newest and keeps others out until it ends. Times are the
database's: clocks of workers differ.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa  # noqa: TID253 - see base.py
from sqlalchemy.dialects.postgresql import insert  # noqa: TID253 - see base.py

from data_platform.errors import Fault, PlatformError
from data_platform.ledger.base import instant, metadata

# A row is never deleted: the token of a name must keep rising.
job_locks = sa.Table(
    "job_locks",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("owner", sa.Text),  # null: released
    sa.Column("token", sa.BigInteger, nullable=False, comment="Fencing token; rises with every acquisition."),
    instant("acquired_at", now=True),
    instant("lease_until"),
    sa.CheckConstraint("(owner IS NULL) = (lease_until IS NULL)", name="lease"),
)


@dataclass(frozen=True)
class Lock:
    """A lock that was acquired; `token` is larger than every earlier one of the same name."""

    name: str
    owner: str
    token: int
    lease_until: datetime


class LockLostError(PlatformError):
    """The lock has another holder, or none: what was to be written must not be."""

    fault = Fault.PERMANENT


def acquire(connection: sa.Connection, name: str, owner: str, lease: timedelta) -> Lock | None:
    """Take the lock for `lease`, when it is free or its lease is over; None when somebody holds it.

    Commit at once: an open transaction makes others wait at the row instead of getting their answer.
    """
    until = sa.func.clock_timestamp() + lease
    free = sa.or_(job_locks.c.owner.is_(None), job_locks.c.lease_until < sa.func.clock_timestamp())
    statement = (
        insert(job_locks)
        .values(name=name, owner=owner, token=1, lease_until=until)
        .on_conflict_do_update(
            index_elements=[job_locks.c.name],
            set_={
                "owner": owner,
                "token": job_locks.c.token + 1,
                "acquired_at": sa.func.clock_timestamp(),
                "lease_until": until,
            },
            where=free,
        )
        .returning(job_locks.c.token, job_locks.c.lease_until)
    )
    row = connection.execute(statement).one_or_none()
    return None if row is None else Lock(name, owner, row.token, row.lease_until)


def renew(connection: sa.Connection, lock: Lock, lease: timedelta) -> Lock:
    """Extend the lease from now. Raises LockLostError when another took the lock; a lease that is over but not taken
    is renewed, since nobody came in between."""
    statement = (
        sa.update(job_locks)
        .where(job_locks.c.name == lock.name, job_locks.c.token == lock.token, job_locks.c.owner.is_not(None))
        .values(lease_until=sa.func.clock_timestamp() + lease)
        .returning(job_locks.c.lease_until)
    )
    row = connection.execute(statement).one_or_none()
    if row is None:
        raise _lost(connection, lock)
    return Lock(lock.name, lock.owner, lock.token, row.lease_until)


def hold(connection: sa.Connection, lock: Lock, *, shared: bool = False) -> None:
    """In the transaction that writes: prove that the lock is still ours, and keep it ours until the transaction ends.

    `shared`: several transactions of the same holder may hold it at once; nobody else gets it before all have ended.
    Raises LockLostError otherwise; the transaction must then be rolled back.
    """
    statement = (
        sa.select(job_locks.c.token)
        .where(job_locks.c.name == lock.name, job_locks.c.token == lock.token, job_locks.c.owner.is_not(None))
        .with_for_update(read=shared)
    )
    if connection.execute(statement).one_or_none() is None:
        raise _lost(connection, lock)


def release(connection: sa.Connection, lock: Lock) -> bool:
    """Give the lock back; False when it was no longer ours, which is no error at the end of a work."""
    statement = (
        sa.update(job_locks)
        .where(job_locks.c.name == lock.name, job_locks.c.token == lock.token, job_locks.c.owner.is_not(None))
        .values(owner=None, lease_until=None)
    )
    return connection.execute(statement).rowcount == 1


def _lost(connection: sa.Connection, lock: Lock) -> LockLostError:
    row = connection.execute(sa.select(job_locks).where(job_locks.c.name == lock.name)).one_or_none()
    holder = "nobody" if row is None or row.owner is None else f"{row.owner} (token {row.token})"
    return LockLostError(
        f"lock {lock.name!r} of {lock.owner} (token {lock.token}) is lost; {holder} holds it now",
        hint="nothing was written, and the other run does the work; run it again if that one ends without it",
    )
