"""Applies a file in a process of its own that stops itself at one step: SIGKILL as a power cut, SIGSTOP as a pause.

Run as `python -m tests.statistics.child ARGUMENTS_JSON`; prints the outcome's status, or the error's class and rule.
"""

import json
import os
import signal
import sys
from pathlib import Path

from data_platform.catalog.models import UserStatistics
from data_platform.clients import aws, postgres
from data_platform.settings import Settings
from data_platform.statistics.apply import apply_file
from data_platform.statistics.errors import ProcessingError
from data_platform.statistics.outcome import Limits, Progress
from data_platform.statistics.source import find


def main() -> int:
    """Exit code 0: an outcome, 1: a ProcessingError."""
    arguments = json.loads(sys.argv[1])
    settings = Settings.model_validate(arguments["settings"])
    signals = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}
    seen = 0

    def on_progress(step: Progress) -> None:
        nonlocal seen
        if step.step == arguments["at"]:
            seen += 1
            if seen == arguments["nth"]:
                Path(arguments["mark"]).write_text(f"{step.step} {step.chunk}")  # proof that the fault has struck
                os.kill(os.getpid(), signals[arguments["signal"]])

    s3 = aws.s3(settings)
    engine = postgres.engine(settings)
    try:
        outcome = apply_file(
            engine,
            s3,
            find(s3, arguments["bucket"], arguments["key"]),
            UserStatistics.model_validate(arguments["options"]),
            limits=Limits(**arguments["limits"]),
            on_progress=on_progress,
        )
    except ProcessingError as error:
        print(f"ProcessingError {error.rule}")
        return 1
    print(outcome.status)
    print(f"peak memory {own_peak_mb():.0f} MB", file=sys.stderr)
    return 0


def own_peak_mb() -> float:
    """Of this process alone: ru_maxrss would begin with that of the process that started it."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


if __name__ == "__main__":
    sys.exit(main())
