"""`data-platform cloud ...` as a person runs it: in the background, from several shells, interrupted, killed."""

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from data_platform.errors import PlatformError
from data_platform.local import supervisor
from data_platform.local.orphans import marked_processes
from data_platform.local.state import CloudState

pytestmark = pytest.mark.integration
COMMAND = [sys.executable, "-m", "data_platform.cli.main", "cloud"]
QUICK = ("up", "--engine", "kafka", "--no-provision")

CONTRACT = {
    *("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION", "DAGSTER_HOME"),
    *("CLICKHOUSE_HOST", "CLICKHOUSE_PORT", "CLICKHOUSE_USER", "CLICKHOUSE_PASSWORD", "KAFKA_BOOTSTRAP_SERVERS"),
    *("REDSHIFT_HOST", "REDSHIFT_PORT", "REDSHIFT_DATABASE", "REDSHIFT_USER", "REDSHIFT_PASSWORD", "POSTGRES_URL"),
    *("DATA_PLATFORM_RAW_BUCKET", "DATA_PLATFORM_CURATED_BUCKET", "DATA_PLATFORM_UNLOAD_BUCKET"),
}


# Where the tests themselves run in the background, SIGINT is ignored and would be in the command, too.
HEARING = "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execvp(sys.argv[1], sys.argv[1:])"


