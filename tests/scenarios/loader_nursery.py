"""Starts loader processes quickly: imports the command line once, then forks a child for each.

Run as a script. Lines on standard input: `start FILE ARGUMENT...` answers the child's id, whose output goes to FILE;
`end ID` waits for a child that was killed or asked to end and answers its exit code. It dies with its standard input.
"""

import importlib
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import NoReturn

# What the loader imports on its way, so that a child only has to start.
MODULES = (
    *("boto3", "botocore.signers", "clickhouse_connect", "clickhouse_connect.driver.httpclient", "pyarrow.parquet"),
    *("data_platform.cli.loader", "data_platform.cli.main", "data_platform.loading.agent", "rich.console"),
    *("data_platform.catalog.load", "data_platform.jobs.reporting", "tenacity", "yaml"),
)


def main() -> None:
    """Serve until the input ends."""
    for name in MODULES:
        importlib.import_module(name)
    children: set[int] = set()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for line in sys.stdin:
        command, *arguments = line.rstrip("\n").split("\t")
        if command == "start":
            child = os.fork()
            if child == 0:
                become_loader(Path(arguments[0]), arguments[1:])
            children.add(child)
            answer = child
        else:
            child = int(arguments[0])
            _, status = os.waitpid(child, 0)
            children.discard(child)
            answer = os.waitstatus_to_exitcode(status)
        sys.stdout.write(f"{answer}\n")
        sys.stdout.flush()
    for child in children:
        os.kill(child, signal.SIGKILL)


def become_loader(log: Path, arguments: list[str]) -> NoReturn:
    """Run `data-platform ARGUMENTS` in this process and end with its exit code."""
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(output, stream)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.argv = ["data-platform", *arguments]
    code = 1
    try:
        from data_platform.cli.main import main as command_line

        command_line()
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 0 if ended.code is None else 1
    except Exception:  # noqa: BLE001 - told in the log, where the end of it is looked for
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
