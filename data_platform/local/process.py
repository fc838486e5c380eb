"""One engine as a child process, seen from the parent: start, wait until ready, stop, kill.

Used by the supervisor, and by tests that need one engine alone.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_platform.errors import PlatformError
from data_platform.local.engine import READY_FILE, load_engine
from data_platform.local.faults import FaultClient

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 8.0
LOG_TAIL_LINES = 15


def free_port() -> int:
    """A loopback TCP port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class EngineProcess:
    """A child process that runs one engine in a process group of its own (PostgreSQL forks; a kill takes all)."""

    name: str
    state: Path
    ports: dict[str, int]
    options: dict[str, Any] = field(default_factory=dict[str, Any])
    log: Path | None = None
    facts: dict[str, Any] = field(default_factory=dict[str, Any])
    _process: "subprocess.Popen[bytes] | None" = None

    @classmethod
    def with_free_ports(
        cls, name: str, state: Path, options: Mapping[str, Any] | None = None, log: Path | None = None
    ) -> "EngineProcess":
        """An engine on ports that are free now."""
        ports = {port: free_port() for port in load_engine(name).PORTS}
        return cls(name, state, ports, dict(options or {}), log)

    @property
    def env(self) -> dict[str, str]:
        """The environment variables that lead clients to the engine; empty before it is ready."""
        return dict(self.facts.get("env", {}))

    @property
    def faults(self) -> FaultClient:
        """Its fault switches."""
        return FaultClient(self.facts["control_url"])

    @property
    def pid(self) -> int | None:
        """Process id of the child, None before the start."""
        return None if self._process is None else self._process.pid

    def running(self) -> bool:
        """Whether the child process lives."""
        return self._process is not None and self._process.poll() is None

    def start(self, timeout: float = START_TIMEOUT_S) -> "EngineProcess":
        """Start the child and return once it serves. Raises PlatformError with the end of its log when it does not."""
        self.launch()
        return self.wait_ready(timeout)

    def launch(self) -> None:
        """Start the child without waiting for it."""
        self.state.mkdir(parents=True, exist_ok=True)
        (self.state / READY_FILE).unlink(missing_ok=True)
        self.log = self.log or self.state / "log.txt"
        self.log.parent.mkdir(parents=True, exist_ok=True)
        command = [
            *(sys.executable, "-m", "data_platform.local.engine", self.name),
            *("--state", str(self.state), "--ports", json.dumps(self.ports), "--options", json.dumps(self.options)),
        ]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def wait_ready(self, timeout: float = START_TIMEOUT_S) -> "EngineProcess":
        """Wait for the ready file of the launched child."""
        ready = self.state / READY_FILE
        deadline = time.monotonic() + timeout
        while not ready.exists():
            if not self.running():
                raise PlatformError(f"{self.name} ended while starting:\n{self.log_tail()}", hint=f"see {self.log}")
            if time.monotonic() > deadline:
                self.kill()
                raise PlatformError(f"{self.name} was not ready after {timeout:.0f} s", hint=f"see {self.log}")
            time.sleep(0.02)
        self.facts = json.loads(ready.read_text())
        return self

    def stop(self, timeout: float = STOP_TIMEOUT_S) -> None:
        """SIGTERM, wait, and kill what has not ended by then."""
        if self._process is None:
            return
        if self.running():
            self._process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout)
        self.kill()

    def kill(self) -> None:
        """kill -9 of the whole process group, as a power cut would; returns when the child is reaped."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def log_tail(self) -> str:
        """The last lines of the child's log."""
        if self.log is None or not self.log.exists():
            return "(no log)"
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:])
