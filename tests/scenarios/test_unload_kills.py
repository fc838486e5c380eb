"""Kills at every boundary of a request's life: whatever dies, each accepted request ends once, proven, told of once.

The seeded subset runs with the normal tests; the matrix of 200 under the marker `load`, with a report. A boundary is
held by a fault or a lock, which is seen to hold before anything is killed.
"""

import contextlib
import json
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from uuid import uuid4

import pytest

from data_platform.local.cloud import Cloud
from tests.unload_kills import Rig, make_rig, until

Hold = Callable[[Rig, str], AbstractContextManager[str]]
"""Submits a request named by the second argument and holds it at a boundary; gives its id."""


@contextlib.contextmanager
def being_accepted(rig: Rig, name: str) -> Iterator[str]:
    with rig.lock("LOCK TABLE unload_changes IN EXCLUSIVE MODE", "-- Accepts the requests%") as lock:
        threading.Thread(target=rig.submit, args=(name, "being accepted")).start()
        until(lock.holds, "the request is not being written")
        yield f"kill-{name}"


@contextlib.contextmanager
def not_claimed(rig: Rig, name: str) -> Iterator[str]:
    with rig.lock("SELECT pg_advisory_lock(7201604118)", "SELECT pg_advisory_xact_lock%") as lock:
        request_id = rig.submit(name, "not claimed")
        until(lock.holds, "no worker wants to claim")
        yield request_id


@contextlib.contextmanager
def being_claimed(rig: Rig, name: str) -> Iterator[str]:
    with rig.lock("LOCK TABLE unload_attempts IN SHARE MODE", "INSERT INTO unload_attempts%") as lock:
        request_id = rig.submit(name, "being claimed")
        until(lock.holds, "no worker claims")
        yield request_id


@contextlib.contextmanager
def session_not_open(rig: Rig, name: str) -> Iterator[str]:
    match = {"sql": "SET statement_timeout*"}
    fault = rig.arm("warehouse", "redshift.delay", times=None, match=match, seconds=3)
    request_id = rig.submit(name, "session not open")
    until(lambda: rig.status(request_id) == "RUNNING", "it was not claimed")
    rig.struck("warehouse", fault)
    rig.cloud.faults("warehouse").disarm(fault)
    yield request_id


@contextlib.contextmanager
def statement_not_sent(rig: Rig, name: str) -> Iterator[str]:
    fault = rig.arm("warehouse", "redshift.delay", times=None, match={"sql": "SET query_group*"}, seconds=3)
    request_id = rig.submit(name, "statement not sent")
    until(lambda: rig.status(request_id) == "RUNNING", "it was not claimed")
    with rig.lock("LOCK TABLE unload_attempts IN SHARE MODE", "UPDATE unload_attempts SET backend_pid%") as lock:
        rig.struck("warehouse", fault)
        rig.cloud.faults("warehouse").disarm(fault)
        until(lock.holds, "the session is not being written down")
        yield request_id


def held_by(boundary: str, engine: str, kind: str, pattern: dict[str, str], seconds: float) -> Hold:
    """A boundary at which an engine keeps the request waiting; `{name}` in the pattern is the request's."""

    @contextlib.contextmanager
    def hold(rig: Rig, name: str) -> Iterator[str]:
        match = {fact: text.format(name=name) for fact, text in pattern.items()}
        fault = rig.arm(engine, kind, match=match, seconds=seconds)
        request_id = rig.submit(name, boundary)
        rig.struck(engine, fault)
        yield request_id

    hold.__name__ = boundary.replace(" ", "_")
    return hold


@contextlib.contextmanager
def outcome_not_written(rig: Rig, name: str) -> Iterator[str]:
    with rig.lock("LOCK TABLE outbox IN SHARE MODE", "INSERT INTO outbox%") as lock:
        request_id = rig.submit(name, "outcome not written")
        until(lock.holds, "the outcome is not being written")
        yield request_id


@contextlib.contextmanager
def event_not_published(rig: Rig, name: str) -> Iterator[str]:
    fault = rig.arm("kafka", "kafka.broker_down", times=None, match={"api": "Produce"})
    request_id = rig.submit(name, "event not published")
    rig.struck("kafka", fault)
    yield request_id
    with contextlib.suppress(OSError):
        rig.cloud.faults("kafka").disarm(fault)


@contextlib.contextmanager
def event_not_marked(rig: Rig, name: str) -> Iterator[str]:
    fault = rig.arm("kafka", "kafka.delay", match={"api": "Produce"}, seconds=3)
    request_id = rig.submit(name, "event not marked")
    rig.struck("kafka", fault)
    with rig.lock("LOCK TABLE outbox IN SHARE MODE", "UPDATE outbox SET published_at%") as lock:
        until(lock.holds, "the event is not being marked")
        yield request_id


