"""Everything for a developer at once: embedded cloud, sample data, loader agent, Dagster with its daemon."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Self

from data_platform.errors import PlatformError
from data_platform.local.cloud import Cloud
from data_platform.local.demo import own_environment
from data_platform.local.sample.load import load_sample

STOP_TIMEOUT_S = 15.0
READY_TIMEOUT_S = 90.0
POLL_S = 0.2
# The name that the UI shows does not depend on how the code location is started.
WORKSPACE = """load_from:
  - python_module: {module_name: data_platform.definitions, location_name: data_platform}
"""
Tell = Callable[[str], None]


def run_dev(home: Path, *, host: str, port: int, sample: bool, tell: Tell, on_ready: Callable[[], None]) -> None:
    """Start all, call `on_ready` once the UI answers, return at Ctrl-C or when a part ends by itself (PlatformError).

    Nothing is left running. Raises PlatformError before anything is started when the UI's port is taken.
    """
    if not _free(host, port):
        raise PlatformError(f"port {port} is in use", hint="end what listens there, or choose another: --port")
    with ExitStack() as stack:
        stack.enter_context(own_environment())
        cloud = stack.enter_context(Cloud(home))
        cloud.up(on_progress=tell)
        if sample:
            load_sample(cloud.settings, tell=tell)
        environment = cloud.process_env | {"PYTHONUNBUFFERED": "1"}
        workspace = cloud.home / "dagster" / "workspace.yaml"
        workspace.write_text(WORKSPACE, encoding="utf-8")
        logs = cloud.home / "cloud" / "logs"
        processes = {
            name: stack.enter_context(_Child(command, environment, logs / f"{name}.log"))
            for name, command in _commands(host, port, workspace).items()
        }
        tell(f"Dagster is starting; logs are in {logs}")
        _wait_for_ui(host, port, processes)
        on_ready()
        while True:
            _check(processes)
            time.sleep(POLL_S)


def _commands(host: str, port: int, workspace: Path) -> Mapping[str, Sequence[str]]:
    where = ("-w", str(workspace))
    return {
        "loader": (sys.executable, "-m", "data_platform.cli.main", "loader"),
        "dagster-webserver": (*_tool("dagster-webserver"), "--host", host, "--port", str(port), *where),
        "dagster-daemon": (*_tool("dagster-daemon"), "run", *where),
    }


def _tool(name: str) -> tuple[str, ...]:
    """A console script of the same environment as this interpreter."""
    return (str(Path(sys.executable).parent / name),)


class _Child:
    """A process of its own group, ended gently and then for good."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self.log = log
        with log.open("ab") as stream:
            self.process = subprocess.Popen(
                command,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(STOP_TIMEOUT_S)
        # Code servers and runs are children of these: what is left of the group goes with it.
        self._signal(signal.SIGKILL)
        self.process.wait()

    def _signal(self, signum: int) -> None:
        try:
            os.killpg(self.process.pid, signum)
        except ProcessLookupError:
            return


def _wait_for_ui(host: str, port: int, processes: Mapping[str, _Child]) -> None:
    deadline = time.monotonic() + READY_TIMEOUT_S
    while _free(host, port):
        _check(processes)
        if time.monotonic() > deadline:
            raise PlatformError(f"Dagster's UI did not come up in {READY_TIMEOUT_S:.0f} s", hint="see its log")
        time.sleep(POLL_S)


def _check(processes: Mapping[str, _Child]) -> None:
    for name, child in processes.items():
        if child.process.poll() is not None:
            lines = child.log.read_text(errors="replace").splitlines()[-8:]
            raise PlatformError(f"{name} ended by itself:\n" + "\n".join(lines), hint=f"see {child.log}")


def _free(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((host, port)) != 0
