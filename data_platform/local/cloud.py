"""The embedded cloud as an object: starts the engines as children of this process, provisions, restarts, ends them.

Tests and `demo` use it in their own process; `cloud up` hosts the same object in a process of its own (supervisor.py).
"""

import contextlib
import logging
import os
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from http.server import ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

import psutil

from data_platform.errors import PlatformError
from data_platform.local import control
from data_platform.local.engine import ENGINES
from data_platform.local.faults import FaultClient
from data_platform.local.interrupts import undisturbed
from data_platform.local.orphans import end_orphans
from data_platform.local.process import POLL_S, START_TIMEOUT_S, STOP_TIMEOUT_S, EngineProcess, without_engines
from data_platform.local.state import CloudState, Host
from data_platform.settings import Settings, variable_of

# Engines that come back without something that provisioning makes: topics, what AWS does not keep.
FORGETFUL = frozenset({"aws", "kafka"})
# Settings that are no engine's: the user's environment counts for them in the embedded cloud, too.
NAMES = ("env", "raw_bucket", "curated_bucket", "unload_bucket")
CHOSEN_BY_USER = frozenset({*NAMES, "catalog", "log_level", "log_format", "schedules", "kafka_unload_topic"})
_log = logging.getLogger(__name__)
_ROOT = Path(__file__).resolve().parents[2]


class AlreadyRunningError(PlatformError):
    """Another process runs, starts or stops the engines of this state folder."""


