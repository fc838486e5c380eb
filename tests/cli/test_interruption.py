"""Ctrl-C at a terminal, whenever it comes: one short line, exit code 130, nothing left running."""

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration
TIMEOUT_S = 60.0
# Says when it is the turn of Ctrl-C; the import of typer then takes as long as it does on a slow disk.
SLOW_IMPORT = "import time\nprint('importing', flush=True)\ntime.sleep(30)\n"


def at_terminal(command: list[str], environment: dict[str, str], moment: str) -> tuple[int, str]:
    """Run `command` on a terminal of its own, type Ctrl-C once `moment` has been printed; code and all output."""
    terminal, theirs = pty.openpty()
    # Where the tests themselves run in the background, SIGINT is ignored and would be in the command, too.
    code = (
        "import fcntl, os, signal, sys, termios; signal.signal(signal.SIGINT, signal.SIG_DFL);"
        "fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execvp(sys.argv[1], sys.argv[1:])"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, *command],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment,
        start_new_session=True,
    )
    os.close(theirs)
    printed = b""
    typed = False
    deadline = time.monotonic() + TIMEOUT_S
    try:
        while time.monotonic() < deadline:
            if select.select([terminal], [], [], 0.1)[0]:
                try:
                    printed += os.read(terminal, 65536)
                except OSError:  # the last process has let go of the terminal
                    break
            if not typed and moment.encode() in printed:
                os.write(terminal, b"\x03")
                typed = True
        assert typed, printed
        return process.wait(TIMEOUT_S), re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", printed.decode())
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        os.close(terminal)


def test_ctrl_c_while_the_command_line_is_imported_shows_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text(SLOW_IMPORT)
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    code, printed = at_terminal([sys.executable, "-m", "data_platform.cli.entry", "--help"], environment, "importing")
    assert code == 130
    assert printed.rstrip().endswith("interrupted")  # behind the terminal's own ^C
    assert "Traceback" not in printed


def test_ctrl_c_in_a_command_says_so_and_leaves_nothing_running(tmp_path: Path) -> None:
    environment = os.environ | {"DATA_PLATFORM_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-m", "data_platform.cli.entry", "demo", "--home", str(tmp_path / "home")]
    code, printed = at_terminal(command, environment, "is up")
    assert code == 130
    assert printed.rstrip().endswith("interrupted")  # behind the terminal's own ^C
    assert "Traceback" not in printed
    # That no engine is left running is asserted by the session's own fixture, after every run.


def test_the_console_script_is_the_one_that_understands_ctrl_c_at_once() -> None:
    import tomllib

    project = tomllib.loads((Path(__file__).resolve().parents[2] / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"data-platform": "data_platform.cli.entry:main"}
