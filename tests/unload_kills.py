"""What kills a request at a boundary, and what must be true afterwards: the rig of the kill matrix.

Two API processes share a ledger of their own: the front takes calls and reconciles but has no workers, the worker has
them. A boundary is held by an engine's fault or by a lock in the ledger, which is seen to hold before anything is
killed.
"""

import contextlib
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

import sqlalchemy as sa

from data_platform.clients import aws, kafka
from data_platform.ledger import api_tokens, migrate
from data_platform.ledger.outbox import outbox
from data_platform.ledger.unloads import unload_attempts, unload_changes, unload_requests
from data_platform.local.cloud import Cloud
from data_platform.unload.execution import UnloadTarget, list_prefix, prove_target
from tests.unload_api import FINAL, ROWS, Answer, ApiProcess, Client, make_table

LEASE_S = 2
PATIENCE_S = 60.0


def until(condition: Callable[[], bool], message: str, seconds: float = PATIENCE_S) -> None:
    """Wait for a condition, however slow the machine is."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, message
        time.sleep(0.03)


class Lock:
    """A lock in the rig's ledger, held by a session of the test; `waits` is what the platform is seen to wait with."""

    def __init__(self, url: sa.URL, lock: str, waits: str) -> None:
        self._server = sa.create_engine(url, poolclass=sa.NullPool)
        self._lock = lock
        self._waits = waits
        self._session: sa.Connection | None = None

    def __enter__(self) -> Self:
        self._session = self._server.connect()
        self._session.execute(sa.text(self._lock))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def release(self) -> None:
        """Let go; the session may be gone with its server."""
        session, self._session = self._session, None
        if session is not None:
            with contextlib.suppress(sa.exc.SQLAlchemyError):
                session.rollback()
                session.execute(sa.text("SELECT pg_advisory_unlock_all()"))
            with contextlib.suppress(sa.exc.SQLAlchemyError):
                session.close()

    def holds(self) -> bool:
        """Whether a session of the platform waits for it, with the statement that is meant."""
        waiting = sa.text(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
            " AND wait_event_type = 'Lock' AND query ILIKE :waits"
        )
        with self._server.connect() as session:
            return session.execute(waiting, {"waits": self._waits}).scalar_one() > 0


class Collector:
    """Reads the topic all the time: what was said under each event id, also before a broker lost its records."""

    def __init__(self, cloud: Cloud) -> None:
        self.said: dict[str, set[str]] = {}
        self._cloud = cloud
        self._ending = threading.Event()
        self._again = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def broker_is_back(self) -> None:
        """Its log begins anew: read from its beginning."""
        self._again.set()

    def stop(self) -> None:
        self._ending.set()
        self._thread.join(20)

    def _run(self) -> None:
        settings = self._cloud.settings
        while not self._ending.is_set():
            consumer = kafka.consumer(settings, f"collector-{uuid4().hex}", settings.kafka_unload_topic)
            self._again.clear()
            while not self._ending.is_set() and not self._again.is_set():
                message = consumer.poll(0.2)
                if message is None or message.error() is not None:
                    continue
                with contextlib.suppress(ValueError, TypeError, KeyError):
                    value = json.loads(message.value() or b"")
                    self.said.setdefault(value["eventId"], set()).add(json.dumps(value, sort_keys=True))
            consumer.close()


@dataclass(frozen=True)
class Expected:
    """How a request that was struck must end."""

    request_id: str
    step: str
    status: str = "DONE"


