"""What provisioning did: changes, what was skipped, and the recorder every step writes to.

A step decides what differs; the recorder alone decides whether it is done (it is not in a dry run) and tells it.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Action = Literal["create", "update"]


@dataclass(frozen=True)
class Change:
    """One thing that was made or put right; in a dry run, that would be."""

    kind: str  # bucket, queue, rule, topic, database, table, ...
    name: str
    action: Action


@dataclass(frozen=True)
class Skipped:
    """A part that was not looked at, and the reason: mostly an engine without settings."""

    part: str
    reason: str


@dataclass(frozen=True)
class ProvisionReport:
    """The outcome of one run; `changes` is empty when everything was as it should be."""

    changes: tuple[Change, ...]
    skipped: tuple[Skipped, ...]
    dry_run: bool = False


class Recorder:
    """Collects the changes of steps that run at the same time."""

    def __init__(self, *, dry_run: bool = False, tell: Callable[[str], None] | None = None) -> None:
        self.dry_run = dry_run
        self._tell = tell
        self._lock = threading.Lock()
        self._changes: list[Change] = []
        self._skipped: list[Skipped] = []

    def change(self, kind: str, name: str, action: Action, do: Callable[[], object]) -> None:
        """Do it, unless this is a dry run, and write it down; what fails is not written down."""
        if not self.dry_run:
            do()
        with self._lock:
            self._changes.append(Change(kind, name, action))
            self._say(f"{'would ' if self.dry_run else ''}{action} {kind} {name}")

    def skip(self, part: str, reason: str) -> None:
        """Write down that a part was not looked at."""
        with self._lock:
            self._skipped.append(Skipped(part, reason))
            self._say(f"{part} skipped: {reason}")

    def report(self) -> ProvisionReport:
        """What has been written down, in a stable order."""
        with self._lock:
            return ProvisionReport(
                tuple(sorted(self._changes, key=lambda change: (change.kind, change.name, change.action))),
                tuple(sorted(self._skipped, key=lambda skipped: skipped.part)),
                self.dry_run,
            )

    def _say(self, line: str) -> None:
        if self._tell is not None:
            self._tell(line)
