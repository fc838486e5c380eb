"""One engine as a child process, seen from the parent: start, wait until ready, stop, kill.

Used by the supervisor, and by tests that need one engine alone.
"""

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from data_platform.errors import PlatformError
from data_platform.local.engine import ENGINES, READY_FILE
from data_platform.local.faults import FaultClient

START_TIMEOUT_S = 60.0
FIRST_PORT = 12000
# A child must not see the variables of a developer's shell: they lead to production.
ENGINE_VARIABLE_PREFIXES = (
    "AWS_",
    "CLICKHOUSE_",
    "REDSHIFT_",
    "KAFKA_",
    "POSTGRES_",
    "PG",
    "DAGSTER_",
    "DATA_PLATFORM",
)
# Inherited by whatever an engine starts in turn (PostgreSQL's server): by it an orphan is told from a stranger.
MARKER_VARIABLE = "EMBEDDED_CLOUD_STATE"
STOP_TIMEOUT_S = 8.0
POLL_S = 0.02
LOG_TAIL_LINES = 15


def _below_ephemeral() -> int:
    """The first port the kernel gives to outgoing connections: a listener's port must not come from there."""
    setting = Path("/proc/sys/net/ipv4/ip_local_port_range")
    return int(setting.read_text().split()[0]) if setting.exists() else 32768


def port_is_free(port: int) -> bool:
    """Whether a loopback listener could bind `port` now (a port in TIME_WAIT is free for a listener)."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def free_port() -> int:
    """A loopback TCP port that nobody listens on now, and that no outgoing connection will be given."""
    candidates = range(FIRST_PORT, max(_below_ephemeral(), FIRST_PORT + 1000))
    for _ in range(1000):
        port = random.choice(candidates)  # noqa: S311 - spread, not secrecy: parallel test runs must not meet
        if port_is_free(port):
            return port
    raise PlatformError("found no free loopback port", hint=f"looked between {candidates.start} and {candidates.stop}")


def without_engines(environment: Mapping[str, str]) -> dict[str, str]:
    """`environment` less every variable that leads to some engine or tunes it."""
    return {name: value for name, value in environment.items() if not name.startswith(ENGINE_VARIABLE_PREFIXES)}


def descendants(pid: int) -> list[int]:
    """Ids of all processes below `pid` now; empty when it is gone."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return [child.pid for child in psutil.Process(pid).children(recursive=True)]
    return []


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
        ports = {port: free_port() for port in ENGINES[name].ports}
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
            *("--parent", str(os.getpid())),
        ]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=without_engines(os.environ) | {MARKER_VARIABLE: str(self.state.resolve().parent)},
            )

    def wait_ready(self, timeout: float = START_TIMEOUT_S) -> "EngineProcess":
        """Wait for the ready file of the launched child."""
        deadline = time.monotonic() + timeout
        while not self.poll_ready():
            if time.monotonic() > deadline:
                self.kill()
                raise PlatformError(f"{self.name} was not ready after {timeout:.0f} s", hint=f"see {self.log}")
            time.sleep(POLL_S)
        return self

    def poll_ready(self) -> bool:
        """Whether the launched child serves by now. Raises PlatformError with its log's end when it has ended."""
        if (self.state / READY_FILE).exists():
            self.facts = json.loads((self.state / READY_FILE).read_text())
            return True
        if not self.running():
            self.kill()
            raise PlatformError(f"{self.name} ended while starting:\n{self.log_tail()}", hint=f"see {self.log}")
        return False

    def stop(self, timeout: float = STOP_TIMEOUT_S) -> bool:
        """SIGTERM, wait, and kill what has not ended by then; whether it ended by itself."""
        self.terminate()
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout)
        ended = not self.running()
        self.kill()
        return ended

    def terminate(self) -> None:
        """Ask the child to end, without waiting."""
        if self.running() and self._process is not None:
            self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """kill -9 of the child and all it started, as a power cut would; returns when the child is reaped."""
        if self._process is None:
            return
        # PostgreSQL's server leads a session of its own: the process group alone would leave it running.
        for pid in descendants(self._process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def log_tail(self) -> str:
        """The last lines of the child's log."""
        if self.log is None or not self.log.exists():
            return "(no log)"
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:])
