"""The embedded cloud in the background: the process that hosts a Cloud, and what the command line asks of it.

The host tells its progress as JSON lines on its standard output until the cloud is up; then it lets go of it, so that
`up` inside `$(...)` returns. `down` is SIGTERM; `kill` and `restart` go over control.py.
"""

import argparse
import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

from data_platform.errors import PlatformError
from data_platform.local import control
from data_platform.local.cloud import AlreadyRunningError, Cloud, users_environment, with_needs
from data_platform.local.engine import ENGINES, READY_FILE
from data_platform.local.faults import FaultClient
from data_platform.local.interrupts import undisturbed
from data_platform.local.orphans import end_orphans
from data_platform.local.state import CloudState, Host

UP_TIMEOUT_S = 120.0
DOWN_TIMEOUT_S = 15.0
WATCH_S = 1.0
_log = logging.getLogger("data_platform.supervisor")


# The host process


class _Ended(BaseException):
    """SIGTERM arrived: end the engines, whatever is being done."""


def host(home: Path, *, engines: Sequence[str], provision: bool) -> int:
    """Run the cloud of `home` until SIGTERM; the life of the background process. Returns its exit code."""
    ending = threading.Event()

    def on_sigterm(_signum: int, _frame: object) -> None:
        if not ending.is_set():  # a second one must not interrupt the end
            ending.set()
            raise _Ended

    signal.signal(signal.SIGTERM, on_sigterm)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cloud = Cloud(home, detached=True)
    try:
        cloud.up(provision=provision, engines=engines, on_progress=lambda line: _tell(progress=line))
        _tell(ready=True)
        _let_go_of_stdout()
        _watch(cloud)
    except AlreadyRunningError:
        _tell(busy=True)
    except PlatformError as error:
        _tell(error=error.message, hint=error.hint)
        return 1
    except BrokenPipeError:
        _log.warning("whoever asked for the cloud is gone; ending")
        return 1
    except _Ended:
        _log.info("asked to end")
    finally:
        ending.set()
        cloud.down()
    return 0


def _tell(**fact: object) -> None:
    _log.info("%s", fact)
    sys.stdout.write(json.dumps(fact) + "\n")
    sys.stdout.flush()


def _let_go_of_stdout() -> None:
    """Whoever reads it sees its end; what is printed from now on goes where the errors go."""
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())


def _watch(cloud: Cloud) -> None:
    """Log a child that dies; end when the state folder has been removed, for then nobody can reach us."""
    dead: set[str] = set()
    while cloud.state.host_file.exists():
        for name, alive in cloud.running().items():
            if not alive and name not in dead:
                _log.error("%s has died; data-platform cloud restart %s", name, name)
            (dead.discard if alive else dead.add)(name)
        time.sleep(WATCH_S)
    _log.warning("%s is gone; ending", cloud.state.host_file)


# What the command line asks of it


def up(
    state: CloudState, *, engines: Sequence[str] = (), provision: bool = True, on_progress: Callable[[str], None]
) -> None:
    """Make sure that the cloud of `state` is up: start it, wait for another `up`, or start what died since.

    `engines` none: all of them.

    Raises PlatformError with the reason when it does not come up; then, and at Ctrl-C, nothing is left running.
    """
    command = [sys.executable, "-m", "data_platform.local.supervisor", "--home", str(state.home)]
    command += [f"--engine={engine}" for engine in with_needs(engines or tuple(ENGINES))]
    command += [] if provision else ["--no-provision"]
    deadline = time.monotonic() + UP_TIMEOUT_S
    waiting = False
    while time.monotonic() < deadline:
        running = state.host()
        if running is not None and running.ready:
            control.call(running, "up", ",".join(engines))
            return
        if running is None and _launch(state, command, on_progress):
            return
        if not waiting:
            on_progress("another process is starting or ending it; waiting")
            waiting = True
        time.sleep(0.1)
    raise PlatformError(f"the embedded cloud was not up after {UP_TIMEOUT_S:.0f} s", hint=f"see {state.logs}")


