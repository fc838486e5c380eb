"""A result far larger than what an UNLOAD may hold: the process's memory is watched while it runs."""

import threading
from collections.abc import Callable
from typing import Any

import psutil
import pytest

from data_platform.local.warehouse.unload.contract import MEGABYTE

pytestmark = pytest.mark.integration

ROW_BYTES = 2000
ROWS = 300_000
RESULT_BYTES = ROWS * ROW_BYTES  # 600 MB


def peak_growth(action: Callable[[], Any]) -> int:
    """How many bytes the resident set grew at most while `action` ran."""
    process = psutil.Process()
    done = threading.Event()
    before = process.memory_info().rss
    peak = before

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.02):
            peak = max(peak, process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        action()
    finally:
        done.set()
        watcher.join()
    return peak - before


@pytest.mark.parametrize("options", ["CSV GZIP", "PARQUET"])
def test_memory_does_not_grow_with_the_result(bench: Any, options: str) -> None:
    bench.unload("select 1 as i, 'x' as filler", options, "warm/")
    query = f"select i, repeat(chr(97 + i % 26), {ROW_BYTES}) as filler from generate_series(1, {ROWS}) i"
    growth = peak_growth(lambda: bench.unload(query, options, "large/"))
    assert bench.seen[-1][0] == ROWS
    assert growth < 250 * MEGABYTE < RESULT_BYTES / 2
