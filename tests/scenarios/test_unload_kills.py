"""Kills at every boundary of a request's life: whatever dies, each accepted request ends once, proven, told of once.

The seeded subset runs with the normal tests; the matrix of 200 under the marker `load`, with a report. Every fault is
shown to have struck before anything is killed.
"""

import json
import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import sqlalchemy as sa

from data_platform.clients import aws, kafka
from data_platform.ledger import api_tokens, migrate
from data_platform.ledger.outbox import outbox
from data_platform.ledger.unloads import unload_attempts, unload_changes, unload_requests
from data_platform.local.cloud import Cloud
from data_platform.unload.execution import UnloadTarget, list_prefix, prove_target
from tests.unload_api import ROWS, ApiProcess, Client, make_table

LEASE_S = 2


@dataclass(frozen=True)
class Step:
    """A boundary: the fault that holds the request there (or is itself the loss), and what is killed meanwhile."""

    name: str
    kill: str | None  # api, kafka; None: the fault is the loss
    kind: str | None = None
    match: str = "sql"
    pattern: str = "UNLOAD*{q}*"
    arguments: dict[str, Any] = field(default_factory=dict[str, Any])
    engine: str = "warehouse"


STEPS = (
    Step("accepted, not claimed", "api"),
    Step("statement on its way", "api", "redshift.delay", arguments={"seconds": 4}),
    Step("files being written", "api", "unload.slow", "query", "*{q}*", {"seconds": 4}),
    Step("unloaded, count not read", "api", "redshift.delay", "sql", "SELECT pg_last_unload_count*", {"seconds": 6}),
    Step("unloaded, proof not made", "api", "s3.delay", "key", "unload-results/{id}/*manifest",
         {"seconds": 6, "when": "before"}, "aws"),
    Step("session lost before the statement", None, "redshift.drop_connection", arguments={"when": "before"}),
    Step("session lost after the statement", None, "redshift.drop_connection", arguments={"when": "after"}),
    Step("session lost before the count", None, "redshift.drop_connection", "sql", "SELECT pg_last_unload_count*",
         {"when": "before"}),
    Step("session lost between files", None, "unload.die_after_files", "query", "*{q}*", {"files": 1, "drop": True}),
    Step("connection refused", None, "redshift.refuse_connection", "application_name", "data-platform"),
    Step("serialisation conflict", None, "redshift.error"),
    Step("broker gone while it runs", "kafka", "unload.slow", "query", "*{q}*", {"seconds": 1}),
)  # fmt: skip


@dataclass
class Rig:
    """An API of its own on a ledger of its own, so that nobody else finishes its requests."""

    cloud: Cloud
    api: ApiProcess
    client: Client
    ledger: sa.Engine
    kills: Counter[str] = field(default_factory=Counter[str])
    adopted: int = 0

    def strike(self, step: Step) -> None:
        """One request through one boundary."""
        name = f"k{uuid4().hex[:10]}"
        request_id = f"kill-{name}"
        fault = self._arm(step, name, request_id)
        accepted = self.client.submit(f"select id as {name}, name from market.api_rows", request_id, parallel=True)
        assert accepted.status == 202, accepted.body
        if fault is not None:
            self._until(lambda: self.cloud.faults(step.engine).struck(fault) >= 1, f"{step.name}: never struck")
        if step.kill == "api":
            self.api.kill()
            self.api.start()
        elif step.kill == "kafka":
            self.cloud.kill("kafka")
            self.cloud.restart("kafka")
        self.kills[step.name] += 1
        self._ended_well(step, request_id)
        if fault is not None:
            self.cloud.faults(step.engine).disarm(fault)

    def _arm(self, step: Step, name: str, request_id: str) -> int | None:
        if step.kind is None:
            return None
        pattern = step.pattern.format(q=name, id=request_id)
        return self.cloud.faults(step.engine).arm(step.kind, match={step.match: pattern}, **step.arguments)

    def _ended_well(self, step: Step, request_id: str) -> None:
        state = self.client.wait(request_id, seconds=60)
        assert (state["status"], state["rows"]) == ("DONE", ROWS), (step.name, state)
        with self.ledger.connect() as connection:
            attempts = dict(
                tuple(row)
                for row in connection.execute(
                    sa.select(unload_attempts.c.attempt, unload_attempts.c.status).where(
                        unload_attempts.c.request_id == request_id
                    )
                )
            )
            done = connection.execute(
                sa.select(sa.func.count()).where(
                    unload_changes.c.request_id == request_id, unload_changes.c.status == "DONE"
                )
            ).scalar_one()
            told = connection.execute(sa.select(outbox.c.payload).where(outbox.c.key == request_id)).scalars().all()
        assert Counter(attempts.values())["DONE"] == 1, (step.name, attempts)
        assert done == 1
        assert [payload["status"] for payload in told] == ["DONE"]
        winner = next(number for number, status in attempts.items() if status == "DONE")
        s3, bucket = aws.s3(self.cloud.settings), self.cloud.settings.unload_bucket
        prove_target(s3, UnloadTarget(bucket, request_id, str(winner)), count=ROWS, header=True)

        def only_the_winner() -> bool:
            return {key.split("/")[2] for key in list_prefix(s3, bucket, f"unload-results/{request_id}/")} == {
                str(winner)
            }

        self._until(only_the_winner, f"{step.name}: files of lost attempts stay")
        self.adopted += step.kill == "api" and len(attempts) == 1 and step.kind is not None

    def _until(self, condition: Any, message: str, seconds: float = 40) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, message
            time.sleep(0.05)

    def all_told(self) -> None:
        """Every event of the ledger is on the topic, and no id says two things."""
        self._until(lambda: self._unpublished() == 0, "events stay in the outbox", 60)
        with self.ledger.connect() as connection:
            written = {str(each) for each in connection.execute(sa.select(outbox.c.event_id)).scalars()}
            open_ = connection.execute(
                sa.select(sa.func.count()).where(unload_requests.c.status.in_(("PENDING", "RUNNING")))
            ).scalar_one()
        assert open_ == 0
        if self.kills["broker gone while it runs"]:
            return  # the embedded broker keeps its records in memory
        consumer = kafka.consumer(self.cloud.settings, f"kills-{uuid4().hex}", self.cloud.settings.kafka_unload_topic)
        said: dict[str, set[str]] = {}
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and not written <= said.keys():
            message = consumer.poll(0.5)
            if message is not None and message.error() is None:
                value = (message.value() or b"").decode()
                if value.startswith("{") and "eventId" in value:
                    said.setdefault(json.loads(value)["eventId"], set()).add(value)
        consumer.close()
        assert written <= said.keys()
        assert all(len(said[identity]) == 1 for identity in written)

    def _unpublished(self) -> int:
        with self.ledger.connect() as connection:
            return connection.execute(sa.select(sa.func.count()).where(outbox.c.published_at.is_(None))).scalar_one()