@contextlib.contextmanager
def cancel_not_done(rig: Rig, name: str) -> Iterator[str]:
    fault = rig.arm("warehouse", "unload.slow", match={"query": f"*{name}*"}, seconds=30)
    request_id = rig.submit(name, "cancel not done", status="CANCELLED")
    rig.struck("warehouse", fault)
    assert rig.client.call("POST", f"/api/unload/{request_id}/cancel").status == 202
    yield request_id


@contextlib.contextmanager
def next_attempt_not_begun(rig: Rig, name: str) -> Iterator[str]:
    match = {"sql": f"UNLOAD*{name}*"}
    delay = rig.arm("warehouse", "redshift.delay", match=match, seconds=2)
    error = rig.arm("warehouse", "redshift.error", match=match)
    request_id = rig.submit(name, "next attempt not begun")
    rig.struck("warehouse", delay)
    with rig.lock("SELECT pg_advisory_lock(7201604118)", "SELECT pg_advisory_xact_lock%") as lock:
        rig.struck("warehouse", error)
        until(lambda: rig.attempts(request_id) == ["FAILED"], "the attempt has not failed")
        until(lock.holds, "nobody wants to claim")
        yield request_id


@contextlib.contextmanager
def files_not_removed(rig: Rig, name: str) -> Iterator[str]:
    lie = rig.arm("warehouse", "unload.wrong_count", match={"query": f"*{name}*"}, times=None)
    slow = rig.arm("aws", "s3.delay", match={"action": "*Delete*", "method": "POST"}, seconds=3)
    request_id = rig.submit(name, "files not removed", status="FAILED")
    rig.struck("warehouse", lie)
    rig.struck("aws", slow)
    yield request_id


@contextlib.contextmanager
def being_reconciled(rig: Rig, name: str) -> Iterator[str]:
    """A worker is killed, then the reconciler that looks at what it left."""
    slow = rig.arm("warehouse", "unload.slow", match={"query": f"*{name}*"}, seconds=1)
    look = rig.arm("warehouse", "redshift.delay", match={"sql": "-- What the warehouse knows*"}, seconds=4)
    request_id = rig.submit(name, "being reconciled")
    rig.struck("warehouse", slow)
    rig.kill("worker", "files being written")
    rig.struck("warehouse", look)
    yield request_id
    rig.revive("worker")


statement_on_its_way = held_by(
    "statement on its way", "warehouse", "redshift.delay", {"sql": "UNLOAD*{name}*"}, seconds=3
)
files_being_written = held_by("files being written", "warehouse", "unload.slow", {"query": "*{name}*"}, seconds=3)
count_not_read = held_by(
    "count not read", "warehouse", "redshift.delay", {"sql": "SELECT pg_last_unload_count*"}, seconds=4
)
proof_not_made = held_by(
    "proof not made", "aws", "s3.delay", {"key": "unload-results/kill-{name}/*manifest", "method": "GET"}, seconds=4
)
event_not_acknowledged = held_by("event not acknowledged", "kafka", "kafka.delay", {"api": "Produce"}, seconds=4)
notice_not_committed = held_by("notice not committed", "kafka", "kafka.delay", {"api": "OffsetCommit"}, seconds=4)

# What can die at a boundary: the API process, the process with the workers, both, the ledger's connections, the broker,
# the engine `warehouse` (PostgreSQL with the ledger, and Redshift).
BOUNDARIES: dict[Hold, tuple[str, ...]] = {
    being_accepted: ("api", "ledger", "warehouse"),
    not_claimed: ("worker", "api", "ledger", "warehouse"),
    being_claimed: ("worker", "ledger", "warehouse"),
    session_not_open: ("worker", "api", "warehouse"),
    statement_not_sent: ("worker", "ledger", "warehouse"),
    statement_on_its_way: ("worker", "api", "both", "warehouse"),
    files_being_written: ("worker", "api", "both", "kafka", "ledger", "warehouse"),
    count_not_read: ("worker", "both", "ledger", "warehouse"),
    proof_not_made: ("worker", "both", "kafka", "ledger", "warehouse"),
    outcome_not_written: ("worker", "both", "ledger", "warehouse"),
    event_not_published: ("both", "ledger"),
    event_not_acknowledged: ("both", "kafka", "warehouse"),
    event_not_marked: ("both", "kafka", "ledger", "warehouse"),
    notice_not_committed: ("both", "kafka", "ledger"),
    cancel_not_done: ("worker", "both", "warehouse"),
    next_attempt_not_begun: ("worker", "both", "warehouse"),
    files_not_removed: ("worker", "both", "ledger"),
    being_reconciled: ("api", "ledger", "warehouse"),
}
# The connection to the warehouse is lost by a fault that is itself the kill.
LOSSES: dict[str, tuple[str, dict[str, str], dict[str, object]]] = {
    "before the session": ("redshift.refuse_connection", {"application_name": "data-platform"}, {}),
    "before the statement": ("redshift.drop_connection", {"sql": "UNLOAD*{name}*"}, {"when": "before"}),
    "after the statement": ("redshift.drop_connection", {"sql": "UNLOAD*{name}*"}, {"when": "after"}),
    "between files": ("unload.die_after_files", {"query": "*{name}*"}, {"files": 1, "drop": True}),
    "before the count": ("redshift.drop_connection", {"sql": "SELECT pg_last_unload_count*"}, {"when": "before"}),
    "after the count": ("redshift.drop_connection", {"sql": "SELECT pg_last_unload_count*"}, {"when": "after"}),
}


