"""1,000 datasets: the code location loads in under 10 s, a full automation evaluation takes under 30 s.

Seconds are of CPU, so that other work on the machine does not count; wall time is printed beside them. The evaluation
is measured as shipped (summaries alone have conditions) and at its worst: a condition on every layer of every dataset,
from nothing, with nothing new, and when every dataset has got a new day since the last look.
Prints one line per measure with its limit; exits 1 when one is over it.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from benchmarks.definitions_load import WHOLE

DATASETS = 1000
LOAD_LIMIT_S = 10.0
EVALUATION_LIMIT_S = 30.0
ENTRY = """name: t{n:04}
domain: market
description: One order.
owner: team:market-data
source: {{table: market.t{n:04}, partition_column: day}}
start: 2024-01-01
columns:
  - {{name: day, type: Date}}
  - {{name: id, type: Int64}}
  - {{name: amount, type: Int32}}
  - {{name: note, type: String}}
order_by: [id]
checks:
  - {{kind: not_null, columns: [id]}}
  - {{kind: unique, columns: [id]}}
  - {{kind: row_drift, tolerance: 0.5}}
"""


@dataclass(frozen=True)
class Seconds:
    """What something took."""

    cpu: float
    wall: float


REPOSITORY = Path(__file__).resolve().parent.parent


def make_catalog(folder: Path, datasets: int) -> None:
    """The shipped catalogue's domains, services and events, with `datasets` more datasets."""
    for name in ("domains.yaml", "services.yaml", "topics.yaml", "statistics.yaml"):
        if (REPOSITORY / "catalog" / name).is_file():
            (folder / name).write_bytes((REPOSITORY / "catalog" / name).read_bytes())
    analytics = folder / "datasets" / "analytics"
    analytics.mkdir(parents=True)
    events = REPOSITORY / "catalog" / "datasets" / "analytics" / "events.yaml"
    (analytics / "events.yaml").write_bytes(events.read_bytes())
    market = folder / "datasets" / "market"
    market.mkdir()
    for n in range(datasets):
        (market / f"t{n:04}.yaml").write_text(ENTRY.format(n=n), encoding="utf-8")


def load_seconds(folder: Path) -> Seconds:
    """A fresh interpreter from nothing to the whole code location."""
    environment = {"PATH": os.environ["PATH"], "DATA_PLATFORM_CATALOG": str(folder)}
    command = [sys.executable, "-W", "ignore", "-c", WHOLE]
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run(command, check=True, cwd=REPOSITORY, env=environment, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Seconds(cpu, time.monotonic() - begun)


def evaluation_seconds(folder: Path, datasets: int, *, every_layer: bool) -> dict[str, Seconds]:
    """Of the first automation evaluation, of the one after it, and of one after a new day of every dataset."""
    import dagster as dg

    from data_platform.build import build_defs
    from data_platform.catalog import load_catalog
    from data_platform.jobs.automation import next_layer
    from data_platform.settings import Settings

    definitions = build_defs(Settings(catalog=folder), catalog=load_catalog(folder))
    if every_layer:
        condition = next_layer()
        layers = {"unload", "curated", "clickhouse"}
        definitions = definitions.map_asset_specs(
            func=lambda spec: (
                spec.replace_attributes(automation_condition=condition) if spec.key.path[0] in layers else spec
            )
        )
    seconds: dict[str, Seconds] = {}
    cursor = None
    yesterday = (datetime.now(UTC) - timedelta(days=1)).date().isoformat()
    with dg.DagsterInstance.ephemeral() as instance:
        for moment in ("first", "nothing new", "a new day of every dataset"):
            if moment == "a new day of every dataset":
                for n in range(datasets):
                    key = dg.AssetKey(["unload", "market", f"t{n:04}"])
                    instance.report_runless_asset_event(dg.AssetMaterialization(key, partition=yesterday))
            cpu, begun = time.process_time(), time.monotonic()
            result = dg.evaluate_automation_conditions(defs=definitions, instance=instance, cursor=cursor)
            seconds[moment] = Seconds(time.process_time() - cpu, time.monotonic() - begun)
            cursor = result.cursor
            wanted = 2 * datasets if every_layer and moment.startswith("a new day") else 0
            if result.total_requested != wanted:
                raise AssertionError(f"{moment}: {result.total_requested} partitions were asked for, not {wanted}")
    return seconds


def main(datasets: int = DATASETS) -> int:
    """Measure, print, compare with the limits."""
    measures: list[tuple[str, Seconds, float]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_catalog(folder, datasets)
        measures.append((f"load {datasets} datasets in a fresh interpreter", load_seconds(folder), LOAD_LIMIT_S))
        for every_layer, what in ((False, "as shipped"), (True, "a condition on every layer")):
            for moment, seconds in evaluation_seconds(folder, datasets, every_layer=every_layer).items():
                measures.append((f"automation evaluation, {what}, {moment}", seconds, EVALUATION_LIMIT_S))
    for what, seconds, limit in measures:
        print(f"{what}: {seconds.cpu:.2f} s (limit {limit:.0f}; {seconds.wall:.1f} s by the clock)")
    return int(any(seconds.cpu > limit for _, seconds, limit in measures))


if __name__ == "__main__":
    raise SystemExit(main(*map(int, sys.argv[1:])))