@pytest.fixture
def rig(cloud: Cloud, tmp_path: Path) -> Iterator[Rig]:
    make_table(cloud)
    url = sa.make_url(cloud.settings.postgres_url.get_secret_value())  # type: ignore[union-attr]
    server = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    database = f"kills_{uuid4().hex}"
    with server.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {database}"))
    ledger = sa.create_engine(url.set(database=database), pool_pre_ping=True)
    migrate(ledger)
    with ledger.begin() as connection:
        token = api_tokens.create(connection, "killer", limits=api_tokens.Limits(10_000, 10_000))
    environment = {
        "POSTGRES_URL": url.set(database=database).render_as_string(hide_password=False),
        "DATA_PLATFORM_UNLOAD_LEASE_S": str(LEASE_S),
        "DATA_PLATFORM_UNLOAD_LISTENER_GROUP": f"kills-{uuid4().hex[:8]}",
    }
    api = ApiProcess(cloud, tmp_path / "api.log", environment=environment).start()
    try:
        yield Rig(cloud, api, Client(api.url, token), ledger)
    finally:
        api.stop()
        ledger.dispose()
        with server.connect() as connection:
            connection.execute(sa.text(f"DROP DATABASE {database} WITH (FORCE)"))
        server.dispose()


@pytest.mark.scenario
def test_nothing_is_lost_doubled_or_left_hanging(rig: Rig) -> None:
    """One kill at each of a seeded choice of boundaries; those that cost a restart are few."""
    seed = int(os.environ.get("KILL_SEED", "20130"))
    chosen = random.Random(seed)
    restarts = [step for step in STEPS if step.kill == "api"]
    losses = [step for step in STEPS if step.kill is None]
    plan = [STEPS[3], *chosen.sample([step for step in restarts if step is not STEPS[3]], 2), *chosen.sample(losses, 5)]
    for step in plan:
        rig.strike(step)
    assert rig.adopted >= 1, "a finished attempt of a dead worker is taken over, not run again"
    rig.all_told()


@pytest.mark.load
@pytest.mark.timeout(3600)
def test_two_hundred_kills(rig: Rig, tmp_path: Path) -> None:
    """Every boundary in turn until 200 kills have struck; the report is chaos/unload_kills.json."""
    began = time.monotonic()
    for n in range(200):
        rig.strike(STEPS[n % len(STEPS)])
    rig.all_told()
    folder = Path(os.environ.get("CHAOS_REPORT", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    report = {"kills": dict(rig.kills), "adopted": rig.adopted, "seconds": round(time.monotonic() - began, 1)}
    (folder / "unload_kills.json").write_text(json.dumps(report, indent=1))
    assert sum(rig.kills.values()) == 200
