"""The CSV batch under faults: killed at every step, paused past its lease, run twice at once, the database away."""

import os
import random
import signal as signals
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from data_platform.local.cloud import Cloud
from data_platform.statistics.errors import FileLockedError, ProcessingError
from data_platform.statistics.outcome import Limits, Progress
from tests.statistics.bench import Bench, emptied, make_bench
from tests.statistics.faults import BEFORE, CHUNKS, IN_CHUNKS, OPTIONS, ROWS, STEPS, assert_once, body, expected, start

pytestmark = pytest.mark.scenario
SEED = 20250807


@pytest.fixture(scope="module")
def module_bench(cloud: Cloud) -> Iterator[Bench]:
    """One database for the tests of this module."""
    yield from make_bench(cloud, f"s_{uuid.uuid4().hex}")


@pytest.fixture
def bench(module_bench: Bench) -> Bench:
    """The module's database, empty but for 100 users."""
    return emptied(module_bench)


def killed(bench: Any, file: Any, tmp_path: Path, step: tuple[str, int]) -> None:
    """Run the child until it kills itself at `step`; proves that it did."""
    mark = tmp_path / f"{file.key.rpartition('/')[2]}.mark"
    child = start(bench, file, mark, at=step[0], nth=step[1])
    out, err = child.communicate(timeout=60)
    assert child.returncode == -signals.SIGKILL, (step, out, err)
    assert mark.read_text().startswith(step[0])


def end_leases(bench: Any) -> None:
    """What 30 seconds of waiting would do."""
    bench.write("UPDATE job_locks SET lease_until = clock_timestamp() - interval '1 second' WHERE owner IS NOT NULL")


@pytest.mark.parametrize("step", random.Random(SEED).sample(STEPS, 6), ids=lambda step: f"{step[0]}-{step[1]}")
def test_a_run_killed_anywhere_is_finished_by_the_next(bench: Any, tmp_path: Path, step: tuple[str, int]) -> None:
    file = bench.drop(body(5))
    killed(bench, file, tmp_path, step)
    bench.assert_ledger_agrees()  # at every moment, not only at the end
    end_leases(bench)
    outcome = bench.apply(file, options=OPTIONS)
    assert outcome.status == ("ALREADY_DONE" if step[0] == "finished" else "DONE")
    assert_once(bench, file, 5)


