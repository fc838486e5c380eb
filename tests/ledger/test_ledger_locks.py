"""Locks: one holder at a time, tokens that rise, and a holder that slept too long cannot write."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import sqlalchemy as sa

from data_platform.ledger.locks import Lock, LockLostError, acquire, hold, job_locks, release, renew

pytestmark = pytest.mark.integration
MINUTE = timedelta(minutes=1)


def take(engine: sa.Engine, owner: str, lease: timedelta = MINUTE) -> Lock | None:
    with engine.begin() as connection:
        return acquire(connection, "file-1", owner, lease)


def taken(engine: sa.Engine, owner: str, lease: timedelta = MINUTE) -> Lock:
    lock = take(engine, owner, lease)
    assert lock is not None
    return lock


def end_lease(engine: sa.Engine) -> None:
    with engine.begin() as connection:
        connection.execute(sa.update(job_locks).values(lease_until=sa.func.now() - timedelta(seconds=1)))


def test_of_many_that_ask_at_once_one_gets_the_lock(ledger: sa.Engine) -> None:
    start = threading.Barrier(8)

    def ask(number: int) -> Lock | None:
        start.wait(10)
        return take(ledger, f"worker-{number}")

    with ThreadPoolExecutor(8) as pool:
        locks = [lock for lock in pool.map(ask, range(8)) if lock is not None]
    assert len(locks) == 1
    assert locks[0].token == 1


def test_a_held_lock_is_refused_even_to_its_owner_and_free_after_release(ledger: sa.Engine) -> None:
    first = taken(ledger, "a")
    assert take(ledger, "b") is None
    assert take(ledger, "a") is None
    with ledger.begin() as connection:
        assert release(connection, first)
        assert not release(connection, first)
    assert taken(ledger, "b").token == first.token + 1


def test_a_lease_that_is_over_can_be_taken_and_the_old_holder_is_fenced(ledger: sa.Engine) -> None:
    slept = taken(ledger, "slept")
    end_lease(ledger)
    newer = taken(ledger, "newer")
    assert newer.token > slept.token
    with ledger.connect() as connection, pytest.raises(LockLostError, match=r"newer \(token 2\) holds it now"):
        hold(connection, slept)
    with ledger.connect() as connection, pytest.raises(LockLostError):
        renew(connection, slept, MINUTE)
    with ledger.begin() as connection:
        assert not release(connection, slept)
        hold(connection, newer)


def test_a_lease_that_is_over_but_not_taken_can_be_renewed(ledger: sa.Engine) -> None:
    lock = taken(ledger, "a")
    end_lease(ledger)
    with ledger.begin() as connection:
        renewed = renew(connection, lock, MINUTE)
    assert renewed.token == lock.token
    assert take(ledger, "b") is None


def test_nobody_takes_the_lock_while_a_transaction_holds_it(ledger: sa.Engine) -> None:
    """The lease ends in the middle of the writing transaction: the other gets the lock only after its commit."""
    lock = taken(ledger, "writer")
    got: list[Lock | None] = []
    with ledger.begin() as connection:
        hold(connection, lock)
        connection.execute(sa.update(job_locks).values(lease_until=sa.func.clock_timestamp() - timedelta(seconds=1)))
        other = threading.Thread(target=lambda: got.append(take(ledger, "other")))
        other.start()
        other.join(0.5)
        assert other.is_alive()
        assert got == []
    other.join(10)
    assert [lock and lock.owner for lock in got] == ["other"]


def test_a_released_lock_cannot_be_renewed_or_held(ledger: sa.Engine) -> None:
    lock = taken(ledger, "a")
    with ledger.begin() as connection:
        release(connection, lock)
    with ledger.connect() as connection, pytest.raises(LockLostError, match="nobody holds it now"):
        hold(connection, lock)
    with ledger.connect() as connection, pytest.raises(LockLostError):
        renew(connection, lock, MINUTE)