class Shell:
    """Runs cloud commands for one state folder."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.state = CloudState(home)
        self.environment = os.environ | {"DATA_PLATFORM_HOME": str(home), "COLUMNS": "200"}

    def __call__(self, *arguments: str, code: int = 0, answer: str | None = None) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*COMMAND, *arguments],
            env=self.environment,
            input=answer,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-c", HEARING, *COMMAND, *arguments],
            env=self.environment, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def engines(self) -> dict[str, str]:
        """Engine -> state, as `status` tells."""
        return {str(row["engine"]): str(row["state"]) for row in supervisor.status(self.state)}

    def host(self) -> psutil.Process:
        running = self.state.host()
        assert running is not None
        return psutil.Process(running.pid)

    def nothing_runs(self) -> bool:
        return not self.state.locked() and not marked_processes(self.state.folder)


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    shell = Shell(tmp_path / "home")
    yield shell
    if not shell.nothing_runs():
        subprocess.run([*COMMAND, "down"], env=shell.environment, timeout=60, check=False, capture_output=True)


def test_the_whole_life_of_a_cloud_in_an_awkward_folder(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    shell = Shell(tmp_path / ("it's long " + "x" * 90) / "home")
    since = time.monotonic()
    # Inside $(...) the shell waits until every holder of the pipe has let go of it.
    line = f'out=$({shlex.join(COMMAND)} up) && echo "$out"'
    up = subprocess.run(
        ["sh", "-c", line], env=shell.environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert up.returncode == 0, up.stderr
    seconds = time.monotonic() - since
    record_property("seconds of cloud up, provisioned", round(seconds, 1))
    assert "embedded cloud is up" in up.stdout
    try:
        assert shell.engines() == dict.fromkeys(("aws", "warehouse", "clickhouse", "kafka"), "up")
        told = json.loads(shell("status", "--json").stdout)
        assert {row["engine"]: row["state"] for row in told["engines"]} == shell.engines()

        exported = shell("env").stdout
        assert all(row.startswith("export ") for row in exported.splitlines())
        read_back = subprocess.run(
            ["sh", "-c", 'eval "$1" && env', "sh", exported], capture_output=True, text=True, check=True, env={}
        ).stdout
        variables = dict(row.split("=", 1) for row in read_back.splitlines())
        assert json.loads(shell("env", "--json").stdout).items() <= variables.items()
        assert variables["DATA_PLATFORM_HOME"] == str(shell.home)
        assert variables["DATA_PLATFORM_ENV"] == "dev"
        assert set(variables) >= CONTRACT

        before = shell.host().pid
        shell("up")
        assert shell.host().pid == before, "up is idempotent"
        since = time.monotonic()
        shell("down")
        assert time.monotonic() - since < 10, shell.state.log("supervisor").read_text()[-1000:]
    finally:
        subprocess.run([*COMMAND, "down"], env=shell.environment, timeout=60, check=False, capture_output=True)
    assert shell.nothing_runs()


def test_without_a_cloud_every_command_says_so_and_down_is_content(shell: Shell) -> None:
    for arguments in (("status",), ("env",), ("kill", "aws"), ("restart", "aws")):
        done = shell(*arguments, code=1)
        assert "no embedded cloud runs in" in done.stderr
        assert "data-platform cloud up" in done.stderr
    assert json.loads(shell("status", "--json", code=1).stdout)["running"] is False
    shell("down")


def test_an_engine_that_dies_is_reported_and_comes_back_by_restart_or_up(shell: Shell) -> None:
    shell(*QUICK)
    for repair in (("restart", "kafka"), QUICK):
        shell("kill", "kafka")
        done = shell("status", code=1)
        assert "kafka has died" in done.stderr
        assert shell.engines() == {"kafka": "dead"}
        shell(*repair)
        assert shell.engines() == {"kafka": "up"}
    assert "no such engine: oracle" in shell("up", "--engine", "oracle", code=1).stderr
    assert "oracle was not started" in shell("kill", "oracle", code=1).stderr


def test_engines_can_be_added_to_a_running_cloud(shell: Shell) -> None:
    shell(*QUICK)
    shell("up", "--engine", "aws", "--no-provision")
    assert shell.engines() == {"aws": "up", "kafka": "up"}
    assert {"AWS_ENDPOINT_URL", "KAFKA_BOOTSTRAP_SERVERS"} <= json.loads(shell("env", "--json").stdout).keys()


def test_two_ups_at_once_make_one_cloud(shell: Shell) -> None:
    both = [shell.start(*QUICK), shell.start(*QUICK)]
    for process in both:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    assert len(marked_processes(shell.state.folder)) == 1


def test_two_folders_stand_side_by_side(tmp_path: Path) -> None:
    shells = [Shell(tmp_path / name) for name in ("a", "b")]
    try:
        for shell in shells:
            shell(*QUICK)
        first, second = (json.loads(shell("env", "--json").stdout)["KAFKA_BOOTSTRAP_SERVERS"] for shell in shells)
        assert first != second
        shells[0]("down")
        assert shells[0].nothing_runs()
        assert shells[1].engines() == {"kafka": "up"}
    finally:
        for shell in shells:
            supervisor.down(shell.state)


def test_after_kill_9_of_the_supervisor_its_engines_end_and_up_recovers(shell: Shell) -> None:
    shell(*QUICK)
    address = shell.state.env()["KAFKA_BOOTSTRAP_SERVERS"]
    shell.host().kill()
    deadline = time.monotonic() + 10
    while not shell.nothing_runs() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert shell.nothing_runs()
    shell("status", code=1)
    shell("env", code=1)
    shell(*QUICK)
    assert shell.state.env()["KAFKA_BOOTSTRAP_SERVERS"] == address


def test_a_kept_port_that_somebody_took_is_named_with_what_to_do(shell: Shell) -> None:
    shell(*QUICK)
    port = int(shell.state.env()["KAFKA_BOOTSTRAP_SERVERS"].split(":")[1])
    shell("down")
    with socket.socket() as somebody:
        somebody.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        somebody.bind(("127.0.0.1", port))
        somebody.listen()
        done = shell(*QUICK, code=1)
        assert f"port {port} of kafka (kafka) is in use by another process" in done.stderr
        assert "--new-ports" in done.stderr
        assert shell.nothing_runs()
        shell(*QUICK, "--new-ports")
    assert shell.state.env()["KAFKA_BOOTSTRAP_SERVERS"] != f"127.0.0.1:{port}"


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_up_that_is_cut_off_leaves_nothing_running(shell: Shell, how: signal.Signals) -> None:
    up = shell.start("up")
    assert up.stderr is not None
    assert "is up" in up.stderr.readline()  # the first engine serves, the others are starting
    up.send_signal(how)
    up.communicate(timeout=30)
    assert up.returncode == (-how if how is signal.SIGKILL else 130)
    deadline = time.monotonic() + (15 if how is signal.SIGKILL else 0.5)
    while not shell.nothing_runs() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert shell.nothing_runs()


def test_an_impatient_second_ctrl_c_leaves_nothing_running_either(shell: Shell) -> None:
    up = shell.start("up")
    assert up.stderr is not None
    assert "is up" in up.stderr.readline()
    up.send_signal(signal.SIGINT)
    while "ending what was started" not in (line := up.stderr.readline()):
        assert line, "the first Ctrl-C was not answered"
    up.send_signal(signal.SIGINT)
    up.communicate(timeout=30)
    assert up.returncode == 130
    assert shell.nothing_runs()


def test_down_refuses_to_end_a_cloud_that_another_program_runs_as_its_own(shell: Shell) -> None:
    code = (
        "import sys; from pathlib import Path; from data_platform.local.cloud import Cloud\n"
        "with Cloud(Path(sys.argv[1])) as cloud:\n"
        "    cloud.up(engines=['kafka'], provision=False); print('up', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(shell.home)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        program.stdout.readline()
        done = shell("down", code=1)
        assert f"process {program.pid} runs this embedded cloud as its own" in done.stderr
        shell("restart", "kafka")
        assert shell.engines() == {"kafka": "up"}
    assert shell.nothing_runs()


def test_reset_asks_and_then_removes_what_was_kept(shell: Shell) -> None:
    shell(*QUICK)
    shell("reset", answer="n\n", code=1)
    assert shell.engines() == {"kafka": "up"}
    shell("reset", "--yes")
    assert not shell.state.folder.exists()
    assert shell.nothing_runs()


def test_faults_are_armed_in_a_cloud_that_runs_in_the_background(shell: Shell) -> None:
    with pytest.raises(PlatformError, match="kafka does not run"):
        supervisor.faults(shell.state, "kafka")
    shell(*QUICK)
    fault = supervisor.faults(shell.state, "kafka").arm("kafka.broker_down")
    address = shell.state.env()["KAFKA_BOOTSTRAP_SERVERS"].split(":")
    with socket.create_connection((address[0], int(address[1])), timeout=5) as connection:
        assert connection.recv(1) == b""
    assert supervisor.faults(shell.state, "kafka").struck(fault) == 1


def test_only_this_user_can_read_the_control_key_and_without_it_nothing_happens(shell: Shell) -> None:
    import http.client

    shell(*QUICK)
    assert shell.state.host_file.stat().st_mode & 0o077 == 0
    assert shell.state.env_file.stat().st_mode & 0o077 == 0
    running = shell.state.host()
    assert running is not None
    connection = http.client.HTTPConnection(running.control_url.removeprefix("http://"), timeout=5)
    connection.request("POST", "/kill/kafka", headers={"X-Key": "guess"})
    assert connection.getresponse().status == 403
    connection.close()
    assert shell.engines() == {"kafka": "up"}
