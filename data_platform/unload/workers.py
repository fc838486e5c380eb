"""Workers: claim a request, run its attempt, end it. One thread each; a watcher keeps their leases and stops queries.

What a killed worker leaves is in the ledger, and reconcile.py resolves it.
"""

import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar
from uuid import uuid4

from data_platform.clients import postgres, redshift
from data_platform.clients.classify import classify
from data_platform.clients.retry import RETRIED, retrying
from data_platform.errors import PlatformError
from data_platform.settings import Settings
from data_platform.unload import outcome, warehouse
from data_platform.unload.execution import RESULTS_PREFIX, UnloadTarget, run_attempt
from data_platform.unload.outcome import CapError, Stop
from data_platform.unload.statement import UnloadOptions

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from redshift_connector import Connection
    from sqlalchemy import Engine

    from data_platform.ledger.unload_claims import Claim
    from data_platform.ledger.unload_requests import UnloadRequest

log = logging.getLogger(__name__)
T = TypeVar("T")

POLL_S = 1.0
WATCH_S = 0.5
CAPS_EVERY_S = 2.0
# An outcome that cannot be written for so long is left to the reconciler, which finds it in the warehouse's views.
LEDGER_ATTEMPTS = 6


class StoppedError(PlatformError):
    """The attempt was told to stop before its statement was sent."""


@dataclass
class Running:
    """An attempt this process runs. `key` is there once its session is."""

    claim: "Claim"
    key: redshift.CancelKey | None = None
    stop: Stop | None = None
    message: str = ""


def process_name() -> str:
    """Who holds the leases of this process; new with every start, so that a restart never inherits one."""
    return f"{socket.gethostname()}/{os.getpid()}/{uuid4().hex[:8]}"


def target_of(settings: Settings, request_id: str, attempt: int) -> UnloadTarget:
    """Where an attempt writes."""
    return UnloadTarget(settings.unload_bucket, request_id, str(attempt))


def bucket_prefix(settings: Settings) -> str:
    """`s3://bucket/unload-results/`."""
    return f"s3://{settings.unload_bucket}/{RESULTS_PREFIX}/"


