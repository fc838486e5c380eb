"""Workers: claim a request, run its attempt, end it. One thread each; watching.py keeps their leases, stops queries.

What a killed worker leaves is in the ledger, and reconcile.py resolves it.
"""

import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar
from uuid import uuid4

from data_platform.clients import postgres, redshift
from data_platform.clients.retry import retrying
from data_platform.errors import PlatformError
from data_platform.settings import Settings
from data_platform.unload import outcome, warehouse
from data_platform.unload.execution import bucket_prefix, run_attempt, target_of
from data_platform.unload.outcome import CapError, Stop
from data_platform.unload.statement import UnloadOptions
from data_platform.unload.watching import Running, Watcher, one_line

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from sqlalchemy import Engine

    from data_platform.ledger.unload_claims import Claim
    from data_platform.ledger.unload_requests import UnloadRequest

log = logging.getLogger(__name__)
T = TypeVar("T")

POLL_S = 1.0
# An outcome that cannot be written for so long is left to the reconciler, which finds it in the warehouse's views.
LEDGER_ATTEMPTS = 6


class StoppedError(PlatformError):
    """The attempt was told to stop before its statement was sent."""


def process_name() -> str:
    """Who holds the leases of this process; new with every start, so that a restart never inherits one."""
    return f"{socket.gethostname()}/{os.getpid()}/{uuid4().hex[:8]}"


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
        self._wake = threading.Event()
        self._ending = threading.Event()
        self._threads = [threading.Thread(target=self._work, name=f"unload-{n}", daemon=True) for n in range(count)]
        self._watcher = Watcher(settings, ledger, self.owner, self.lease)

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
        self._watcher.stop_all(Stop.SHUTDOWN)
        for thread in self._threads:
            thread.join(5)
        self._watcher.stop()

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
                log.warning("a worker could not go on, it tries again: %s: %s", type(error).__name__, one_line(error))
                self._ending.wait(POLL_S)
                continue
            if claimed is None:
                self._wake.wait(POLL_S)
                self._wake.clear()

    def _run(self, claim: "Claim") -> None:
        running = Running(claim)
        self._watcher.add(running)
        try:
            self._attempt(running)
        finally:
            self._watcher.remove(running)

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
        stop = self._watcher.over_cap(rows, size)
        if stop is not None:
            raise CapError(*stop)

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
