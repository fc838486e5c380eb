"""What one S3 request changed, collected while moto handles it: rows to write, rows to delete, events to send.

Thread-local: moto handles a request in one thread. Nothing is written here; see store.py and server.py.
"""

import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from data_platform.local.aws.requests import RequestFacts

_sequence_lock = threading.Lock()
_last_sequence = 0


def next_sequencer() -> str:
    """Upper-case hex that only grows, also over a restart: nanoseconds, or one more than the last."""
    global _last_sequence  # noqa: PLW0603 - one counter per process is the point
    with _sequence_lock:
        _last_sequence = max(_last_sequence + 1, time.time_ns())
        return f"{_last_sequence:018X}"


@dataclass
class Journal:
    """The changes of one request."""

    facts: RequestFacts
    keys: set[tuple[str, str]] = field(default_factory=set[tuple[str, str]])  # (bucket, key) whose versions changed
    removed: list[Any] = field(default_factory=list[Any])  # entries (keys, delete markers) that are gone
    buckets: set[str] = field(default_factory=set[str])
    uploads: set[tuple[str, str]] = field(default_factory=set[tuple[str, str]])  # (bucket, upload id)
    events: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])  # EventBridge events, in order


class _Current(threading.local):
    journal: Journal | None = None


_current = _Current()


def current() -> Journal | None:
    """The journal of the request this thread handles; None while the state is being loaded."""
    return _current.journal


@contextmanager
def journal_of(facts: RequestFacts) -> Generator[Journal]:
    """Collect what this thread changes until the block ends."""
    journal = _current.journal = Journal(facts)
    try:
        yield journal
    finally:
        _current.journal = None
