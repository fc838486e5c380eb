"""A backfill that is killed, at any of its calls or at any moment, and run again, ends in exactly the right rows."""

import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from data_platform.local.cloud import Cloud
from tests.flow import day
from tests.flow_runs import FlowRuns, flow_runs

pytestmark = pytest.mark.scenario
CHILD = Path(__file__).with_name("first_flow_child.py")
DAYS = 4
SEED = int(os.environ.get("DATA_PLATFORM_TEST_SEED", "20130202"))


@pytest.fixture(scope="module")
def runs(cloud: Cloud, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlowRuns]:
    with flow_runs(cloud, tmp_path_factory.mktemp("catalog"), "items") as runs:
        yield runs


def child(runs: FlowRuns, kill_at: int) -> subprocess.Popen[str]:
    arguments = [f"{runs.flow.domain}/items", "--from", str(day(0)), "--to", str(day(DAYS - 1)), "--json"]
    return subprocess.Popen(
        [sys.executable, str(CHILD), str(kill_at), *arguments],
        env={**runs.flow.cloud.process_env, **runs.flow.env, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def calls_of_a_whole_run(runs: FlowRuns) -> int:
    process = child(runs, 0)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, out + err
    return int(re.findall(r"calls=(\d+)", out)[-1])


def new_source(runs: FlowRuns, number: int) -> dict[str, tuple[int, int]]:
    """Another content for every round: rows that were not there before, and a day that is empty now."""
    rows = {day(n): 20 + 7 * number + n for n in range(DAYS) if n != number % DAYS}
    runs.flow.fill("items", rows, first_id=1000 * (number + 1))
    return {str(when): (count, count) for when, count in rows.items()}


def check(runs: FlowRuns, wanted: dict[str, tuple[int, int]], number: int) -> None:
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


def kill_and_check(runs: FlowRuns, number: int, *kill_at: int) -> int:
    """Kill the run at these calls, one run after the other, then let it end; returns the kills."""
    wanted = new_source(runs, number)
    kills = 0
    for each in kill_at:
        process = child(runs, each)
        process.communicate(timeout=120)
        kills += process.returncode == -signal.SIGKILL
    check(runs, wanted, number)
    return kills


def test_killed_at_any_call_and_run_again_it_is_exact(runs: FlowRuns) -> None:
    """More kills than a pool has slots: a dead run's slot must not be waited for."""
    new_source(runs, 99)
    total = calls_of_a_whole_run(runs)
    chosen = random.Random(SEED)
    points = [chosen.randrange(part * total // 6 + 1, (part + 1) * total // 6) for part in range(1, 6)]
    kills = kill_and_check(runs, 0, points[0], points[3])
    kills += kill_and_check(runs, 1, points[4], points[1], points[2])
    assert kills >= 4, f"{kills} kills at {points} of {total} calls"


@pytest.mark.load
@pytest.mark.timeout(1800)
def test_killed_at_every_kind_of_call_it_is_exact(runs: FlowRuns) -> None:
    new_source(runs, 99)
    total = calls_of_a_whole_run(runs)
    points = range(1, total, max(1, total // 60))
    kills = sum(kill_and_check(runs, number, at) for number, at in enumerate(points))
    assert kills >= 0.8 * len(points)


@pytest.mark.load
@pytest.mark.timeout(1800)
def test_killed_at_any_moment_it_is_exact(runs: FlowRuns) -> None:
    chosen = random.Random(SEED)
    new_source(runs, 99)
    begin = time.monotonic()
    calls_of_a_whole_run(runs)
    whole_s = time.monotonic() - begin
    kills = 0
    for number in range(25):
        wanted = new_source(runs, number)
        process = child(runs, 0)
        time.sleep(chosen.uniform(0.1, 0.9) * whole_s)
        process.kill()
        process.communicate(timeout=60)
        kills += process.returncode == -signal.SIGKILL
        check(runs, wanted, number)
    assert kills >= 15
