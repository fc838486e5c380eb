"""Resolves what dead workers left: the warehouse and S3 are asked before anything is decided.

A finished attempt is proven and adopted, a running one is waited for, a lost one is stopped, its files are removed and
the next attempt follows. Many reconcilers may run: each takes the lease first.
"""

import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from data_platform.clients import redshift
from data_platform.settings import Settings
from data_platform.unload import outcome, warehouse
from data_platform.unload.execution import UnloadResult, UnloadTarget, prove_target, target_of
from data_platform.unload.manifest import ProofError
from data_platform.unload.outcome import Verdict
from data_platform.unload.statement import UnloadOptions
from data_platform.unload.workers import process_name

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from sqlalchemy import Engine

    from data_platform.ledger.unload_claims import Claim
    from data_platform.ledger.unload_requests import UnloadRequest

log = logging.getLogger(__name__)

EVERY_S = 2.0
SWEEP_AFTER = timedelta(seconds=15)  # the worker that ended the attempt removes its files itself, if it lives
OVERDUE_AFTER = timedelta(minutes=10)  # after the longest query: sessions and clocks have their margins
LOST = outcome.Failure("WORKER_LOST", "the worker was lost while it unloaded", passing=True)


class Reconciler:
    """A thread that looks for RUNNING requests whose lease is over."""

    def __init__(
        self,
        settings: Settings,
        ledger: "Engine",
        s3: "S3Client",
        *,
        on_final: Callable[["UnloadRequest"], None] | None = None,
    ) -> None:
        from data_platform.ledger.unload_claims import RECONCILER

        self.owner = f"{RECONCILER}{process_name()}"
        # Long enough for one look at warehouse and S3; a reconciler that dies is itself reconciled after it.
        self.lease = timedelta(seconds=settings.unload_lease_s)
        self._settings = settings
        self._ledger = ledger
        self._s3 = s3
        self._on_final = on_final
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="unload-reconcile", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End after the request at hand."""
        self._ending.set()
        if self._thread.is_alive():
            self._thread.join(5)

    def told(self, request_id: str, attempt: int) -> bool:
        """The manifest of an attempt was written: decide about it now if its worker has left it.

        False when the warehouse has not ended the statement yet. Raises what ledger, warehouse or S3 raise.
        """
        from data_platform.ledger import unload_claims

        with self._ledger.begin() as connection:
            claim = unload_claims.take_over(connection, self.owner, self.lease, only=(request_id, attempt))
        return claim is None or self.resolve(claim) is not Verdict.WAIT

    def look(self) -> int:
        """Resolve everything that is stale now, expire what is due; how many requests were looked at."""
        from data_platform.ledger import unload_attempts, unload_claims, unload_requests

        looked = 0
        while not self._ending.is_set():
            with self._ledger.begin() as connection:
                claim = unload_claims.take_over(connection, self.owner, self.lease)
            if claim is None:
                break
            looked += 1
            self.resolve(claim)
        with self._ledger.begin() as connection:
            unload_requests.expire(connection, self.owner)
            left = unload_attempts.uncleaned(connection, SWEEP_AFTER)
        for attempt in left:
            outcome.clean(self._ledger, self._s3, target_of(self._settings, attempt.request_id, attempt.attempt))
        return looked

    def resolve(self, claim: "Claim") -> Verdict:
        """Decide about one attempt whose lease this reconciler holds. Raises what warehouse or S3 raise."""
        from data_platform.ledger import unload_claims

        target = target_of(self._settings, claim.request_id, claim.attempt)
        with redshift.connect(self._settings) as session:
            statement = warehouse.statement_of(session, target.url)
            cancelled = claim.request.cancel_requested_at is not None
            decided = outcome.verdict(statement, cancelled=cancelled, overdue=self._overdue(claim))
            if statement is not None and statement.running and decided is not Verdict.WAIT:
                warehouse.stop(session, statement.pid)
        log.warning("%s attempt %d was left by its worker: %s", claim.request_id, claim.attempt, decided.value)
        try:
            if decided is Verdict.ADOPT and statement is not None:
                self._adopt(claim, target, statement)
            elif decided is Verdict.CANCEL:
                self._final(outcome.cancelled(self._settings, self._ledger, claim))
                outcome.clean(self._ledger, self._s3, target)
            elif decided is Verdict.AGAIN:
                self._final(outcome.failed(self._settings, self._ledger, claim, LOST))
                outcome.clean(self._ledger, self._s3, target)
        except unload_claims.LostClaimError as error:
            log.warning("%s", error.message)
        return decided

    def _overdue(self, claim: "Claim") -> bool:
        """Whether the attempt began before anything that still runs can have begun."""
        from data_platform.ledger import unload_attempts

        with self._ledger.connect() as connection:
            attempt = unload_attempts.get(connection, claim.request_id, claim.attempt)
        longest = timedelta(seconds=self._settings.unload_max_seconds) + OVERDUE_AFTER
        return attempt is not None and datetime.now(UTC) - attempt.started_at > longest

    def _adopt(self, claim: "Claim", target: UnloadTarget, statement: warehouse.Statement) -> None:
        options = UnloadOptions.model_validate(dict(claim.request.options))
        rows = statement.rows or 0
        try:
            files = prove_target(self._s3, target, count=rows, header=options.header)
        except ProofError as error:
            self._final(outcome.failed(self._settings, self._ledger, claim, outcome.failure_of(error)))
            outcome.clean(self._ledger, self._s3, target)
            return
        size = sum(file.bytes for file in files)
        result = UnloadResult(target, files, rows, size, 0.0, statement.query_id)
        self._final(outcome.done(self._settings, self._ledger, claim, result))

    def _final(self, request: "UnloadRequest | None") -> None:
        if request is not None and self._on_final is not None:
            self._on_final(request)

    def _run(self) -> None:
        while not self._ending.wait(EVERY_S):
            try:
                self.look()
            except Exception as error:  # noqa: BLE001 - database, warehouse or S3 are away: the next round looks again
                log.warning("reconciling failed, it is tried again: %s", type(error).__name__)
