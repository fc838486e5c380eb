"""Processes of an embedded cloud that lost their parent, told from strangers by the mark in their environment.

The mark is the state folder, set for every engine and inherited by what it starts. A recorded pid alone proves
nothing: after a crash it may be anybody's.
"""

import contextlib
from pathlib import Path

import psutil

from data_platform.local.process import MARKER_VARIABLE

ASK_S = 6.0  # an engine flushes within 5 s of SIGTERM


def marked_processes(folder: Path) -> list[psutil.Process]:
    """All living processes that belong to the cloud in `folder`, whoever their parent is now."""
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(MARKER_VARIABLE) == str(folder) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def end_orphans(folder: Path, *, ask_s: float = ASK_S) -> list[str]:
    """End what still runs for `folder`: SIGTERM, then SIGKILL. Call it only with the folder's lock in hand.

    Returns a line per process for the log.
    """
    orphans = marked_processes(folder)
    for process in orphans:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    _, alive = psutil.wait_procs(orphans, timeout=ask_s)
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(alive, timeout=ask_s)
    return [f"ended process {process.pid}, left over from a crash" for process in orphans]