def strike(rig: Rig, hold: Hold, victim: str) -> None:
    """One request held at a boundary; the victim dies there and comes back; the request ends."""
    rig.worker.serving()
    rig.front.serving()
    name = f"k{uuid4().hex[:10]}"
    boundary = hold.__name__.replace("_", " ")
    with hold(rig, name) as request_id:
        if victim == "ledger":
            rig.cut_ledger(boundary)
        else:
            rig.kill(victim, boundary)
            if victim in {"kafka", "warehouse"}:
                rig.revive(victim)
    if victim not in {"kafka", "warehouse", "ledger"}:
        rig.revive(victim)
    rig.ended(request_id)


def lose(rig: Rig, when: str) -> None:
    """One request whose connection to the warehouse is lost."""
    rig.worker.serving()
    rig.front.serving()
    name = f"k{uuid4().hex[:10]}"
    kind, pattern, arguments = LOSSES[when]
    match = {fact: text.format(name=name) for fact, text in pattern.items()}
    fault = rig.arm("warehouse", kind, match=match, **arguments)
    request_id = rig.submit(name, f"connection lost {when}")
    rig.struck("warehouse", fault)
    rig.lost(f"connection lost {when}")
    rig.ended(request_id)


@pytest.fixture
def rig(cloud: Cloud, tmp_path: Path) -> Iterator[Rig]:
    with make_rig(cloud, tmp_path) as made:
        yield made


@pytest.mark.scenario
def test_nothing_is_lost_doubled_or_left_hanging(rig: Rig) -> None:
    """A seeded choice of kills, each sort of victim among them; a finished attempt is adopted, not run again."""
    chosen = random.Random(int(os.environ.get("KILL_SEED", "20130")))
    strike(rig, count_not_read, "worker")
    for victim in ("api", "warehouse", "ledger", "kafka"):
        strike(rig, chosen.choice([hold for hold, victims in BOUNDARIES.items() if victim in victims]), victim)
    for when in chosen.sample(sorted(LOSSES), 2):
        lose(rig, when)
    settled = rig.settle()
    assert settled["adopted"] >= 1
    assert sum(rig.kills.values()) >= 7


@pytest.mark.load
@pytest.mark.timeout(7200)
def test_two_hundred_kills(rig: Rig, tmp_path: Path) -> None:
    """Every boundary with everything that can die at it, in random order until 200 kills have struck."""
    began = time.monotonic()
    seed = int(os.environ.get("KILL_SEED", "20130"))
    wanted = int(os.environ.get("KILLS", "200"))
    plan = [(hold, victim) for hold, victims in BOUNDARIES.items() for victim in victims]
    chosen = random.Random(seed)
    while sum(rig.kills.values()) < wanted:
        for hold, victim in chosen.sample(plan, len(plan)):
            struck = time.monotonic()
            strike(rig, hold, victim)
            print(f"{sum(rig.kills.values()):4} {victim} {hold.__name__} {time.monotonic() - struck:.1f} s", flush=True)
        for when in LOSSES:
            lose(rig, when)
    settled = rig.settle()
    folder = Path(os.environ.get("CHAOS_REPORT", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    report = {
        "kills": sum(rig.kills.values()),
        "of": dict(rig.kills),
        "at": dict(sorted(rig.boundaries.items())),
        **settled,
        "seed": seed,
        "seconds": round(time.monotonic() - began, 1),
    }
    (folder / "unload_kills.json").write_text(json.dumps(report, indent=1))
    assert report["kills"] >= wanted
    assert settled["adopted"] >= 1
