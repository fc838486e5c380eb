"""How long the code location takes to load in a fresh interpreter, against `import dagster` alone.

Every Dagster run pays for it. Processor time, which is wall time on an idle machine and stays what it is on a busy one;
by turns, the ratio is the median of the rounds'.
"""

import os
import resource
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ROUNDS = 7
LIMIT = 1.5
BARE = "import dagster"
WHOLE = "import data_platform.definitions as location; location.defs().get_repository_def()"


def seconds(code: str, **environment: str) -> float:
    """Processor time of a fresh interpreter that runs `code`, with nothing else in its environment."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment["PATH"] = os.environ.get("PATH", "")
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, cwd=ROOT, env=environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def main() -> int:
    """Print the ratio; 1 when the limit is broken."""
    for code in (BARE, WHOLE):
        seconds(code)  # fills the bytecode and disk caches
    rounds = [(seconds(BARE), seconds(WHOLE)) for _ in range(ROUNDS)]
    bare, whole = (statistics.median(times) for times in zip(*rounds, strict=True))
    ratio = statistics.median(whole / bare for bare, whole in rounds)
    print(f"import dagster {bare:.2f} s, the definitions {whole:.2f} s; processor time, median of {ROUNDS} rounds")
    print(f"ratio of loading the definitions to importing dagster: {ratio:.2f} (limit {LIMIT})")
    return 0 if ratio <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