class Cloud:
    """All engines of one state folder, as children of this process; also a context manager that ends them."""

    def __init__(
        self, home: Path, *, options: Mapping[str, Mapping[str, Any]] | None = None, detached: bool = False
    ) -> None:
        """`options` are handed to engines by name, e.g. {"kafka": {"topics": {"orders": 6}}}."""
        self.state = CloudState(home)
        self.home = self.state.home
        self._options = options or {}
        self._detached = detached
        self._engines: dict[str, EngineProcess] = {}
        self._lock: TextIO | None = None
        self._control: ThreadingHTTPServer | None = None
        self._key = secrets.token_urlsafe(24)
        self._provisions = False
        self._busy = threading.RLock()  # control calls come from threads of their own

    def up(
        self,
        *,
        provision: bool = True,
        engines: Sequence[str] | None = None,
        on_progress: Callable[[str], None] | None = None,
    ) -> Self:
        """Start `engines` (all) with what they need, then provision; returns when all serve.

        Starts only what does not run when called again. When anything fails, or at Ctrl-C, nothing is left running.
        Raises AlreadyRunningError when another process has the state folder; PlatformError with the reason otherwise.
        """
        tell = on_progress or (lambda _line: None)
        with self._busy:
            try:
                self._acquire(tell)
                self._start(with_needs(engines or tuple(ENGINES)), tell)
                self._provisions = self._provisions or provision
                if provision:
                    self._provision(tell)
                self._publish(ready=True)
            except BaseException:
                self.down()
                raise
        return self

    def down(self, on_progress: Callable[[str], None] | None = None) -> None:
        """End all engines, gently first; returns when none is left. A Ctrl-C meanwhile changes nothing."""
        with self._busy, undisturbed():
            if self._control is not None:
                self._control.shutdown()
                self._control.server_close()
                self._control = None
            if self._lock is None:
                return
            for process in self._engines.values():
                process.terminate()
            deadline = time.monotonic() + STOP_TIMEOUT_S
            for name, process in self._engines.items():
                if not process.stop(max(deadline - time.monotonic(), 0.1)):
                    _log.warning("%s did not end within %.0f s and was killed", name, STOP_TIMEOUT_S)
                if on_progress is not None:
                    on_progress(f"{name} has ended")
            end_orphans(self.state.folder, ask_s=1.0)
            self._engines.clear()
            self.state.forget_running()
            self._lock.close()
            self._lock = None

    def kill(self, name: str) -> None:
        """kill -9 of one engine and all it started; it stays down until `restart` or `up`."""
        with self._busy:
            self._engine(name).kill()

    def restart(self, name: str, on_progress: Callable[[str], None] | None = None) -> None:
        """End one engine and start it on the same ports; provisions again where it comes back empty."""
        tell = on_progress or (lambda _line: None)
        with self._busy:
            self._engine(name).stop()
            self._start((name,), tell)
            if self._provisions and name in FORGETFUL:
                self._provision(tell)
            self._publish(ready=True)

    def running(self) -> dict[str, bool]:
        """Every engine that was started, and whether it lives."""
        engines = dict(self._engines)  # a copy: a control call may be adding one
        return {name: process.running() for name, process in engines.items()}

    @property
    def env(self) -> dict[str, str]:
        """The variables that lead every client and command to this cloud."""
        env = {name: value for process in self._engines.values() for name, value in process.env.items()}
        for field in NAMES:
            default = str(Settings.model_fields[field].default)
            env[variable_of(field)] = os.environ.get(variable_of(field)) or default
        env[variable_of("home")] = str(self.home)
        env[variable_of("dagster_home")] = str(self.home / "dagster")
        return env

    @property
    def settings(self) -> Settings:
        """Settings that lead to this cloud, whatever engines the environment of this process names."""
        env = self.env
        fields: dict[str, Any] = {}
        for name, field in Settings.model_fields.items():
            if variable_of(name) in env:
                fields[name] = env[variable_of(name)]
            elif name not in CHOSEN_BY_USER:
                fields[name] = field.get_default(call_default_factory=True)
        return Settings(**fields)

    @property
    def process_env(self) -> dict[str, str]:
        """The environment for a process that shall use this cloud: ours, less other engines, plus `env`."""
        return users_environment() | self.env

    def faults(self, name: str) -> FaultClient:
        """The fault switches of one engine."""
        return self._engine(name).faults

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()

    def _engine(self, name: str) -> EngineProcess:
        if name not in self._engines:
            known = ", ".join(self._engines) or "none"
            raise PlatformError(f"{name} was not started; engines here: {known}")
        return self._engines[name]

    def _acquire(self, tell: Callable[[str], None]) -> None:
        """Take the folder's lock, clear what a crash left behind, and listen for control calls."""
        if self._lock is not None:
            return
        self._lock = self.state.acquire()
        if self._lock is None:
            raise AlreadyRunningError(
                f"another process runs the embedded cloud in {self.state.folder}",
                hint="data-platform cloud status, or another folder: DATA_PLATFORM_HOME=...",
            )
        self.state.forget_running()
        for line in end_orphans(self.state.folder):
            tell(line)
        actions = {"kill": self.kill, "restart": self.restart, "up": self._up_again}
        self._control = control.serve(actions, self._key)
        self._publish(ready=False)

    def _up_again(self, engines: str) -> None:
        """Start what has died, and `engines` (separated by commas; empty: no others). A failure ends nothing here."""
        with self._busy:
            if self._lock is None:
                raise PlatformError("the embedded cloud is ending", hint="data-platform cloud up")
            self._start(with_needs([*self._engines, *filter(None, engines.split(","))]), _log.info)
            if self._provisions:
                self._provision(_log.info)
            self._publish(ready=True)

    def _start(self, engines: tuple[str, ...], tell: Callable[[str], None]) -> None:
        """Start what of `engines` does not run, side by side as their needs allow."""
        waiting = [name for name in engines if name not in self._engines or not self._engines[name].running()]
        ports = self.state.ports(tuple(waiting))
        started: dict[str, float] = {}
        while waiting or started:
            for name in [name for name in waiting if not set(ENGINES[name].needs) & {*waiting, *started}]:
                waiting.remove(name)
                started[name] = time.monotonic()
                self._engines[name] = process = self._process(name, ports[name])
                process.launch()
            for name, since in list(started.items()):
                seconds = time.monotonic() - since
                if self._engines[name].poll_ready():
                    del started[name]
                    tell(f"{name} is up ({seconds:.1f} s)")
                elif seconds > START_TIMEOUT_S:
                    log = self.state.log(name)
                    raise PlatformError(f"{name} was not ready after {START_TIMEOUT_S:.0f} s", hint=f"see {log}")
            time.sleep(POLL_S)

    def _process(self, name: str, ports: dict[str, int]) -> EngineProcess:
        env = {key: value for need in ENGINES[name].needs for key, value in self._engines[need].env.items()}
        options = {**self._options.get(name, {}), "env": env}
        return EngineProcess(name, self.state.engine_folder(name), ports, options, self.state.log(name))

    def _provision(self, tell: Callable[[str], None]) -> None:
        from data_platform.provisioning import provision

        since = time.monotonic()
        provision(self.settings, report=_log.info)
        tell(f"provisioned ({time.monotonic() - since:.1f} s)")

    def _publish(self, *, ready: bool) -> None:
        """Leave for other processes who runs the cloud and, once it serves, how to reach it."""
        if self._control is None:
            return
        if ready:
            self._make_dagster_home()
            self.state.write_env(self.env)
        self.state.write_host(
            Host(
                pid=os.getpid(),
                create_time=psutil.Process().create_time(),
                detached=self._detached,
                ready=ready,
                control_url=f"http://127.0.0.1:{self._control.server_port}",
                key=self._key,
                engines=tuple(name for name in ENGINES if name in self._engines),
            )
        )

    def _make_dagster_home(self) -> None:
        folder = self.home / "dagster"
        folder.mkdir(parents=True, exist_ok=True)
        for source in (_ROOT / "dagster.yaml", _ROOT / "data_platform" / "_dagster.yaml"):
            if source.is_file():
                with contextlib.suppress(shutil.SameFileError):
                    shutil.copyfile(source, folder / "dagster.yaml")
                return


def users_environment() -> dict[str, str]:
    """The environment of this process less all that leads to other engines than the embedded ones."""
    chosen = {variable_of(field) for field in CHOSEN_BY_USER}
    return without_engines(os.environ) | {name: value for name, value in os.environ.items() if name in chosen}


def with_needs(engines: Sequence[str]) -> tuple[str, ...]:
    """`engines` and all they need, in the order of ENGINES. Raises PlatformError for a name that is no engine."""
    unknown = sorted(set(engines) - set(ENGINES))
    if unknown:
        raise PlatformError(f"no such engine: {', '.join(unknown)}", hint=f"engines: {', '.join(ENGINES)}")
    wanted = set(engines)
    for name in engines:
        wanted |= set(ENGINES[name].needs)  # needs of needs: none so far, checked by a test
    return tuple(name for name in ENGINES if name in wanted)
