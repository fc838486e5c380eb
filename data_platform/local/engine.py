"""What every engine child has in common: its process, its ready file, its control port, its end.

Run as `python -m data_platform.local.engine NAME --state DIR --ports '{"http": 41234}'`. The supervisor starts it; a
test may start one alone. The child writes `<state>/ready.json` once it serves, ends on SIGTERM, and ends by itself when
its parent is gone, so that a killed supervisor leaves nothing running.
"""

import argparse
import importlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

from data_platform.local.faults import FaultBoard


@dataclass(frozen=True)
class EngineSpec:
    """What the parent must know of an engine before it runs, said here so that the parent imports none of them."""

    module: str
    ports: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()


ENGINES: Mapping[str, EngineSpec] = {
    "aws": EngineSpec("data_platform.local.aws", ports=("http",)),
    "warehouse": EngineSpec("data_platform.local.warehouse", ports=("redshift", "postgres"), needs=("aws",)),
    "clickhouse": EngineSpec("data_platform.local.clickhouse", ports=("http",), needs=("aws",)),
    "kafka": EngineSpec("data_platform.local.kafka", ports=("kafka",)),
}
READY_FILE = "ready.json"
PARENT_POLL_S = 0.5
# A child that has been told to end and is still starting or stopping is cut off then.
HARD_END_S = 10.0


@dataclass
class EngineContext:
    """What a child is given: its own state folder, the ports it must listen on (loopback), its fault board."""

    name: str
    state: Path
    ports: dict[str, int]
    faults: FaultBoard
    options: dict[str, Any] = field(default_factory=dict[str, Any])  # e.g. {"s3_endpoint": "http://127.0.0.1:..."}


class Engine(Protocol):
    """One embedded engine. A module `data_platform.local.<name>` offers `ENGINE`, a class of this shape."""

    NAME: str
    PORTS: tuple[str, ...]  # names of the ports it listens on
    FAULT_KINDS: tuple[str, ...]
    NEEDS: tuple[str, ...]  # engines that must be up before it starts

    def start(self, context: EngineContext) -> dict[str, str]:
        """Start serving; return once ready, with the environment variables that lead clients to it."""
        ...

    def stop(self) -> None:
        """Stop serving, flush to the state folder; at most 5 seconds."""
        ...


def load_engine(name: str) -> type[Engine]:
    """The engine class called `name`. Raises KeyError for an unknown name."""
    return importlib.import_module(ENGINES[name].module).ENGINE


class _ControlHandler(BaseHTTPRequestHandler):
    """GET / POST / DELETE /faults, DELETE /faults/<id> over JSON."""

    faults: FaultBoard

    def do_GET(self) -> None:
        self._answer(200, {"rules": self.faults.rules()})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)))
        try:
            fault_id = self.faults.arm(
                body["kind"], match=body["match"], times=body["times"], skip=body["skip"], args=body["args"]
            )
        except ValueError as error:
            self._answer(400, {"error": str(error)})
        else:
            self._answer(200, {"id": fault_id})

    def do_DELETE(self) -> None:
        fault_id = self.path.removeprefix("/faults").strip("/")
        if fault_id:
            self.faults.disarm(int(fault_id))
        else:
            self.faults.clear()
        self._answer(200, {})

    def _answer(self, status: int, body: object) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Control calls are not logged."""


def serve_control(faults: FaultBoard) -> ThreadingHTTPServer:
    """Serve the fault board on a free loopback port from a daemon thread; `.server_port` tells which."""
    handler = type("ControlHandler", (_ControlHandler,), {"faults": faults})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, name="control", daemon=True).start()
    return server


def write_ready(state: Path, facts: Mapping[str, object]) -> None:
    """Write the ready file in one rename, so that a reader never sees half of it."""
    temporary = state / f"{READY_FILE}.tmp"
    temporary.write_text(json.dumps(facts, indent=1))
    temporary.rename(state / READY_FILE)


def watch_parent(parent: int, stop: threading.Event) -> None:
    """Set `stop` once process `parent` is no longer ours, and cut this process off when it has not ended soon after."""

    def watch() -> None:
        while not stop.wait(PARENT_POLL_S):
            if os.getppid() != parent:
                stop.set()
        time.sleep(HARD_END_S)
        os._exit(1)

    threading.Thread(target=watch, name="watch-parent", daemon=True).start()


def run_child(engine_class: Callable[[], Engine], context: EngineContext, parent: int) -> int:
    """The life of a child: start, tell, wait for the end, stop. Returns the exit code."""
    stop = threading.Event()

    def on_signal(_signum: int, _frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, on_signal)
    # Ctrl-C reaches the whole foreground group; the supervisor decides the order of the end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    watch_parent(parent, stop)
    engine = engine_class()
    try:
        env = engine.start(context)
        control = serve_control(context.faults)
        facts = {
            "pid": os.getpid(),
            "ports": context.ports,
            "control_url": f"http://127.0.0.1:{control.server_port}",
            "env": env,
        }
        if not stop.is_set():
            write_ready(context.state, facts)
        stop.wait()
        control.shutdown()
    finally:
        (context.state / READY_FILE).unlink(missing_ok=True)
        engine.stop()
    return 0


def main(argv: list[str] | None = None) -> int:
    """Entry point of a child process."""
    parser = argparse.ArgumentParser(
        description="One engine of the embedded cloud; normally started by the supervisor."
    )
    parser.add_argument("name", choices=sorted(ENGINES))
    parser.add_argument("--state", type=Path, required=True, help="state folder of this engine")
    parser.add_argument("--ports", type=json.loads, required=True, help='JSON, e.g. {"http": 41234}')
    parser.add_argument("--options", type=json.loads, default={}, help="JSON object, engine-specific")
    parser.add_argument("--parent", type=int, help="end when this process is gone; default: whoever started it")
    arguments = parser.parse_args(argv)
    engine_class = load_engine(arguments.name)
    missing = set(engine_class.PORTS) - set(arguments.ports)
    if missing:
        parser.error(f"--ports lacks {', '.join(sorted(missing))}")
    state: Path = arguments.state.resolve()
    state.mkdir(parents=True, exist_ok=True)
    context = EngineContext(
        name=arguments.name,
        state=state,
        ports=arguments.ports,
        faults=FaultBoard(engine_class.FAULT_KINDS),
        options=arguments.options,
    )
    return run_child(engine_class, context, arguments.parent or os.getppid())


if __name__ == "__main__":
    sys.exit(main())
