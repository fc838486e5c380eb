"""Memory of a domain's running inserts: who does not fit waits, so that a domain never asks for more than its share."""

import threading
from collections.abc import Generator
from contextlib import contextmanager

# What a load is granted while it is free, for the Parquet reader to read ahead: objects of 5 MB ask for 182 MiB; six by
# three at once with 256 each took 543 ms, by two with 384 took 593 (medians by turns, 2 cores).
COMFORTABLE = 256 * 2**20


class Memory:
    """A budget in bytes. One load larger than all of it is admitted alone, with all of it.

    What is free beyond what a load needs is granted to it, up to COMFORTABLE.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self._free = threading.Condition()

    @contextmanager
    def admitted(self, wanted: int) -> Generator[int]:
        """Wait until `wanted` bytes fit; yields what was granted."""
        needed = min(wanted, self.limit)
        with self._free:
            self._free.wait_for(lambda: self.used + needed <= self.limit)
            granted = max(needed, min(COMFORTABLE, self.limit - self.used))
            self.used += granted
        try:
            yield granted
        finally:
            with self._free:
                self.used -= granted
                self._free.notify_all()
