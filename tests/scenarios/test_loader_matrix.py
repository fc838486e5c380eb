"""The kill matrix: faults at random instants of random histories; rows, distinct rows and hash must be the files' own.

Every fault is counted only when it struck. Seeded: a failing seed and its kinds fail again. The table of the histories
remembers two tokens only, so most are overrun.
"""

import json
import os
import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from data_platform.local.cloud import Cloud
from tests.loading.conftest import Bench, make_bench
from tests.scenarios import loader_history, loader_line
from tests.scenarios.loader_history import LEASE_S, WINDOW, History
from tests.scenarios.loader_line import KILLED, STEPS, Line

SEED = int(os.environ.get("DATA_PLATFORM_TEST_SEED", "20130202"))
EACH = 25  # faults of a kind in the full run; of kill -9 at one step of the loader
EACH_STEP = 10
TOGETHER = 4  # faults in one history
CHAPTER = 8  # faults of one comparison of the line
LEAST = 1000
# One of each in the default suite; a restart of ClickHouse costs seconds.
QUICK_STEPS = ("the intent written", "inserted", "swapped", "deleting the message")
SLOW = {"kill -9 of ClickHouse", "worker paused past its lease", "kill -9 of ClickHouse under a loader"}


def batches(kinds: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    """The kinds in order, `size` at a time."""
    return (kinds[start : start + size] for start in range(0, len(kinds), size))


@pytest.fixture
def matrix_bench(cloud: Cloud) -> Iterator[Bench]:
    made = make_bench(cloud.settings.model_copy(update={"loader_lease_s": LEASE_S}))
    made.warehouse.client.command(
        f"ALTER TABLE {made.table} MODIFY SETTING non_replicated_deduplication_window = {WINDOW}"
    )
    yield made
    made.warehouse.client.command(f"DROP TABLE IF EXISTS {made.table} SYNC")


@pytest.mark.scenario
@pytest.mark.timeout(240)
def test_faults_of_every_kind_leave_exactly_the_files_rows(matrix_bench: Bench, cloud: Cloud) -> None:
    kinds = [kind for kind in loader_history.FAULTS if kind not in SLOW]
    random.Random(SEED).shuffle(kinds)
    for number, some in enumerate(batches(kinds, 7)):
        struck = History(matrix_bench, cloud, SEED + number).run(some)
        assert set(struck) == set(some)


@pytest.mark.scenario
@pytest.mark.timeout(240)
def test_a_loader_killed_or_served_badly_leaves_exactly_the_files_rows(cloud: Cloud, tmp_path: Path) -> None:
    kinds = [f"{KILLED}{step}" for step in QUICK_STEPS]
    kinds += ["SQS delivers five times", "SQS delivers out of order", "SQS refuses to delete"]
    kinds += ["rebuild, then its events from the queue", "rebuild, then replay of its dead letters"]
    with Line.open(cloud, tmp_path, SEED) as line:
        line.chapter(kinds)
        assert set(line.struck) == set(kinds)


class Report:
    """Faults by kind, written to CHAOS_REPORT while the run goes on."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "loader-kill-matrix.json"
        self._since = time.monotonic()
        self.struck: Counter[str] = Counter()

    def add(self, struck: Counter[str], inexact: list[str]) -> None:
        self.struck += struck
        report = {
            "seed": SEED,
            "faults that struck": self.struck.total(),
            "inexact": inexact,  # the first one ends the run
            "minutes": round((time.monotonic() - self._since) / 60, 1),
            "by kind": dict(self.struck),
        }
        self._path.write_text(json.dumps(report, indent=1) + "\n")


@pytest.mark.load
@pytest.mark.timeout(7200)
def test_a_thousand_faults_leave_exactly_the_files_rows(matrix_bench: Bench, cloud: Cloud, tmp_path: Path) -> None:
    report = Report(Path(os.environ.get("CHAOS_REPORT", tmp_path / "report")))
    dice = random.Random(SEED)
    steps = [f"{KILLED}{step}" for step in STEPS] * EACH_STEP
    others = [kind for kind in loader_line.FAULTS if kind.removeprefix(KILLED) not in STEPS] * EACH
    on_the_line = steps + others
    in_histories = list(loader_history.FAULTS) * EACH
    dice.shuffle(on_the_line)
    dice.shuffle(in_histories)
    assert len(on_the_line) + len(in_histories) >= LEAST
    some: Sequence[str] = ()
    try:
        with Line.open(cloud, tmp_path / "line", SEED) as line:
            for some in batches(on_the_line, CHAPTER):
                line.struck.clear()
                line.chapter(some)
                report.add(line.struck, [])
        for number, some in enumerate(batches(in_histories, TOGETHER)):
            report.add(History(matrix_bench, cloud, SEED + 100 + number).run(some), [])
    except BaseException:
        report.add(Counter(), list(some))
        raise
    assert report.struck.total() >= LEAST