class Workers:
    """`count` workers and their watcher. `on_final` is told of requests that came to an end here."""

    def __init__(
        self,
        settings: Settings,
        ledger: "Engine",
        s3: "S3Client",
        *,
        count: int = 2,
        on_final: Callable[["UnloadRequest"], None] | None = None,
        run_id: str | None = None,
    ) -> None:
        self.owner = process_name()
        self.lease = timedelta(seconds=settings.unload_lease_s)
        self._settings = settings
        self._ledger = ledger
        self._s3 = s3
        self._on_final = on_final
        self._run_id = run_id
        self._running: dict[tuple[str, int], Running] = {}
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._ending = threading.Event()
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._work, name=f"unload-{n}", daemon=True) for n in range(count)]
        self._watcher = threading.Thread(target=self._watch, name="unload-watch", daemon=True)

    def start(self) -> None:
        """Begin to claim."""
        self._watcher.start()
        for thread in self._threads:
            thread.start()

    def wake(self) -> None:
        """There is something to claim."""
        self._wake.set()

    def stop(self, grace_s: float) -> None:
        """Claim nothing more; what does not end within the grace is stopped and handed back."""
        self._ending.set()
        self._wake.set()
        deadline = time.monotonic() + grace_s
        for thread in self._threads:
            thread.join(max(deadline - time.monotonic(), 0))
        with self._lock:
            for running in self._running.values():
                running.stop = running.stop or Stop.SHUTDOWN
        for thread in self._threads:
            thread.join(5)
        self._ended.set()
        self._watcher.join(5)

    def run_one(self, request_id: str | None = None, *, unclaimed_for: timedelta | None = None) -> "Claim | None":
        """Claim the next request (or this one) and run one attempt of it; None when there was none to claim.

        Needs the watcher: call `start` with `count=0` first.
        """
        from data_platform.ledger import unload_claims

        with self._ledger.begin() as connection:
            claim = unload_claims.claim(
                connection,
                self.owner,
                self.lease,
                bucket_prefix(self._settings),
                request_id=request_id,
                unclaimed_for=unclaimed_for,
                run_id=self._run_id,
            )
        if claim is not None:
            self._run(claim)
        return claim

    def find(self, request_id: str) -> "UnloadRequest | None":
        """The request as it stands."""
        from data_platform.ledger import unload_requests

        with self._ledger.connect() as connection:
            return unload_requests.get(connection, request_id)

    def _work(self) -> None:
        while not self._ending.is_set():
            try:
                claimed = self.run_one()
            except Exception as error:  # noqa: BLE001 - a worker that ends is a platform that stands still
                log.warning("a worker could not go on, it tries again: %s: %s", type(error).__name__, _short(error))
                self._ending.wait(POLL_S)
                continue
            if claimed is None:
                self._wake.wait(POLL_S)
                self._wake.clear()

    def _run(self, claim: "Claim") -> None:
        running = Running(claim)
        number = (claim.request_id, claim.attempt)
        with self._lock:
            self._running[number] = running
        try:
            self._attempt(running)
        finally:
            with self._lock:
                self._running.pop(number, None)

    def _attempt(self, running: Running) -> None:
        from data_platform.ledger.unload_claims import LostClaimError

        claim = running.claim
        target = target_of(self._settings, claim.request_id, claim.attempt)
        try:
            try:
                result = run_attempt(
                    warehouse.of_unload(self._settings),
                    self._s3,
                    sql=claim.request.sql,
                    target=target,
                    options=UnloadOptions.model_validate(dict(claim.request.options)),
                    on_session=lambda key: self._session(running, key),
                    remove=False,
                )
                self._check_caps(result.rows, result.bytes)
            except Exception as error:  # noqa: BLE001 - whatever it was, the request ends with it in the ledger
                self._not_done(running, error)
                outcome.clean(self._ledger, self._s3, target)
                return
            self._final(self._write(lambda: outcome.done(self._settings, self._ledger, claim, result)))
        except LostClaimError as error:
            # The files are the reconciler's now: it has adopted them, or removes them.
            log.warning("%s", error.message)

    def _session(self, running: Running, key: redshift.CancelKey) -> None:
        from data_platform.ledger import unload_claims

        with self._ledger.begin() as connection:
            unload_claims.started(connection, running.claim, key.pid)
        running.key = key
        if running.stop is not None:
            raise StoppedError("stopped before the statement was sent")

    def _check_caps(self, rows: int, size: int) -> None:
        stop = self._over_cap(rows, size)
        if stop is not None:
            raise CapError(*stop)

    def _over_cap(self, rows: int, size: int) -> tuple[Stop, str] | None:
        if rows > self._settings.unload_max_rows:
            return Stop.ROW_CAP, f"more than {self._settings.unload_max_rows} rows"
        if size > self._settings.unload_max_mb * 2**20:
            return Stop.BYTE_CAP, f"more than {self._settings.unload_max_mb} MiB"
        return None

    def _not_done(self, running: Running, error: Exception) -> None:
        """End the attempt in the ledger as the reason asks."""
        claim = running.claim
        if running.stop is Stop.CANCEL:
            self._final(self._write(lambda: outcome.cancelled(self._settings, self._ledger, claim)))
            return
        if running.stop is Stop.SHUTDOWN:
            self._write(lambda: outcome.handed_back(self._ledger, claim))
            return
        failure = outcome.failure_of(error)
        if running.stop is Stop.ROW_CAP or running.stop is Stop.BYTE_CAP:
            failure = outcome.Failure(running.stop.value, f"cancelled: {running.message}", passing=False)
        log.warning("%s attempt %d failed: %s %s", claim.request_id, claim.attempt, failure.code, failure.message)
        self._final(self._write(lambda: outcome.failed(self._settings, self._ledger, claim, failure)))

    def _write(self, call: Callable[[], T]) -> T:
        return retrying(call, postgres.classify, attempts=LEDGER_ATTEMPTS, base_s=0.3, cap_s=5)

    def _final(self, request: "UnloadRequest | None") -> None:
        if request is not None and self._on_final is not None:
            self._on_final(request)

    # -- watching -----------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        caps_at = 0.0
        session: Connection | None = None
        while not self._ended.wait(WATCH_S):
            with self._lock:
                running = dict(self._running)
            if not running:
                continue
            try:
                self._beat(running)
            except Exception as error:  # noqa: BLE001 - the database may be away; leases outlast a short absence
                log.warning("leases could not be renewed: %s", _short(error))
            self._cancel_stopped(running)
            if time.monotonic() >= caps_at:
                caps_at = time.monotonic() + CAPS_EVERY_S
                session = self._watch_caps(running, session)
        if session is not None:
            with suppress(Exception):
                session.close()

    def _beat(self, running: dict[tuple[str, int], Running]) -> None:
        from data_platform.ledger import unload_claims

        with self._ledger.begin() as connection:
            held = unload_claims.beat(connection, self.owner, self.lease)
        for number, each in running.items():
            if number not in held:
                with self._lock:
                    still = self._running.get(number) is each
                each.stop = each.stop or (Stop.LOST if still else None)
            elif held[number]:
                each.stop = each.stop or Stop.CANCEL

    def _cancel_stopped(self, running: dict[tuple[str, int], Running]) -> None:
        for each in running.values():
            if each.stop is not None and each.key is not None:
                # Every round until it has ended: a cancel that comes between two statements is lost.
                with suppress(OSError):
                    redshift.cancel(each.key)

    def _watch_caps(self, running: dict[tuple[str, int], Running], session: "Connection | None") -> "Connection | None":
        """Read the totals, write them down as progress, stop what is over a cap."""
        from data_platform.ledger import unload_claims

        try:
            session = session or redshift.connect(self._settings)
            totals = warehouse.running_totals(session)
        except Exception as error:  # noqa: BLE001 - the views are looked at again; an end is checked in any case
            log.info("the unload views cannot be read: %s", _short(error))
            if session is not None:
                with suppress(Exception):
                    session.close()
            return None
        seen: dict[tuple[str, int], tuple[int, int, str]] = {}
        for number, each in running.items():
            found = totals.get(target_of(self._settings, *number).url)
            if found is None:
                continue
            seen[number] = (found.rows, found.bytes, str(found.query_id))
            over = self._over_cap(found.rows, found.bytes)
            if over is not None and each.stop is None:
                each.message = over[1]
                each.stop = over[0]
        if seen:
            try:
                with self._ledger.begin() as connection:
                    unload_claims.progress(connection, seen)
            except Exception as error:  # noqa: BLE001 - progress is a service; the outcome is written by the worker
                log.info("progress was not written: %s", _short(error))
        return session


def _short(error: BaseException) -> str:
    """One line; SQL and parameters of a driver's message stay out of the log."""
    return (str(getattr(error, "orig", None) or error).splitlines() or [type(error).__name__])[0][:300]


def passes(error: BaseException) -> bool:
    """Whether the same call may succeed later."""
    return classify(error) in RETRIED
