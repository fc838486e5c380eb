"""Runs every benchmark of this folder, each in a process of its own, and prints what was measured and which hold.

A benchmark is a module with `main() -> int` (0: all limits hold) that prints lines like `what: 1.23 (limit 1.5)`.
`python -m benchmarks [NAME...]` runs only these.
"""

import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

FOLDER = Path(__file__).resolve().parent
FIGURE = re.compile(r"^(?P<what>.*?):?\s+(?P<measured>\d+(?:\.\d+)?)(?P<unit>\s*\w*)\s+\(limit (?P<limit>[^;)]+)")
TIMEOUT_S = 1800


@dataclass(frozen=True)
class Result:
    """How a benchmark ended and the figures it printed."""

    name: str
    holds: bool
    figures: list[tuple[str, str, str]]
    seconds: float


def names() -> list[str]:
    """All benchmarks there are."""
    return sorted(path.stem for path in FOLDER.glob("*.py") if not path.stem.startswith("_"))


def run(name: str) -> Result:
    """Run one benchmark, its output shown as it comes."""
    print(f"== {name}", flush=True)
    started = time.monotonic()
    lines: list[str] = []
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", f"benchmarks.{name}"],
        cwd=FOLDER.parent, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    ) as process:  # fmt: skip
        for line in process.stdout or ():
            lines.append(line.rstrip())
            print(f"   {lines[-1]}", flush=True)
        code = process.wait(TIMEOUT_S)
    found = [match for line in lines if (match := FIGURE.match(line))]
    figures = [(each["what"], f"{each['measured']}{each['unit']}", each["limit"]) for each in found]
    return Result(name, code == 0, figures, time.monotonic() - started)


def table_of(results: list[Result]) -> Table:
    """One line a figure."""
    table = Table("benchmark", "figure", "measured", "limit", "holds", "seconds")
    for result in results:
        for number, (what, measured, limit) in enumerate(result.figures or [("-", "-", "-")]):
            last = ("yes" if result.holds else "NO", f"{result.seconds:.0f}") if number == 0 else ("", "")
            table.add_row(result.name if number == 0 else "", what, measured, limit, *last)
    return table


def main(wanted: list[str]) -> int:
    """Run the benchmarks called `wanted` (all); 1 when a limit is broken, 2 for a name there is none of."""
    unknown = sorted(set(wanted) - set(names()))
    if unknown:
        print(f"no such benchmark: {', '.join(unknown)}; there are {', '.join(names())}", file=sys.stderr)
        return 2
    results = [run(name) for name in wanted or names()]
    Console(width=140).print(table_of(results))
    return 0 if all(result.holds for result in results) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