@dataclass
class Rig:
    """Strikes requests, and at the end settles that nothing was lost, doubled or left."""

    cloud: Cloud
    url: sa.URL
    ledger: sa.Engine
    front: ApiProcess
    worker: ApiProcess
    client: Client
    topic: Collector
    kills: Counter[str] = field(default_factory=Counter[str])
    boundaries: Counter[str] = field(default_factory=Counter[str])
    expected: list[Expected] = field(default_factory=list[Expected])

    # -- holding ------------------------------------------------------------------------------------------------------

    def lock(self, lock: str, waits: str) -> Lock:
        return Lock(self.url, lock, waits)

    def arm(self, engine: str, kind: str, *, times: int | None = 1, match: dict[str, str], **arguments: Any) -> int:
        return self.cloud.faults(engine).arm(kind, match=match, times=times, **arguments)

    def struck(self, engine: str, fault: int) -> None:
        until(lambda: self.cloud.faults(engine).struck(fault) >= 1, f"the fault {fault} of {engine} never struck")

    # -- submitting ---------------------------------------------------------------------------------------------------

    def submit(self, name: str, step: str, *, status: str = "DONE") -> str:
        """A request whose query and id hold `name`; answered however long it takes."""
        request_id = f"kill-{name}"
        self.expected.append(Expected(request_id, step, status))
        answer = self.post(request_id, name)
        assert answer.status in {200, 202}, answer.body
        return request_id

    def post(self, request_id: str, name: str) -> Answer:
        """Sends until it is answered, as a client does that lost its connection."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                answer = self.client.submit(
                    f"select id as {name}, name from market.api_rows", request_id, parallel=True
                )
                if answer.status < 500:
                    return answer
                assert answer.status == 503, answer.body
            except OSError:
                pass
            assert time.monotonic() < deadline, f"{request_id} was never accepted"
            time.sleep(0.1)

    def status(self, request_id: str) -> str:
        with self.ledger.connect() as connection:
            query = sa.select(unload_requests.c.status).where(unload_requests.c.request_id == request_id)
            return connection.execute(query).scalar_one_or_none() or ""

    # -- killing ------------------------------------------------------------------------------------------------------

    def kill(self, victim: str, boundary: str) -> None:
        """kill -9 of a process or an engine at a boundary that holds; it is started again at once."""
        if victim in {"api", "both"}:
            self.front.kill()
        if victim in {"worker", "both"}:
            self.worker.kill()
        if victim == "kafka":
            self._read_what_is_published()
        if victim in {"kafka", "warehouse", "aws"}:
            self.cloud.kill(victim)
            assert not self.cloud.running()[victim]
        self.kills[victim] += 2 if victim == "both" else 1
        self.boundaries[boundary] += 2 if victim == "both" else 1

    def revive(self, victim: str) -> None:
        """Start again what was killed; processes that only work are not waited for."""
        if victim in {"worker", "both"}:
            self.worker.launch()
        if victim in {"api", "both"}:
            self.front.start()
        if victim in {"kafka", "warehouse", "aws"}:
            self.cloud.restart(victim)
        if victim == "kafka":
            self.topic.broker_is_back()

    def cut_ledger(self, boundary: str) -> None:
        """End every session the platform has on the ledger, as a failover does."""
        sessions = sa.text(
            "SELECT count(*) FROM (SELECT pg_terminate_backend(pid) AS cut FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name = 'data-platform') AS ended WHERE cut"
        )
        with self.ledger.connect() as connection:
            assert connection.execute(sessions).scalar_one() >= 1
        self.kills["ledger connection"] += 1
        self.boundaries[boundary] += 1

    def lost(self, boundary: str) -> None:
        """A connection was killed: the fault that did it has struck."""
        self.kills["warehouse connection"] += 1
        self.boundaries[boundary] += 1

    def _read_what_is_published(self) -> None:
        with self.ledger.connect() as connection:
            ids = connection.execute(sa.select(outbox.c.event_id).where(outbox.c.published_at.is_not(None))).scalars()
            published = {str(each) for each in ids}
        until(lambda: published <= self.topic.said.keys(), "published events are not on the topic")

    # -- settling -----------------------------------------------------------------------------------------------------

    def attempts(self, request_id: str) -> list[str]:
        with self.ledger.connect() as connection:
            query = sa.select(unload_attempts.c.status).order_by(unload_attempts.c.attempt)
            return list(connection.execute(query.where(unload_attempts.c.request_id == request_id)).scalars())

    def ended(self, request_id: str) -> None:
        """Wait until the ledger has a final state for it."""
        until(lambda: self.status(request_id) in FINAL, f"{request_id} hangs", 2 * PATIENCE_S)

    def settle(self) -> dict[str, int]:
        """Every request has ended as it must, proven or its files removed, told once; how attempts ended."""
        for each in self.expected:
            self.ended(each.request_id)
        until(lambda: self._count(outbox, outbox.c.published_at.is_(None)) == 0, "events stay in the outbox")
        left = unload_requests.c.status.in_(("PENDING", "RUNNING"))
        assert self._count(unload_requests, left) == 0
        adopted = 0
        for each in self.expected:
            adopted += self._ended_well(each)
        with self.ledger.connect() as connection:
            written = {str(each) for each in connection.execute(sa.select(outbox.c.event_id)).scalars()}
        until(lambda: written <= self.topic.said.keys(), "events are not on the topic")
        assert all(len(self.topic.said[identity]) == 1 for identity in written), "one id says two things"
        return {"requests": len(self.expected), "events": len(written), "adopted": adopted}

    def _count(self, table: sa.Table, where: sa.ColumnElement[bool]) -> int:
        with self.ledger.connect() as connection:
            return connection.execute(sa.select(sa.func.count()).select_from(table).where(where)).scalar_one()

    def _ended_well(self, each: Expected) -> bool:
        """Whether the winner was begun by a worker that died, and adopted."""
        request_id = each.request_id
        with self.ledger.connect() as connection:
            query = sa.select(unload_requests.c.status, unload_requests.c.rows, unload_requests.c.attempt)
            status, rows, last = connection.execute(query.where(unload_requests.c.request_id == request_id)).one()
            query = sa.select(unload_attempts.c.attempt, unload_attempts.c.status)
            found = connection.execute(query.where(unload_attempts.c.request_id == request_id))
            attempts = {number: state for number, state in found}  # noqa: C416 - rows are no pairs
            query = sa.select(unload_changes.c.status, unload_changes.c.actor)
            changes = [tuple(row) for row in connection.execute(query.where(unload_changes.c.request_id == request_id))]
            told = connection.execute(sa.select(outbox.c.payload).where(outbox.c.key == request_id)).scalars().all()
        assert status == each.status, (each, attempts, changes)
        assert [state for state, _ in changes if state in FINAL] == [status], (each, changes)
        assert [payload["status"] for payload in told] == [status], (each, told)
        assert "RUNNING" not in attempts.values(), (each, attempts)
        s3, bucket = aws.s3(self.cloud.settings), self.cloud.settings.unload_bucket
        winners = {number for number, state in attempts.items() if state == "DONE"}
        assert winners == ({last} if status == "DONE" else set()), (each, attempts)
        if status == "DONE":
            assert rows == ROWS, each
            prove_target(s3, UnloadTarget(bucket, request_id, str(last)), count=ROWS, header=True)

        def only_the_winner() -> bool:
            keys = list_prefix(s3, bucket, f"unload-results/{request_id}/")
            return {int(key.split("/")[2]) for key in keys} == winners

        until(only_the_winner, f"{each}: files of attempts that did not win stay")
        return any(state == "DONE" and actor.startswith("reconciler/") for state, actor in changes)


@contextlib.contextmanager
def make_rig(cloud: Cloud, folder: Path) -> Iterator[Rig]:
    """Both processes on a database of their own, so that nobody else finishes their requests."""
    make_table(cloud)
    shared = sa.make_url(cloud.settings.postgres_url.get_secret_value())  # type: ignore[union-attr]
    server = sa.create_engine(shared, isolation_level="AUTOCOMMIT", pool_pre_ping=True)
    url = shared.set(database=f"kills_{uuid4().hex}")
    with server.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {url.database}"))
    ledger = sa.create_engine(url, pool_pre_ping=True)
    migrate(ledger)
    with ledger.begin() as connection:
        token = api_tokens.create(connection, "killer", limits=api_tokens.Limits(10_000, 10_000))
    environment = {
        "POSTGRES_URL": url.render_as_string(hide_password=False),
        "DATA_PLATFORM_UNLOAD_LEASE_S": str(LEASE_S),
        "DATA_PLATFORM_UNLOAD_LISTENER_GROUP": f"kills-{uuid4().hex[:8]}",
    }
    front = ApiProcess(cloud, folder / "front.log", arguments=("--workers", "0"), environment=environment)
    worker = ApiProcess(cloud, folder / "worker.log", arguments=("--workers", "3"), environment=environment)
    topic = Collector(cloud)
    worker.launch()
    front.start()
    try:
        yield Rig(cloud, url, ledger, front, worker, Client(front.url, token), topic)
    finally:
        topic.stop()
        front.stop()
        worker.stop()
        ledger.dispose()
        with server.connect() as connection:
            connection.execute(sa.text(f"DROP DATABASE {url.database} WITH (FORCE)"))
        server.dispose()
