"""What the HTTP front costs: a 10 M row INSERT SELECT and a trivial query, against the same engine in process.

Both sides run in the same minute on the same disk, by turns, each first in every second round, so that a busy machine
slows both; the ratio is the median of the rounds' ratios.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import chdb
import clickhouse_connect

from data_platform.local.process import EngineProcess

ROWS = 10_000_000
ROUNDS = 11
QUERIES = 300
LIMIT_RATIO = 1.10
LIMIT_LATENCY_MS = 5.0
TABLE = "CREATE TABLE bench (id UInt64, name String, bucket UInt32) ENGINE = MergeTree ORDER BY id"
INSERT = f"INSERT INTO bench SELECT number, toString(number), number % 1000 FROM numbers({ROWS})"
TRUNCATE = "TRUNCATE TABLE bench SYNC"


def seconds(call: Callable[[], object]) -> float:
    """How long a call takes."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def main() -> int:
    """Print the ratios; 1 when a limit is broken."""
    with tempfile.TemporaryDirectory() as folder:
        inside = chdb.connect(str(Path(folder) / "inside"))
        engine = EngineProcess.with_free_ports("clickhouse", Path(folder) / "engine").start()
        try:
            front = clickhouse_connect.get_client(
                host=engine.env["CLICKHOUSE_HOST"],
                port=int(engine.env["CLICKHOUSE_PORT"]),
                username=engine.env["CLICKHOUSE_USER"],
                password=engine.env["CLICKHOUSE_PASSWORD"],
                autogenerate_session_id=False,
            )
            inside.query(TABLE)
            front.command(TABLE)
            alone: list[float] = []
            through: list[float] = []
            sides: list[tuple[Callable[[str], object], list[float]]] = [(inside.query, alone), (front.command, through)]
            for _ in range(ROUNDS):
                for execute, times in sides:
                    times.append(seconds(partial(execute, INSERT)))
                    execute(TRUNCATE)
                sides.reverse()
            latencies = [seconds(lambda: front.query("SELECT 1")) * 1000 for _ in range(QUERIES)]
            bare = [seconds(lambda: inside.query("SELECT 1", "Native")) * 1000 for _ in range(QUERIES)]
            front.close()
        finally:
            engine.stop()
            inside.close()
    ratio = statistics.median(mine / theirs for mine, theirs in zip(through, alone, strict=True))
    latency = statistics.median(latencies)
    print(f"INSERT SELECT of {ROWS:,} rows: {ROUNDS} rounds, median:")
    print(f"  in process {statistics.median(alone):.2f} s, through the front {statistics.median(through):.2f} s")
    print(f"  ratio {ratio:.3f} (limit {LIMIT_RATIO:.2f})")
    print(f"SELECT 1: in process {statistics.median(bare):.2f} ms, through the front {latency:.2f} ms median")
    print(f"  {latency:.2f} ms (limit {LIMIT_LATENCY_MS:.0f} ms), 99th percentile {sorted(latencies)[-4]:.2f} ms")
    return 0 if ratio <= LIMIT_RATIO and latency <= LIMIT_LATENCY_MS else 1


if __name__ == "__main__":
    sys.exit(main())
