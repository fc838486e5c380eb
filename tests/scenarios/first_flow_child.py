"""A backfill in a process that ends itself by SIGKILL before its nth call to any engine: S3, ClickHouse, the warehouse,
PostgreSQL (ledger and Dagster). Usage: first_flow_child.py N [backfill's arguments]; N 0 kills never.

Prints `calls=<n>` at the end of a run that lived.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

import redshift_connector
from botocore.client import BaseClient
from clickhouse_connect.driver.httpclient import HttpClient
from sqlalchemy.engine import Connection

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
    """Run the command with its calls counted."""
    from data_platform.cli import main as cli

    countdown = Countdown(int(sys.argv[1]))
    for owner, name in CALLS:
        countdown.wrap(owner, name)
    sys.argv = ["data-platform", "backfill", *sys.argv[2:]]
    try:
        cli.main()
    finally:
        print(f"calls={countdown.calls}", flush=True)


if __name__ == "__main__":
    main()
