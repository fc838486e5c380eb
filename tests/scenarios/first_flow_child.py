"""Backfills in processes that end themselves by SIGKILL before their nth call to any engine: S3, ClickHouse, the
warehouse, PostgreSQL (ledger and Dagster).

Run as a script; it imports everything once and forks a process for each line on standard input, `N SECONDS FILE
ARGUMENT...` separated by tabs: `data-platform backfill ARGUMENTS` with its output in FILE, killed before call N (0:
never) or after SECONDS (0: never). Answers with the exit code once it has ended, minus the signal's number for a kill.
A run that lived wrote `calls=<n>` at its end.
"""

import importlib
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import redshift_connector
from botocore.client import BaseClient
from clickhouse_connect.driver.httpclient import HttpClient
from sqlalchemy.engine import Connection

# What the command imports on its way, so that a process only has to start.
MODULES = (
    *("boto3", "pyarrow.parquet", "rich.console", "dagster_postgres", "data_platform.cli.main"),
    *("data_platform.cli.backfill", "data_platform.build", "data_platform.jobs.instance", "data_platform.ledger"),
    *("data_platform.resources.instance_storage", "data_platform.curation.unloads", "data_platform.loading.warehouse"),
)
CALLS = [
    (BaseClient, "_make_api_call"),
    (HttpClient, "command"),
    (HttpClient, "query"),
    (HttpClient, "insert"),
    (redshift_connector.Cursor, "execute"),
    (Connection, "execute"),
]


class Countdown:
    """Counts calls of all threads and ends the process at one of them."""

    def __init__(self, at: int) -> None:
        self._at = at
        self._lock = threading.Lock()
        self.calls = 0

    def wrap(self, owner: Any, name: str) -> None:
        """Count every call of `owner.name`."""
        inner: Callable[..., Any] = getattr(owner, name)

        def counted(*args: Any, **kwargs: Any) -> Any:
            with self._lock:
                self.calls += 1
                if self.calls == self._at:
                    os.kill(os.getpid(), signal.SIGKILL)
            return inner(*args, **kwargs)

        setattr(owner, name, counted)


def main() -> None:
    """Serve until the input ends."""
    for name in MODULES:
        importlib.import_module(name)
    for line in sys.stdin:
        at, seconds, log, *arguments = line.rstrip("\n").split("\t")
        child = os.fork()
        if child == 0:
            become_backfill(int(at), Path(log), arguments)
        if float(seconds):
            time.sleep(float(seconds))
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def become_backfill(at: int, log: Path, arguments: list[str]) -> NoReturn:
    """Run the command with its calls counted, and end this process with its exit code."""
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(output, stream)
    countdown = Countdown(at)
    for owner, name in CALLS:
        countdown.wrap(owner, name)
    sys.argv = ["data-platform", "backfill", *arguments]
    code = 1
    try:
        importlib.import_module("data_platform.cli.main").main()
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except Exception:  # noqa: BLE001 - told in the log, where the end of it is looked for
        traceback.print_exc()
    finally:
        print(f"calls={countdown.calls}", flush=True)
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
