"""A backfill that is killed, at any of its calls or at any moment, and run again, ends in exactly the right rows."""

import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from data_platform.local.cloud import Cloud
from tests.flow import day
from tests.flow_runs import FlowRuns, flow_runs

pytestmark = pytest.mark.scenario
CHILD = Path(__file__).with_name("first_flow_child.py")
DAYS = 4
SEED = int(os.environ.get("DATA_PLATFORM_TEST_SEED", "20130202"))


@dataclass
class Backfills(FlowRuns):
    """Backfills of the items in this process, and in processes that can be killed."""

    forking: subprocess.Popen[str] = field(kw_only=True)
    log: Path = field(kw_only=True)

    def killed_at(self, call: int, *, after_s: float = 0) -> int:
        """The exit code of the command in a process that is killed before its nth call or after `after_s` seconds.

        0 and 0: it lives.
        """
        arguments = [f"{self.flow.domain}/items", "--from", str(day(0)), "--to", str(day(DAYS - 1)), "--json"]
        assert self.forking.stdin is not None
        assert self.forking.stdout is not None
        self.forking.stdin.write("\t".join([str(call), str(after_s), str(self.log), *arguments]) + "\n")
        self.forking.stdin.flush()
        return int(self.forking.stdout.readline())

    def calls_of_a_whole_run(self) -> int:
        """How many calls the command makes."""
        code, told = self.killed_at(0), self.log.read_text(encoding="utf-8")
        assert code == 0, told
        return int(re.findall(r"calls=(\d+)", told)[-1])


@pytest.fixture(scope="module")
def runs(cloud: Cloud, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backfills]:
    folder = tmp_path_factory.mktemp("catalog")
    with flow_runs(cloud, folder, "items") as runs:
        environment = {**cloud.process_env, **runs.flow.env, "PYTHONPATH": os.pathsep.join(sys.path)}
        with subprocess.Popen(
            [sys.executable, str(CHILD)], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as forking:
            yield Backfills(
                runs.flow, runs.instance, runs.definitions, forking=forking, log=folder.with_name("backfill.log")
            )


def new_source(runs: Backfills, number: int) -> dict[str, tuple[int, int]]:
    """Another content for every round: rows that were not there before, and a day that is empty now."""
    rows = {day(n): 20 + 7 * number + n for n in range(DAYS) if n != number % DAYS}
    runs.flow.fill("items", rows, first_id=1000 * (number + 1))
    return {str(when): (count, count) for when, count in rows.items()}


def check(runs: Backfills, wanted: dict[str, tuple[int, int]], number: int) -> None:
    """Run it again: a success, the source's rows and no others, nothing left behind."""
    flow = runs.flow
    result = runs.backfill("items", day(0), day(DAYS - 1))
    assert result.success, result.reason
    found = flow.table("items", "count(), uniqExact(id), min(id)")
    assert {when: values[:2] for when, values in found.items()} == wanted
    assert {values[2] for values in found.values()} == {1000 * (number + 1) + 1}
    assert flow.staging_tables() == []
    for n in range(DAYS):
        attempts = flow.attempts("items", day(n))
        assert attempts[-1]["status"] == "DONE"
        assert all(entry["status"] != "RUNNING" for entry in attempts)
        failed = [entry["prefix"] for entry in attempts if entry["status"] == "FAILED"]
        assert not [key for key in flow.unloaded("items", day(n)) if key.startswith(tuple(failed))]
        assert len(flow.curated("items", day(n))) == 1 + (str(day(n)) in wanted)


def kill_and_check(runs: Backfills, number: int, *kill_at: int) -> int:
    """Kill the run at these calls, one run after the other, then let it end; returns the kills."""
    wanted = new_source(runs, number)
    kills = 0
    for each in kill_at:
        kills += runs.killed_at(each) == -signal.SIGKILL
    check(runs, wanted, number)
    return kills


def test_killed_at_any_call_and_run_again_it_is_exact(runs: Backfills) -> None:
    """More kills than a pool has slots: a dead run's slot must not be waited for."""
    new_source(runs, 99)
    total = runs.calls_of_a_whole_run()
    chosen = random.Random(SEED)
    points = [chosen.randrange(part * total // 6 + 1, (part + 1) * total // 6) for part in range(1, 6)]
    kills = kill_and_check(runs, 0, points[0], points[3])
    kills += kill_and_check(runs, 1, points[4], points[1], points[2])
    assert kills >= 4, f"{kills} kills at {points} of {total} calls"


@pytest.mark.load
@pytest.mark.timeout(1800)
def test_killed_at_every_kind_of_call_it_is_exact(runs: Backfills) -> None:
    new_source(runs, 99)
    total = runs.calls_of_a_whole_run()
    points = range(1, total, max(1, total // 60))
    kills = sum(kill_and_check(runs, number, at) for number, at in enumerate(points))
    assert kills >= 0.8 * len(points)


@pytest.mark.load
@pytest.mark.timeout(1800)
def test_killed_at_any_moment_it_is_exact(runs: Backfills) -> None:
    chosen = random.Random(SEED)
    new_source(runs, 99)
    begin = time.monotonic()
    runs.calls_of_a_whole_run()
    whole_s = time.monotonic() - begin
    kills = 0
    for number in range(25):
        wanted = new_source(runs, number)
        kills += runs.killed_at(0, after_s=chosen.uniform(0.1, 0.9) * whole_s) == -signal.SIGKILL
        check(runs, wanted, number)
    assert kills >= 15
