"""The rows of an UNLOAD: the inner SELECT, run inside the client's own session, read from a worker thread.

What the executor asks for in its thread is done on the event loop, piece by piece, so memory stays bounded.
"""

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from typing import Any, TypeVar

from data_platform.local.warehouse.backend import Backend, copy_statement
from data_platform.local.warehouse.translate import translate
from data_platform.local.warehouse.unload.contract import ColumnFacts, CopyFormat, WarehouseError

T = TypeVar("T")
CANCELLED = "canceling statement due to user request"
TIMED_OUT = "canceling statement due to statement timeout"


class SessionSource:
    """See unload.contract.Source."""

    def __init__(self, backend: Backend, query: str, loop: asyncio.AbstractEventLoop) -> None:
        self._backend = backend
        self._query = translate(query)
        self._loop = loop
        self._described: list[ColumnFacts] | None = None
        self._stopped = threading.Event()
        self._reason = CANCELLED

    def describe(self) -> list[ColumnFacts]:
        """The output columns."""
        if self._described is None:
            self._described = self._wait(self._backend.describe(self._query))
        return self._described

    def copy(self, format: CopyFormat, **options: str) -> Iterator[bytes]:  # noqa: A002 - PostgreSQL's word
        """Stream the rows; closing the iterator before its end cancels the query."""
        self.describe()  # refuses a text that is more than one query before it is put into a COPY
        self.check()
        self._wait(self._backend.start_copy(copy_statement(self._query, format, list(options.items()))))
        try:
            while (rows := self._wait(self._backend.copied())) is not None:
                yield rows
        finally:
            self._wait(self._backend.abandon_copy())

    def cancelled(self) -> bool:
        """Whether the client wants it to end, or its time is over."""
        return self._stopped.is_set()

    def check(self) -> None:
        """Raise 57014 when it is to end."""
        if self._stopped.is_set():
            raise self.reason()

    def stop(self, reason: str = CANCELLED) -> None:
        """Make it end. On the event loop or in any thread; the back-end's own query is cancelled by the caller."""
        if not self._stopped.is_set():
            self._reason = reason
            self._stopped.set()

    def reason(self) -> WarehouseError:
        """Why it was stopped."""
        return WarehouseError("57014", self._reason)

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()
