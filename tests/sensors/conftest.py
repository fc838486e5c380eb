"""A daemon in miniature: ticks with Dagster's own order of things, runs by run key, and its deaths at every step."""

import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import dagster as dg
import pytest

from data_platform.settings import Settings
from tests.desk.conftest import platform_of

RUN_KEY_TAG = "dagster/run_key"
# Where the daemon dies: before anything is kept, behind the events and partitions, behind the runs. Its cursor is kept
# last, as are the ids of the runs it reserved, so a run key is what keeps a repeated tick from starting a run again.
DEATHS = ("evaluation", "events", "runs")


@dataclass
class Daemon:
    """Ticks of one sensor. `work` does what a launched run does and returns whether it succeeded."""

    sensor: dg.SensorDefinition
    settings: Callable[[], Settings]
    instance: dg.DagsterInstance
    work: Callable[[dg.RunRequest], bool] = lambda _: True
    definitions: dg.Definitions | None = None
    cursor: str | None = None
    events: list[Any] = field(default_factory=list[Any])
    runs: list[dg.RunRequest] = field(default_factory=list[dg.RunRequest])
    seen: Counter[str] = field(default_factory=Counter[str])
    errors: list[Exception] = field(default_factory=list[Exception])

    def tick(self, *, dies: str | None = None) -> bool:
        """Evaluate and keep what Dagster would; False when the sensor raised: then nothing is kept."""
        self.seen["ticks"] += 1
        with dg.build_sensor_context(
            instance=self.instance,
            instance_ref=self.instance.get_ref() if self.instance.is_persistent else None,
            cursor=self.cursor,
            resources={"platform": platform_of(self.settings())},
            definitions=self.definitions,
        ) as context:
            try:
                data = self.sensor.evaluate_tick(context)
            except Exception as error:  # noqa: BLE001 - whatever it is, a daemon logs it and goes on
                self.seen["failed"] += 1
                self.errors.append(error)
                return False
        self.seen[f"died behind {dies}" if dies else "whole"] += 1
        if dies == "evaluation":
            return True
        for wanted in data.dynamic_partitions_requests or []:
            self.instance.add_dynamic_partitions(wanted.partitions_def_name, list(wanted.partition_keys))
        self.events += data.asset_events
        if dies == "events":
            return True
        for request in data.run_requests or []:
            self._launch(request)
        if dies is None:
            assert len(data.cursor or "") < 2000
            self.cursor = data.cursor
        return True

    def _launch(self, request: dg.RunRequest) -> None:
        assert request.run_key
        assert len(request.run_key) < 200
        if self.instance.get_runs(dg.RunsFilter(tags={RUN_KEY_TAG: request.run_key})):
            return
        self.runs.append(request)
        status = dg.DagsterRunStatus.SUCCESS if self.work(request) else dg.DagsterRunStatus.FAILURE
        job = request.job_name or self.sensor.job_name or self.sensor.name
        self.instance.add_run(dg.DagsterRun(job, tags={**request.tags, RUN_KEY_TAG: request.run_key}, status=status))


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as found:
        yield found


@pytest.fixture
def chance(request: pytest.FixtureRequest) -> random.Random:
    """The same dice for the same test."""
    return random.Random(request.node.originalname)


def death(chance: random.Random, often: float = 0.3) -> str | None:
    """Where this tick dies, if it does."""
    return chance.choice(DEATHS) if chance.random() < often else None
