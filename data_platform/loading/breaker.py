"""Circuit breakers: while an engine is away nothing is received, so that no receive count and no attempt is burnt."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

FIRST_WAIT_S = 1.0
LONGEST_WAIT_S = 15.0


@dataclass
class Breaker:
    """Closed: work flows. Open: it does not, until `probe` says that the engine answers again (half open).

    The probe runs in the thread that asks, at most one at a time; waits between probes double up to `longest_s`.
    """

    name: str
    probe: Callable[[], bool]
    first_s: float = FIRST_WAIT_S
    longest_s: float = LONGEST_WAIT_S
    reason: str = ""
    opened: int = 0
    _open: bool = False
    _wait_s: float = 0.0
    _next_probe: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def open(self) -> bool:
        """Whether work is being held back."""
        return self._open

    def trip(self, reason: str) -> None:
        """The engine is away."""
        with self._lock:
            self.reason = reason
            if not self._open:
                self._open = True
                self.opened += 1
                self._wait_s = self.first_s
                self._next_probe = time.monotonic() + self._wait_s

    def close(self) -> None:
        """Somebody knows that the engine is there."""
        with self._lock:
            self._open = False
            self.reason = ""

    def allows(self) -> bool:
        """Whether work may be taken now; asks the engine when it is time to."""
        if not self._open:
            return True
        with self._lock:
            if not self._open:
                return True
            if time.monotonic() < self._next_probe:
                return False
            if self.probe():
                self._open = False
                self.reason = ""
                return True
            self._wait_s = min(self._wait_s * 2, self.longest_s)
            self._next_probe = time.monotonic() + self._wait_s
            return False
