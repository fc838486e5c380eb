"""Leases: whoever guesses an epoch gets the right one, the first of a name is the first ever, one of several wins."""

import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from data_platform.clients import clickhouse
from data_platform.loading.lock import Lease, LockHeldError, PartitionLocks
from data_platform.local.cloud import Cloud

pytestmark = pytest.mark.integration
LEASE_S = 2.0


@pytest.fixture
def client(cloud: Cloud) -> Iterator[Any]:
    with clickhouse.connect(cloud.settings) as made:
        yield made


@pytest.fixture
def name() -> str:
    return f"market.locks/{secrets.token_hex(6)}"


def worker(client: Any, owner: str) -> PartitionLocks:
    return PartitionLocks(client, owner, lease_s=LEASE_S)


def held(locks: PartitionLocks, name: str) -> Lease:
    with locks.hold(name) as lease:
        return lease


def epochs_of(client: Any, name: str, owner: str) -> set[int]:
    """Epochs the table holds of a worker; each lease's owner is the worker's name with an end of its own."""
    rows = client.query(
        "SELECT DISTINCT epoch FROM platform.locks WHERE name = {name:String} AND startsWith(owner, {owner:String})",
        parameters={"name": name, "owner": f"{owner}/"},
    ).result_rows
    return {int(epoch) for (epoch,) in rows}


def test_only_the_first_ever_holder_is_the_first(client: Any, name: str) -> None:
    one, two = worker(client, "one"), worker(client, "two")
    assert [(lease.epoch, lease.first) for lease in (held(one, name), held(one, name))] == [(1, True), (2, False)]
    stranger = held(two, name)
    assert (stranger.epoch, stranger.first, stranger.took_over) == (3, False, False)
    assert held(one, name).epoch == 4, "its guess is behind by one"


def test_a_wrong_guess_writes_nothing_though_its_token_was_never_used(client: Any, name: str) -> None:
    for kind in ("take", "free"):
        client.command(
            "INSERT INTO platform.locks (name, epoch, owner, kind, expires_at) "
            f"SELECT {{name:String}}, 5, 'before/1', '{kind}', now64(3)",
            parameters={"name": name},
        )
    assert held(worker(client, "guesser"), name).epoch == 6
    assert epochs_of(client, name, "guesser") == {6}


def test_a_guess_at_a_held_lease_waits_and_gives_up(client: Any, name: str) -> None:
    with worker(client, "holder").hold(name) as lease:
        with pytest.raises(LockHeldError, match="held by holder/"), worker(client, "other").hold(name, wait_s=0.3):
            pass
        worker(client, "holder").check(lease)
    assert epochs_of(client, name, "other") == set()


def test_of_several_that_guess_at_once_each_gets_an_epoch_of_its_own(client: Any, name: str) -> None:
    with ThreadPoolExecutor(6) as pool:
        leases = list(pool.map(lambda number: held(worker(client, f"racer {number}"), name), range(6)))
    assert sorted(lease.epoch for lease in leases) == [1, 2, 3, 4, 5, 6]
    assert sum(lease.first for lease in leases) == 1


def test_the_first_lease_of_what_is_not_new_is_not_first(client: Any, name: str) -> None:
    said = "{n:UInt8} = 0"
    with worker(client, "one").hold(name, new=(said, {"n": 1})) as lease:
        assert (lease.epoch, lease.first) == (1, False)
    with worker(client, "one").hold(f"{name}/other", new=(said, {"n": 0})) as lease:
        assert (lease.epoch, lease.first) == (1, True)


def test_a_lease_that_expired_is_taken_over_and_its_holder_told(client: Any, name: str) -> None:
    gone = PartitionLocks(client, "gone", lease_s=0.2)
    lease = gone._take(name, 1, None)
    heir = worker(client, "heir")
    with heir.hold(name) as taken:
        assert (taken.epoch, taken.took_over, taken.first) == (2, True, False)
        with pytest.raises(Exception, match="was lost"):
            gone.check(lease)


def frees_of(client: Any, prefix: str) -> set[tuple[str, int]]:
    rows = client.query(
        "SELECT name, epoch FROM platform.locks WHERE startsWith(name, {prefix:String}) AND kind = 'free'",
        parameters={"prefix": prefix},
    ).result_rows
    return {(str(each), int(epoch)) for each, epoch in rows}


def test_leases_that_end_together_are_freed_in_one_statement(client: Any, name: str) -> None:
    locks = PartitionLocks(client, "lingers", lease_s=LEASE_S * 10, linger_s=30)
    names = [f"{name}/{number}" for number in range(4)]
    for each in names:
        held(locks, each)
    assert frees_of(client, name) == set()
    assert held(locks, names[0]).epoch == 2, "its own process need not wait for it"
    locks.free_now()
    assert frees_of(client, name) == {(names[0], 2), *((each, 1) for each in names[1:])}
    with worker(client, "other").hold(names[1], wait_s=1) as lease:
        assert (lease.epoch, lease.took_over) == (2, False)


def test_a_lease_that_waited_to_be_freed_when_its_process_died_is_taken_over(client: Any, name: str) -> None:
    """As one that was held: nothing is known of what its holder left."""
    gone = PartitionLocks(client, "gone", lease_s=0.2, linger_s=30)
    held(gone, name)
    with worker(client, "heir").hold(name) as lease:
        assert (lease.epoch, lease.took_over) == (2, True)
    gone.free_now()
    with worker(client, "next").hold(name, wait_s=1) as lease:
        assert (lease.epoch, lease.took_over) == (3, False), "the late row is of an older epoch"
