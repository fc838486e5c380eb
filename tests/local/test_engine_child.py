"""The life of one engine child: ready, SIGTERM, a parent that dies, a start that fails, a port that is taken."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from data_platform.errors import PlatformError
from data_platform.local.engine import ENGINES, READY_FILE, load_engine
from data_platform.local.orphans import end_orphans, marked_processes
from data_platform.local.process import MARKER_VARIABLE, EngineProcess, free_port, port_is_free

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("name", ENGINES)
def test_what_the_parent_knows_of_an_engine_is_what_the_engine_says(name: str) -> None:
    engine = load_engine(name)
    spec = ENGINES[name]
    assert (engine.NAME, tuple(engine.PORTS), tuple(engine.NEEDS)) == (name, spec.ports, spec.needs)
    assert not any(ENGINES[need].needs for need in spec.needs), "with_needs() looks one level deep"


def test_sigterm_ends_a_child_at_once_and_removes_its_ready_file(tmp_path: Path) -> None:
    child = EngineProcess.with_free_ports("kafka", tmp_path / "kafka").start()
    assert child.running()
    since = time.monotonic()
    child.stop()
    assert time.monotonic() - since < 5
    assert not child.running()
    assert not (tmp_path / "kafka" / READY_FILE).exists()


def test_a_child_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from data_platform.local.process import EngineProcess\n"
        "print(EngineProcess.with_free_ports('kafka', Path(sys.argv[1])).start().pid, flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "kafka")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    _, alive = psutil.wait_procs([child], timeout=5)
    assert alive == []


def test_a_child_that_cannot_start_says_why(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        child = EngineProcess("kafka", tmp_path / "kafka", {"kafka": other.getsockname()[1]})
        with pytest.raises(PlatformError, match=r"kafka ended while starting:(.|\n)*address already in use") as caught:
            child.start()
    assert str(tmp_path / "kafka" / "log.txt") in str(caught.value)
    assert not child.running()


def test_an_engine_does_not_see_the_variables_of_the_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "production")
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "production:9092")
    child = EngineProcess.with_free_ports("kafka", tmp_path / "kafka").start()
    try:
        assert child.pid is not None
        environment = psutil.Process(child.pid).environ()
    finally:
        child.stop()
    assert not {"AWS_PROFILE", "KAFKA_BOOTSTRAP_SERVERS"} & set(environment)
    assert environment[MARKER_VARIABLE] == str(tmp_path)


def test_orphans_are_ended_by_their_mark_and_strangers_are_left_alone(tmp_path: Path) -> None:
    sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
    deaf = [
        sys.executable,
        "-c",
        "import signal, time; signal.signal(15, signal.SIG_IGN); print(flush=True); time.sleep(60)",
    ]
    ours, stubborn, stranger = (
        subprocess.Popen(command, env=os.environ | {MARKER_VARIABLE: str(folder)}, stdout=subprocess.PIPE)
        for command, folder in ((sleep, tmp_path / "a"), (deaf, tmp_path / "a"), (sleep, tmp_path / "ab"))
    )
    try:
        assert stubborn.stdout is not None
        stubborn.stdout.readline()
        lines = end_orphans(tmp_path / "a", ask_s=0.3)
        assert None not in {ours.poll(), stubborn.poll()}
        assert len(lines) == 2
        assert stranger.poll() is None
        assert marked_processes(tmp_path / "a") == []
    finally:
        for process in (ours, stubborn, stranger):
            process.kill()
            process.communicate()


def test_a_free_port_can_be_bound_and_is_not_one_that_outgoing_connections_get() -> None:
    ports = {free_port() for _ in range(20)}
    assert len(ports) > 10
    assert max(ports) < 32768
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", port := ports.pop()))
        listener.listen()
        assert not port_is_free(port)
    assert port_is_free(port)
