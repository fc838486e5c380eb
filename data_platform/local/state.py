"""The state folder `<home>/cloud`: its files, its lock, the ports it keeps. Files only, no processes.

lock             held by whoever runs the engines, for as long as it lives; its pid inside
supervisor.json  who that is and where it listens for `kill` and `restart`
env              NAME=value lines, there while the cloud is up
ports.json       the ports of the last time, taken again the next time
logs/            one file per engine, and supervisor.log
<engine>/        what the engine keeps
"""

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

from pydantic import BaseModel

from data_platform.errors import PlatformError
from data_platform.local.engine import ENGINES
from data_platform.local.process import free_port, port_is_free
from data_platform.settings import embedded_env_file


class Host(BaseModel, frozen=True):
    """The process that runs the engines: a detached supervisor, or the process of `demo`, `dev` or a test."""

    pid: int
    create_time: float  # seconds since the epoch, as psutil tells it: a pid alone may be a stranger's by now
    detached: bool
    ready: bool
    control_url: str
    key: str
    engines: tuple[str, ...]


class CloudState:
    """The folder of one embedded cloud."""

    def __init__(self, home: Path) -> None:
        self.home = home.resolve()
        self.folder = embedded_env_file(self.home).parent
        self.env_file = embedded_env_file(self.home)
        self.host_file = self.folder / "supervisor.json"
        self.logs = self.folder / "logs"
        self._ports_file = self.folder / "ports.json"
        self._lock_file = self.folder / "lock"

    def engine_folder(self, engine: str) -> Path:
        """What `engine` keeps."""
        return self.folder / engine

    def log(self, name: str) -> Path:
        """Log of an engine, or of the supervisor."""
        return self.logs / f"{name}.log"

    # The lock

    def acquire(self) -> TextIO | None:
        """Take the lock for the life of this process; None when another process has it. Close it to let go."""
        self.folder.mkdir(parents=True, exist_ok=True)
        handle = self._lock_file.open("a+")
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            handle.close()
            return None
        handle.truncate(0)
        handle.write(f"{os.getpid()}\n")
        handle.flush()
        return handle

    def locked(self) -> bool:
        """Whether a process runs, starts or stops the engines of this folder now."""
        if not self._lock_file.exists():
            return False
        with self._lock_file.open() as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    # The host

    def write_host(self, host: Host) -> None:
        """Say who runs the engines; readable by this user only, as it holds the control key."""
        _write_private(self.host_file, host.model_dump_json(indent=1))

    def host(self) -> Host | None:
        """Who runs the engines now; None when nobody does, whatever a crash left in the folder."""
        if not self.locked():
            return None
        with contextlib.suppress(FileNotFoundError):
            return Host.model_validate_json(self.host_file.read_text())
        return None

    # The ports

    def ports(self, engines: tuple[str, ...]) -> dict[str, dict[str, int]]:
        """A port for every port name of `engines`: the one kept from the last time, else a free one, then kept.

        Raises PlatformError naming every kept port that somebody else listens on.
        """
        kept: dict[str, dict[str, int]] = {}
        with contextlib.suppress(FileNotFoundError):
            kept = json.loads(self._ports_file.read_text())
        taken = [
            f"port {port} of {engine} ({name}) is in use by another process"
            for engine in engines
            for name, port in kept.get(engine, {}).items()
            if not port_is_free(port)
        ]
        if taken:
            raise PlatformError(
                "\n".join(taken),
                hint="end that process, or take other ports: data-platform cloud up --new-ports",
            )
        used = {port for ports in kept.values() for port in ports.values()}
        for engine in engines:
            for name in ENGINES[engine].ports:
                if name not in kept.setdefault(engine, {}):
                    port = next(port for port in iter(free_port, None) if port not in used)
                    kept[engine][name] = port
                    used.add(port)
        _write_private(self._ports_file, json.dumps(kept, indent=1))
        return {engine: kept[engine] for engine in engines}

    def forget_ports(self) -> None:
        """Take other ports the next time."""
        self._ports_file.unlink(missing_ok=True)

    # The environment

    def write_env(self, env: Mapping[str, str]) -> None:
        """Leave the variables of the running cloud for every other process of this user."""
        _write_private(self.env_file, "".join(f"{name}={value}\n" for name, value in env.items()))

    def env(self) -> dict[str, str]:
        """The variables of the running cloud; empty when there are none."""
        with contextlib.suppress(FileNotFoundError):
            lines = self.env_file.read_text().splitlines()
            return dict(line.split("=", 1) for line in lines)
        return {}

    def forget_running(self) -> None:
        """Remove what is only true while the cloud is up."""
        self.env_file.unlink(missing_ok=True)
        self.host_file.unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove the folder, data included."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _write_private(path: Path, text: str) -> None:
    """Write in one rename, readable by this user only."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.touch(mode=0o600)
    temporary.write_text(text)
    temporary.rename(path)
