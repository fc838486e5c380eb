"""Memory of a domain's running inserts: who does not fit waits, so that a domain never asks for more than its share."""

import threading
from collections.abc import Generator
from contextlib import contextmanager


class Memory:
    """A budget in bytes. One load larger than all of it is admitted alone, with all of it."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self._free = threading.Condition()

    @contextmanager
    def admitted(self, wanted: int) -> Generator[int]:
        """Wait until `wanted` bytes fit; yields what was granted."""
        granted = min(wanted, self.limit)
        with self._free:
            self._free.wait_for(lambda: self.used + granted <= self.limit)
            self.used += granted
        try:
            yield granted
        finally:
            with self._free:
                self.used -= granted
                self._free.notify_all()
