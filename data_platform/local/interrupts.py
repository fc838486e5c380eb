"""What an interruption may not interrupt: the ending of engines. An impatient second Ctrl-C would leave some."""

import contextlib
import signal
import threading
from collections.abc import Generator

_ENDINGS = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def undisturbed() -> Generator[None]:
    """Ctrl-C and SIGTERM do nothing under this; what is done here must end by itself in bounded time."""
    if threading.current_thread() is not threading.main_thread():  # only that one gets them and may set handlers
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in _ENDINGS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