def _launch(state: CloudState, command: list[str], on_progress: Callable[[str], None]) -> bool:
    """Start the host and wait until it says that all serves; False when another has the folder's lock."""
    state.logs.mkdir(parents=True, exist_ok=True)
    with state.log("supervisor").open("ab") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,  # Ctrl-C in the terminal must not reach it later
            cwd="/",  # no folder is kept from being unmounted or removed
            env=users_environment(),
        )
    if process.stdout is None:
        raise AssertionError
    try:
        with process.stdout:
            for line in process.stdout:
                fact = json.loads(line)
                if "progress" in fact:
                    on_progress(fact["progress"])
                elif "ready" in fact:
                    return True
                elif "busy" in fact:
                    process.wait(DOWN_TIMEOUT_S)
                    return False
                else:
                    process.wait(DOWN_TIMEOUT_S)
                    raise PlatformError(fact["error"], hint=fact["hint"])
    except KeyboardInterrupt:
        with undisturbed():
            on_progress("interrupted: ending what was started")
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(DOWN_TIMEOUT_S)
            process.kill()
            process.wait()
            _clear(state)
        raise
    code = process.wait(DOWN_TIMEOUT_S)
    last = state.log("supervisor").read_text(errors="replace").splitlines()[-1:]
    raise PlatformError(
        "\n".join([f"the supervisor ended with {code} before the cloud was up", *last]),
        hint=f"see {state.log('supervisor')}",
    )


def down(state: CloudState) -> bool:
    """End the cloud and wait until nothing of it runs; False when none ran (what a crash left is cleared then, too).

    Raises PlatformError when another process, such as `demo`, runs it as its own.
    """
    deadline = time.monotonic() + DOWN_TIMEOUT_S
    running = state.host()
    while running is None and state.locked() and time.monotonic() < deadline:
        time.sleep(0.05)  # it has just taken the lock and will say who it is
        running = state.host()
    if running is not None:
        if not running.detached:
            raise PlatformError(
                f"process {running.pid} runs this embedded cloud as its own (demo, dev or a test)",
                hint="end that process; its engines end with it",
            )
        process = _process_of(running)
        if process is not None:
            process.terminate()
            with contextlib.suppress(psutil.TimeoutExpired):
                process.wait(max(deadline - time.monotonic(), 1.0))
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
    _clear(state)
    return running is not None


def reset(state: CloudState) -> None:
    """End the cloud and remove all it kept."""
    down(state)
    lock = state.acquire()
    if lock is None:
        raise PlatformError(f"{state.folder} is in use again", hint="data-platform cloud status")
    with lock:
        state.remove()


def _clear(state: CloudState) -> None:
    """Clear what a killed host left: its engines and the files that say that it runs."""
    lock = state.acquire() if state.folder.exists() else None
    if lock is None:
        return
    with lock:
        end_orphans(state.folder)
        state.forget_running()


def _process_of(running: Host) -> psutil.Process | None:
    """The host's process; None when it is gone, even when its number is a stranger's now."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(running.pid)
        if abs(process.create_time() - running.create_time) < 0.01:
            return process
    return None


def status(state: CloudState) -> list[dict[str, object]]:
    """One row per engine of the running cloud: engine, state (`up`, `dead`), pid, ports (name -> number), up_s, log.

    Empty when none runs.
    """
    running = state.host()
    if running is None:
        return []
    return [_engine_status(state, engine) for engine in running.engines]


def faults(state: CloudState, engine: str) -> FaultClient:
    """The fault switches of an engine that another process runs. Raises PlatformError when it does not run."""
    try:
        facts = json.loads((state.engine_folder(engine) / READY_FILE).read_text())
    except FileNotFoundError:
        raise PlatformError(f"{engine} does not run in {state.home}", hint="data-platform cloud status") from None
    return FaultClient(facts["control_url"])


def _engine_status(state: CloudState, engine: str) -> dict[str, object]:
    row: dict[str, object] = {"engine": engine, "state": "dead", "pid": None, "ports": None, "up_s": None}
    with contextlib.suppress(FileNotFoundError, psutil.NoSuchProcess):
        facts = json.loads((state.engine_folder(engine) / READY_FILE).read_text())
        process = psutil.Process(facts["pid"])
        ours = str(state.engine_folder(engine)) in process.cmdline()
        if ours and process.status() != psutil.STATUS_ZOMBIE:
            up_s = int(time.time() - process.create_time())
            row |= {"state": "up", "pid": process.pid, "ports": facts["ports"], "up_s": up_s}
    return row | {"log": str(state.log(engine))}


def main(argv: list[str] | None = None) -> int:
    """Entry point of the background process."""
    parser = argparse.ArgumentParser(description="Hosts the embedded cloud; normally started by `cloud up`.")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--engine", action="append", required=True)
    parser.add_argument("--no-provision", action="store_true")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for chatty in ("botocore", "urllib3", "clickhouse_connect", "alembic"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    return host(arguments.home, engines=arguments.engine, provision=not arguments.no_provision)


if __name__ == "__main__":
    sys.exit(main())
