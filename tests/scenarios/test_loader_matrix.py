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
from tests.scenarios import loader_history_faults, loader_line_faults
from tests.scenarios.loader_history import LEASE_S, WINDOW
from tests.scenarios.loader_history_faults import StruckHistory
from tests.scenarios.loader_line_faults import StruckLine
from tests.scenarios.loader_steps import KILLED, STEPS

SEED = int(os.environ.get("DATA_PLATFORM_TEST_SEED", "20130202"))
EACH = 25  # faults of a kind in the full run; of kill -9 at one step of the loader
EACH_STEP = 10
TOGETHER = 4  # faults in one history
CHAPTER = 8  # faults of one comparison of the line
LEAST = 1000
PIECES = 16  # of the full run, a few minutes each
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
    kinds = [kind for kind in loader_history_faults.FAULTS if kind not in SLOW]
    random.Random(SEED).shuffle(kinds)
    for number, some in enumerate(batches(kinds, 7)):
        struck = StruckHistory(matrix_bench, cloud, SEED + number).run(some)
        assert set(struck) == set(some)


@pytest.mark.scenario
@pytest.mark.timeout(240)
def test_a_loader_killed_or_served_badly_leaves_exactly_the_files_rows(cloud: Cloud, tmp_path: Path) -> None:
    kinds = [f"{KILLED}{step}" for step in QUICK_STEPS]
    kinds += ["SQS delivers five times", "SQS delivers out of order", "SQS refuses to delete"]
    kinds += ["rebuild, then its events from the queue", "rebuild, then replay of its dead letters"]
    with StruckLine.open(cloud, tmp_path, SEED) as line:
        line.chapter(kinds)
        assert set(line.struck) == set(kinds)


class Report:
    """Faults of a piece of the run by kind, written while it goes on; beside it the sum of all pieces of the seed."""

    def __init__(self, folder: Path, piece: int) -> None:
        self._pieces = folder / "loader-kill-matrix" / str(SEED)
        self._pieces.mkdir(parents=True, exist_ok=True)
        self._piece = self._pieces / f"{piece}.json"
        self._whole = folder / "loader-kill-matrix.json"
        self._since = time.monotonic()
        self.struck: Counter[str] = Counter()

    def add(self, struck: Counter[str], inexact: Sequence[str]) -> None:
        self.struck += struck
        told = {
            "inexact": list(inexact),  # the first one ends the piece
            "minutes": round((time.monotonic() - self._since) / 60, 1),
            "by kind": dict(self.struck),
        }
        self._piece.write_text(json.dumps(told, indent=1) + "\n")
        pieces = [json.loads(path.read_text()) for path in self._pieces.glob("*.json")]
        by_kind = Counter[str]()
        for each in pieces:
            by_kind.update(each["by kind"])
        report = {
            "seed": SEED,
            "pieces": f"{len(pieces)} of {PIECES}",
            "faults that struck": by_kind.total(),
            "inexact": [kind for each in pieces for kind in each["inexact"]],
            "minutes": round(sum(each["minutes"] for each in pieces), 1),
            "by kind": dict(sorted(by_kind.items())),
        }
        self._whole.write_text(json.dumps(report, indent=1) + "\n")


def all_faults() -> tuple[list[str], list[str]]:
    """Every fault of the full run in a seeded order: those on the line, those in histories."""
    dice = random.Random(SEED)
    steps = [f"{KILLED}{step}" for step in STEPS] * EACH_STEP
    others = [kind for kind in loader_line_faults.FAULTS if kind.removeprefix(KILLED) not in STEPS] * EACH
    on_the_line, in_histories = steps + others, list(loader_history_faults.FAULTS) * EACH
    dice.shuffle(on_the_line)
    dice.shuffle(in_histories)
    assert len(on_the_line) + len(in_histories) >= LEAST
    return on_the_line, in_histories


@pytest.mark.load
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("piece", range(PIECES))
def test_a_thousand_faults_leave_exactly_the_files_rows(
    matrix_bench: Bench, cloud: Cloud, tmp_path: Path, piece: int
) -> None:
    report = Report(Path(os.environ.get("CHAOS_REPORT", tmp_path / "report")), piece)
    on_the_line, in_histories = (kinds[piece::PIECES] for kinds in all_faults())
    some: Sequence[str] = ()
    try:
        with StruckLine.open(cloud, tmp_path / "line", SEED + piece) as line:
            for some in batches(on_the_line, CHAPTER):
                line.struck.clear()
                line.chapter(some)
                report.add(line.struck, [])
        for number, some in enumerate(batches(in_histories, TOGETHER)):
            report.add(StruckHistory(matrix_bench, cloud, SEED + 100 + piece * 100 + number).run(some), [])
    except BaseException:
        report.add(Counter(), some)
        raise
    assert report.struck.total() == len(on_the_line) + len(in_histories)
