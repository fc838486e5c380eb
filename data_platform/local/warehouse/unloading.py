"""Runs an UNLOAD for a session: the executor in a worker thread, its time-out, its progress in the system views."""

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from data_platform.local.warehouse.backend import Backend
from data_platform.local.warehouse.querylog import QueryLog, QueryRecord, UnloadProgress
from data_platform.local.warehouse.source import TIMED_OUT, SessionSource
from data_platform.local.warehouse.unload import execute_unload
from data_platform.local.warehouse.unload.contract import (
    UnloadEnvironment,
    UnloadOutcome,
    UnloadStatement,
    WarehouseError,
)

logger = logging.getLogger(__name__)
MAX_CONCURRENT = 50  # Redshift's own limit of concurrent queries
_TIMEOUT = "SELECT setting FROM pg_catalog.pg_settings WHERE name = 'statement_timeout'"


class Unloader:
    """What all UNLOADs share: the target's address, the threads, the log."""

    def __init__(self, environment: UnloadEnvironment | None, log: QueryLog) -> None:
        self.environment = environment
        self.log = log
        self.threads = ThreadPoolExecutor(MAX_CONCURRENT, "unload")

    def task(self, statement: UnloadStatement, backend: Backend, record: QueryRecord) -> "UnloadTask":
        """One UNLOAD, ready to run."""
        source = SessionSource(backend, statement.query, asyncio.get_running_loop())
        return UnloadTask(statement, source, backend, record, self)

    def close(self) -> None:
        """Take no more work; what runs sees that its session is over."""
        self.threads.shutdown(wait=False, cancel_futures=True)


@dataclass(frozen=True)
class UnloadTask:
    """One UNLOAD in its session."""

    statement: UnloadStatement
    source: SessionSource
    backend: Backend
    record: QueryRecord
    unloader: Unloader

    async def run(self) -> UnloadOutcome:
        """Execute and set the session's count. Raises WarehouseError."""
        environment = self.unloader.environment
        if environment is None:
            raise WarehouseError("XX000", "UNLOAD has no S3 to write to: the warehouse was started without one")
        loop = asyncio.get_running_loop()
        self._show()
        environment = replace(environment, progress=lambda *totals: loop.call_soon_threadsafe(self._advance, *totals))
        timeout_ms = int((await self.backend.rows(_TIMEOUT))[0][0] or 0)
        alarm = loop.call_later(timeout_ms / 1000, self.stop, TIMED_OUT) if timeout_ms else None
        work = loop.run_in_executor(self.unloader.threads, execute_unload, self.statement, self.source, environment)
        try:
            outcome = await asyncio.shield(work)
        except WarehouseError as error:
            # The back-end only knows that it was cancelled; the source knows why.
            raise self.source.reason() if error.sqlstate == "57014" and self.source.cancelled() else error from None
        except Exception as error:
            logger.exception("UNLOAD failed in a way that is not Redshift's")
            raise WarehouseError("XX000", f"internal error: {type(error).__name__}: {error}") from error
        finally:
            if alarm is not None:
                alarm.cancel()
            self.unloader.log.progress(self.record)
        self._finished(outcome)
        await self.backend.rows(f"SELECT set_config('redshift.last_unload_count', '{outcome.rows}', false)")
        return outcome

    def stop(self, reason: str) -> None:
        """End it from the event loop: the worker is told, the query is cancelled."""
        self.source.stop(reason)
        task = asyncio.ensure_future(self.backend.cancel())
        _background.add(task)
        task.add_done_callback(_background.discard)

    def _show(self) -> None:
        names = {"text": "Text", "csv": "CSV", "json": "JSON", "parquet": "Parquet"}
        statement = self.statement
        self.record.unload = UnloadProgress(
            statement.prefix, names[statement.format], (statement.compression or "none").upper()
        )
        self.unloader.log.progress(self.record)

    def _advance(self, rows: int, size: int, files: int) -> None:
        progress = self.record.unload
        if progress is not None and self.record.status == "running":
            progress.rows, progress.bytes, progress.files = rows, size, files
            self.unloader.log.progress(self.record)

    def _finished(self, outcome: UnloadOutcome) -> None:
        self._advance(outcome.rows, outcome.bytes, outcome.files)
        if self.record.unload is not None:
            self.record.unload.parts = [(part.url, part.rows, part.bytes) for part in outcome.parts]


_background: "set[asyncio.Future[None]]" = set()  # the loop keeps weak references only
