"""What several threads write to one place, sent together. Knows threads and batches, not what is written."""

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from data_platform.errors import UnknownOutcomeError

Row = TypeVar("Row")
log = logging.getLogger(__name__)


@dataclass(eq=False)
class _Batch(Generic[Row]):
    rows: list[Row] = field(default_factory=list[Row])
    ended: threading.Event = field(default_factory=threading.Event)
    error: BaseException | None = None


class Convoy(Generic[Row]):
    """Rows of several threads in one insert: what comes while one is under way goes together with the next.

    ClickHouse bears nothing worse than many small inserts, and one of them costs the same whatever rows it has. A row
    that comes alone waits for nobody.
    """

    def __init__(self, send: Callable[[Sequence[Row]], None]) -> None:
        self._send = send
        self._under_way = threading.Lock()
        self._lock = threading.Lock()
        self._next = _Batch[Row]()

    def append(self, rows: Sequence[Row]) -> None:
        """Returns when the rows are written; raises what the insert they went with raised.

        The first row's thread sends for all. Whichever way it leaves, its batch has ended and takes no more rows, so
        nobody waits longer than two inserts take: the one under way and the next. (Each ends by the client's time-out.)
        """
        with self._lock:
            batch = self._next
            leads = not batch.rows
            batch.rows.extend(rows)
        if not leads:
            batch.ended.wait()
            if isinstance(batch.error, Exception):
                raise batch.error
            if batch.error is not None:
                raise UnknownOutcomeError(
                    "the thread that sent these rows was ended", hint="the work is looked at again"
                )
            return
        try:
            with self._under_way:
                self._close(batch)
                self._send(batch.rows)
        except BaseException as error:
            batch.error = error
            raise
        finally:
            self._close(batch)
            batch.ended.set()

    def _close(self, batch: _Batch[Row]) -> None:
        """What comes from now on goes with another."""
        with self._lock:
            if self._next is batch:
                self._next = _Batch()


class Straggler(Generic[Row]):
    """Rows nobody waits for: sent `after_s` seconds later by a thread of its own, with all that came meanwhile.

    For what may also be left out: a process that dies before has not sent them. One that ends waits for its thread.
    """

    def __init__(self, send: Callable[[Sequence[Row]], object], after_s: float) -> None:
        self._send = send
        self._after_s = after_s
        self._lock = threading.Lock()
        self._rows: list[Row] = []
        self._thread: threading.Thread | None = None
        self._hurry = threading.Event()

    def append(self, row: Row) -> None:
        """Returns at once."""
        with self._lock:
            self._rows.append(row)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="straggler")
                self._thread.start()

    def finish(self) -> None:
        """Returns when nothing that was appended before waits to be sent."""
        with self._lock:
            thread = self._thread
            if thread is not None:
                self._hurry.set()
        if thread is not None:
            thread.join()

    def _run(self) -> None:
        while True:
            self._hurry.wait(self._after_s)
            with self._lock:
                rows, self._rows = self._rows, []
                if not rows:
                    self._thread = None
                    self._hurry.clear()
                    return
            try:
                self._send(rows)
            except Exception:
                # Nobody waits to be told. They were never promised, and whoever needs them meets the cause.
                log.exception("%d rows were not sent", len(rows))
