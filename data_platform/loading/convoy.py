"""What several threads write to one place, sent together. Knows threads and batches, not what is written."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Row = TypeVar("Row")


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

    def waiting(self) -> list[Row]:
        """The rows whose insert has not begun."""
        with self._lock:
            return list(self._next.rows)

    def append(self, rows: Sequence[Row]) -> None:
        """Returns when the rows are written; raises what the insert they went with raised."""
        with self._lock:
            batch = self._next
            leads = not batch.rows
            batch.rows.extend(rows)
        if not leads:
            batch.ended.wait()
            if batch.error is not None:
                raise batch.error
            return
        with self._under_way:
            with self._lock:
                self._next = _Batch()
            try:
                self._send(batch.rows)
            except BaseException as error:
                batch.error = error
                raise
            finally:
                batch.ended.set()