@pytest.mark.load
@pytest.mark.timeout(900)
def test_a_hundred_kills_and_a_report(bench: Any, tmp_path: Path) -> None:
    """Kills at every step, several per file until it is done; the report is written to CHAOS_REPORT."""
    chance = random.Random(SEED)
    lines, kills, number = list[str](), 0, 0
    while kills < 100:
        number += 1
        offset = number * 1000
        file = bench.drop(body(offset))
        steps = [STEPS[number % len(STEPS)], *chance.sample(BEFORE + IN_CHUNKS[: 2 * CHUNKS], 2)]
        struck = 0
        for step in steps:
            mark = tmp_path / f"{number}-{struck}.mark"
            child = start(bench, file, mark, at=step[0], nth=step[1])
            out, err = child.communicate(timeout=60)
            if not mark.exists():  # fewer chunks were left than the step asks for
                assert child.returncode == 0, (out, err)
                break
            assert child.returncode == -signals.SIGKILL, (out, err)
            struck += 1
            bench.assert_ledger_agrees()
            end_leases(bench)
            lines.append(f"file {number}: killed at {mark.read_text()}")
        kills += struck
        bench.apply(file, options=OPTIONS)
        assert_once(bench, file, offset)
        lines.append(f"file {number}: {struck} kills, {ROWS} rows once, ledger agrees")
    folder = Path(os.environ.get("CHAOS_REPORT", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    report = folder / "statistics-chaos.txt"
    report.write_text("\n".join([f"{kills} kills, {number} files, 0 inconsistencies", *lines]) + "\n")
    print(f"\n{kills} kills, {number} files, 0 inconsistencies; {report}")
    assert kills >= 100


@pytest.mark.parametrize(("at", "nth"), [("upserted", 2), ("written", 2), ("committed", 2)])
def test_a_paused_holder_that_wakes_up_writes_nothing(bench: Any, tmp_path: Path, at: str, nth: int) -> None:
    file = bench.drop(body(5))
    mark = tmp_path / "mark"
    child = start(bench, file, mark, at=at, nth=nth, signal="stop", lease_s=1.0)
    try:
        wait_for(mark.exists)
        outcome = bench.apply(file, options=OPTIONS, limits=Limits(lease_s=5, wait_s=40))
        assert outcome.status == "DONE"
        # Somebody else changes the counts: a woken holder that wrote would put the old ones back.
        bench.write("UPDATE user_statistics SET login_count = login_count + 1000000")
        child.send_signal(signals.SIGCONT)
        out, err = child.communicate(timeout=60)
    finally:
        child.kill()
        child.communicate()
    assert out.startswith("ProcessingError"), (out, err)
    assert bench.table() == {user: (login + 1_000_000, post) for user, (login, post) in expected(5).items()}
    tokens = {token for (token,) in bench.rows("SELECT token FROM batch_jobs")}
    # Chunks run side by side: before the second commit of the first holder there may have been none.
    assert tokens == {1, 2} or (at != "committed" and tokens == {2})
    bench.assert_ledger_agrees()
    assert bench.staging() == []


def test_two_runs_over_one_file_are_one(bench: Any, tmp_path: Path) -> None:
    file = bench.drop(body(5))
    children = [start(bench, file, tmp_path / f"mark-{number}") for number in range(2)]
    ends = [child.communicate(timeout=60) for child in children]
    assert sorted(out.strip() for out, _ in ends) == ["ALREADY_DONE", "DONE"], ends
    assert_once(bench, file, 5)


def test_a_second_run_that_does_not_want_to_wait_is_told_who_works(bench: Any) -> None:
    file = bench.drop(body(5))
    entered, leave = threading.Event(), threading.Event()

    def slow(progress: Progress) -> None:
        if progress.step == "staged":
            entered.set()
            leave.wait(20)

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(bench.apply, file, options=OPTIONS, owner="the first", on_progress=slow)
        assert entered.wait(20)
        try:
            with pytest.raises(FileLockedError, match="the first"):
                bench.apply(file, options=OPTIONS, limits=Limits(wait_s=0))
        finally:
            leave.set()
        assert first.result(30).status == "DONE"
    assert_once(bench, file, 5)


def test_the_lease_is_renewed_while_a_chunk_is_being_written(bench: Any) -> None:
    file = bench.drop(body(5))
    renewed = list[bool]()

    def wait_for_renewal(progress: Progress) -> None:
        if progress.step == "upserted" and not renewed:
            until = bench.rows("SELECT max(lease_until) FROM job_locks")
            wait_for(lambda: bench.rows("SELECT max(lease_until) FROM job_locks") != until, timeout=20)
            renewed.append(True)

    limits = Limits(lease_s=6)  # renewed every 2 s
    assert bench.apply(file, options=OPTIONS, limits=limits, on_progress=wait_for_renewal).status == "DONE"
    assert renewed
    assert_once(bench, file, 5)


def test_the_hard_time_out_ends_a_run_and_the_next_goes_on(bench: Any) -> None:
    file = bench.drop(body(5))

    def slow(progress: Progress) -> None:
        if progress.step == "committed":
            time.sleep(0.6)

    with pytest.raises(ProcessingError, match=r"time-out after 0\.5 s") as caught:
        bench.apply(file, options={**OPTIONS, "parallel_chunks": 1}, limits=Limits(timeout_s=0.5), on_progress=slow)
    assert (caught.value.level, caught.value.rule) == ("FATAL", "timeout")
    assert 1 <= len(bench.rows("SELECT 1 FROM batch_jobs WHERE status = 'DONE'")) < len(expected(5)) / 10
    assert bench.rows("SELECT level, error_class FROM audit_logs WHERE event = 'PROCESSING_FAILED'") == [
        ("FATAL", "ProcessingError")
    ]
    assert bench.apply(file, options=OPTIONS).status == "DONE"
    assert_once(bench, file, 5)


@pytest.fixture
def restarted(cloud: Cloud) -> Iterator[Cloud]:
    """The warehouse is up again afterwards, whatever happens."""
    yield cloud
    if not cloud.running()["warehouse"]:
        cloud.restart("warehouse")


def test_a_database_that_goes_away_in_the_middle(bench: Any, restarted: Cloud) -> None:
    file = bench.drop(body(5))
    gone = threading.Event()

    def kill(progress: Progress) -> None:
        if progress.step == "committed" and not gone.is_set():
            gone.set()
            restarted.kill("warehouse")

    with pytest.raises(ProcessingError) as caught:
        bench.apply(file, options={**OPTIONS, "parallel_chunks": 2}, on_progress=kill)
    assert gone.is_set()
    assert not restarted.running()["warehouse"]
    assert caught.value.rule.startswith("database")
    assert any("ProcessingError" in line for line in bench.told)
    restarted.restart("warehouse")
    done = bench.rows("SELECT sum(rows) FROM batch_jobs WHERE status = 'DONE'")[0][0]
    assert len(bench.table()) == done  # whole chunks, nothing between
    assert 1 <= done < ROWS
    bench.assert_ledger_agrees()
    end_leases(bench)
    assert bench.apply(file, options=OPTIONS).status == "DONE"
    assert_once(bench, file, 5)


def test_s3_that_breaks_off_is_read_again(bench: Any, cloud: Cloud) -> None:
    file = bench.drop(body(5) + "".join(f"U{n:05d},1,1\n" for n in range(200_000, 260_000)))
    fault = cloud.faults("aws").arm("s3.truncate", times=1)
    bench.apply(file, options=OPTIONS)
    assert cloud.faults("aws").struck(fault) == 1
    assert {user: counts for user, counts in bench.table().items() if user in expected(5)} == expected(5)
    bench.assert_ledger_agrees()


def wait_for(condition: Any, timeout: float = 30) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
