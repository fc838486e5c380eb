"""How a request's attempt ends: each end one transaction of ledger and outbox, and what it means for the files.

Also the pure decisions: what an error is called, whether another attempt may help, what to do about a lost one.
"""

import logging
import random
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from data_platform.clients import redshift
from data_platform.clients.classify import classify
from data_platform.clients.retry import RETRIED
from data_platform.errors import PlatformError
from data_platform.settings import Settings
from data_platform.unload.events import request_event
from data_platform.unload.execution import UnloadResult, UnloadTarget, remove_attempt
from data_platform.unload.manifest import MANIFEST_NAME, ProofError
from data_platform.unload.warehouse import Statement

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from sqlalchemy import Engine

    from data_platform.ledger.unload_claims import Claim
    from data_platform.ledger.unload_requests import UnloadRequest

log = logging.getLogger(__name__)

RETENTION = timedelta(days=7)  # as the lifecycle rule TemporaryFiles of the unload bucket
BACKOFF_BASE_S, BACKOFF_CAP_S = 1.0, 30.0
MESSAGE_LENGTH = 2000


class Stop(StrEnum):
    """Why a worker's own statement is being cancelled."""

    CANCEL = "CANCELLED"
    ROW_CAP = "ROW_CAP"
    BYTE_CAP = "BYTE_CAP"
    LOST = "LOST"  # another worker has the request
    SHUTDOWN = "SHUTDOWN"


class CapError(PlatformError):
    """The result is larger than a request may be."""

    def __init__(self, stop: Stop, message: str) -> None:
        super().__init__(message, hint="unload less, or ask for a higher cap")
        self.stop = stop


@dataclass(frozen=True)
class Failure:
    """Why an attempt failed, as callers see it; `passing` when another attempt may succeed."""

    code: str
    message: str
    passing: bool


class Verdict(StrEnum):
    """What to do about an attempt whose worker is gone."""

    ADOPT = "adopt"  # it has ended well: prove it
    WAIT = "wait"  # it still runs: look again
    STOP = "stop"  # it still runs and is not wanted any more
    CANCEL = "cancel"
    AGAIN = "again"


def verdict(statement: Statement | None, *, cancelled: bool, overdue: bool = False) -> Verdict:
    """What the warehouse's word means for a lost attempt.

    One that is `overdue` is not believed to run: its time-out has passed, the views show what a crash left in them.
    """
    if statement is not None and statement.running and not overdue:
        return Verdict.STOP if cancelled else Verdict.WAIT
    if cancelled:
        return Verdict.CANCEL
    return Verdict.ADOPT if statement is not None and statement.completed else Verdict.AGAIN


def failure_of(error: BaseException) -> Failure:
    """The failure an exception means; the warehouse's own words where it has spoken."""
    from sqlalchemy.exc import SQLAlchemyError

    if isinstance(error, CapError):
        return Failure(error.stop.value, error.message, passing=False)
    passing = classify(error) in RETRIED
    if isinstance(error, ProofError):
        return Failure("PROOF", error.message[:MESSAGE_LENGTH], passing=False)
    if isinstance(error, PlatformError):
        return Failure(error.fault.value.upper(), error.message[:MESSAGE_LENGTH], passing)
    if isinstance(error, SQLAlchemyError):
        # Ours, not the caller's: the driver's first line, without the statement that SQLAlchemy adds.
        return Failure("LEDGER", str(getattr(error, "orig", None) or error).split("\n", 1)[0][:MESSAGE_LENGTH], passing)
    state, message = redshift.describe(error)
    if state == "57014":
        return Failure("TIMEOUT", f"the query was ended by the warehouse: {message}"[:MESSAGE_LENGTH], passing=False)
    return Failure(state or type(error).__name__, message[:MESSAGE_LENGTH], passing)


def backoff(attempt: int) -> timedelta:
    """The wait before the attempt after `attempt`: exponential with full jitter."""
    most = min(BACKOFF_BASE_S * 2**attempt, BACKOFF_CAP_S)
    return timedelta(seconds=random.uniform(0.1, most))  # noqa: S311 - spread, not secrecy


def done(settings: Settings, ledger: "Engine", claim: "Claim", result: UnloadResult) -> "UnloadRequest":
    """DONE with its event. Raises LostClaimError, and the database's errors."""
    from data_platform.ledger import outbox, unload_claims

    files: list[dict[str, Any]] = [{"key": file.key, "bytes": file.bytes, "rows": file.rows} for file in result.files]
    with ledger.begin() as connection:
        request = unload_claims.finish(
            connection,
            claim,
            rows=result.rows,
            size=result.bytes,
            files=files,
            manifest_url=f"{result.target.url}{MANIFEST_NAME}" if files else None,
            query_id=None if result.query_id is None else str(result.query_id),
            retention=RETENTION,
        )
        outbox.add(connection, request_event(settings, request))
    return request


def failed(settings: Settings, ledger: "Engine", claim: "Claim", failure: Failure) -> "UnloadRequest | None":
    """Another attempt later, where that may help and one is left (None); otherwise FAILED with its event."""
    from data_platform.ledger import outbox, unload_claims

    with ledger.begin() as connection:
        if failure.passing and claim.attempts_left > 0:
            unload_claims.try_again(
                connection, claim, code=failure.code, message=failure.message, after=backoff(claim.attempt)
            )
            return None
        request = unload_claims.fail(connection, claim, code=failure.code, message=failure.message)
        outbox.add(connection, request_event(settings, request))
    return request


def cancelled(settings: Settings, ledger: "Engine", claim: "Claim") -> "UnloadRequest":
    """CANCELLED with its event."""
    from data_platform.ledger import outbox, unload_claims

    with ledger.begin() as connection:
        request = unload_claims.cancelled(connection, claim)
        outbox.add(connection, request_event(settings, request))
    return request


def clean(ledger: "Engine", s3: "S3Client", target: UnloadTarget) -> None:
    """Remove what an attempt wrote that did not win. What fails here is done by the reconciler's next sweep."""
    from botocore.exceptions import BotoCoreError, ClientError
    from sqlalchemy.exc import SQLAlchemyError

    from data_platform.ledger import unload_attempts

    try:
        remove_attempt(s3, target)
        with ledger.begin() as connection:
            unload_attempts.cleaned(connection, target.request_id, int(target.attempt))
    except (PlatformError, BotoCoreError, ClientError, SQLAlchemyError) as error:
        log.warning("files under %s are removed later: %s", target.url, type(error).__name__)


def handed_back(ledger: "Engine", claim: "Claim") -> None:
    """The worker ends: the next one begins a new attempt at once, and this one does not count."""
    from data_platform.ledger import unload_claims

    with ledger.begin() as connection:
        unload_claims.try_again(
            connection, claim, code=Stop.SHUTDOWN.value, message="the worker was ended", after=timedelta(0), free=True
        )
