"""What 500 datasets cost when the code location loads: a catalogue of 500 against one of none, in fresh interpreters.

Processor time, as in definitions_load.
"""

import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

from benchmarks.definitions_load import WHOLE, seconds

DATASETS = 500
COLUMNS = 15
ROUNDS = 3
LIMIT_S = 5.0


def write(folder: Path, count: int) -> Path:
    """A catalogue of `count` datasets with columns of many types, every tenth a snapshot."""
    domain = {
        "name": "many", "description": "Many.", "owner": "team:many", "priority": "low",
        "batch": {"min": 1, "max": 10}, "peak_messages_per_hour": 1, "mean_file_mb": 1, "memory_mb": 512,
    }  # fmt: skip
    types = ("Int64", "String", "LowCardinality(String)", "Decimal(18, 2)", "DateTime64(6)")
    (folder / "datasets" / "many").mkdir(parents=True)
    for name, content in (("domains", [domain]), ("services", []), ("topics", [])):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    for number in range(count):
        name = f"table_{number:04}"
        columns = [{"name": f"column_{n}", "type": types[n % len(types)], "nullable": n > 5} for n in range(COLUMNS)]
        entry: dict[str, Any] = {
            "name": name, "domain": "many", "description": f"Row of {name}.", "owner": "team:many",
            "source": {"table": f"many.{name}"}, "columns": columns, "order_by": ["column_0"],
        }  # fmt: skip
        if number % 10 == 0:
            entry["mode"] = "snapshot"
        else:
            entry["source"]["partition_column"] = "day"
            entry["columns"] = [{"name": "day", "type": "Date"}, *columns]
            entry["start"] = "2024-01-01"
        (folder / "datasets" / "many" / f"{name}.yaml").write_text(yaml.safe_dump(entry), encoding="utf-8")
    return folder


def cost_of(catalog: Path) -> float:
    """Processor time of a fresh interpreter that loads the code location on this catalogue."""
    return seconds(WHOLE, DATA_PLATFORM_CATALOG=str(catalog))


def main() -> int:
    """Print the difference and its ratio to the limit; 1 when it is broken."""
    with tempfile.TemporaryDirectory() as folder:
        none, many = write(Path(folder) / "none", 0), write(Path(folder) / "many", DATASETS)
        cost_of(none)
        rounds = [(cost_of(none), cost_of(many)) for _ in range(ROUNDS)]
    without, having = (statistics.median(times) for times in zip(*rounds, strict=True))
    cost = having - without
    print(f"no dataset {without:.2f} s, {DATASETS} datasets {having:.2f} s; median of {ROUNDS} rounds")
    print(f"seconds that {DATASETS} datasets add: {cost:.2f} (limit {LIMIT_S})")
    return 0 if cost < LIMIT_S else 1


if __name__ == "__main__":
    sys.exit(main())
