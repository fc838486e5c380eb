"""Runs that execute in the process of a command: whose they are, and the end of those whose process is gone.

Dagster's own monitoring watches runs that a launcher started. A command that is killed leaves its run "started" and its
pool slots taken; here the next command clears up after it.
"""

import os
import socket
from pathlib import Path

import dagster as dg

HOST_TAG = "data_platform/host"
PROCESS_TAG = "data_platform/process"
_UNFINISHED = [dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.NOT_STARTED]
_START_TIME = 19  # of a process, in the fields of /proc/<pid>/stat behind its name: tells it from a later namesake


def process_tags() -> dict[str, str]:
    """Tags that name this process as the one a run executes in."""
    return {HOST_TAG: socket.gethostname(), PROCESS_TAG: _identity(os.getpid())}


def runs_here(run: dg.DagsterRun) -> bool | None:
    """Whether the process that executes the unfinished run lives; None where it is on another host, or unknown."""
    identity = run.tags.get(PROCESS_TAG)
    if identity is None or run.tags.get(HOST_TAG) != socket.gethostname():
        return None
    pid = int(identity.partition("/")[0])
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return _identity(pid) == identity


def end_abandoned(instance: dg.DagsterInstance) -> list[str]:
    """Mark runs of this host whose process is gone as failed and free what they held; returns their ids."""
    filters = dg.RunsFilter(statuses=_UNFINISHED, tags={HOST_TAG: socket.gethostname()})
    ended: list[str] = []
    for run in instance.get_runs(filters=filters):
        if runs_here(run) is False:
            instance.report_run_failed(run, "The process of this run was ended from outside.")
            # A slot of a dead run would be waited for by every run after it.
            instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
            ended.append(run.run_id)
    return ended


def _identity(pid: int) -> str:
    """The process id, with its start time where the system tells it."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return str(pid)
    return f"{pid}/{stat.rpartition(')')[2].split()[_START_TIME]}"
