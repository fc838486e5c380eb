"""Athena: queries started once, waited for, stopped when nobody waits any more, paid for once; its errors classified.

A query is identified by its token: who asks again with the same statement, in this process or after a crash, gets the
execution there is. What is asked, and where its rows go, is decided by the caller.
"""

import hashlib
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from data_platform.clients import aws
from data_platform.clients.retry import RETRIED, retrying
from data_platform.errors import Fault, PlatformError
from data_platform.settings import Settings

if TYPE_CHECKING:
    from botocore.exceptions import ClientError

POLL_FIRST_S, POLL_LONGEST_S = 0.05, 5.0
ATTEMPTS = 3
MOST_ATTEMPTS = 50  # of one token's family, with those that failed in earlier runs
STATEMENT_BYTES = 262_144  # Athena's limit
MINIMUM_BYTES = 10 * 1000**2  # what a query that scans anything is charged for at least
TB = 1000**4
FINAL = frozenset({"SUCCEEDED", "FAILED", "CANCELLED"})
RESULTS = "athena/results/"  # below the output location

# What Athena says in the reason of a failed query, and what may be done about it; the first that fits counts.
_REASONS: tuple[tuple[re.Pattern[str], Fault, str | None], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), fault, hint)
    for pattern, fault, hint in (
        (
            r"exhausted resources at this scale factor",
            Fault.PERMANENT,
            "are the year/month/day and MIN_DATA_DATE filters there? Ask for fewer days at once",
        ),
        (
            r"ConcurrentExecutionLimitExceeded|TooManyRequests|exceeded the limit for the number of queries",
            Fault.THROTTLED,
            "wait in the pool; who else is querying? DATA_PLATFORM_ATHENA_CONCURRENCY limits this process",
        ),
        (r"SlowDown|Throttl|Rate exceeded|reduce your request rate", Fault.THROTTLED, None),
        (
            r"Bytes scanned limit was exceeded",
            Fault.CONFIGURATION,
            "the workgroup's limit of bytes a query stopped it; raise the limit or ask for fewer days",
        ),
        (
            r"Access ?Denied|not authorized|PermissionDenied|NoSuchBucket|ICEBERG_FILESYSTEM",
            Fault.CONFIGURATION,
            "the role that queries needs athena:*, glue:Get*, and S3 rights on the curated bucket and the output",
        ),
        (
            r"(SCHEMA|TABLE|DATABASE)_NOT_FOUND|does not exist|EntityNotFound",
            Fault.CONFIGURATION,
            "data-platform provision makes the Glue database and tables",
        ),
        # What a crashed attempt wrote lies in the way; the next one writes elsewhere.
        (r"HIVE_PATH_ALREADY_EXISTS|TABLE_ALREADY_EXISTS|already exists", Fault.TRANSIENT, None),
        (r"SYNTAX_ERROR|TYPE_MISMATCH|COLUMN_NOT_FOUND|FUNCTION_NOT_FOUND|NOT_SUPPORTED|HIVE_BAD_DATA|DIVISION_BY_ZERO",
         Fault.PERMANENT, None),
        (r"HIVE_CURSOR_ERROR|HIVE_CANNOT_OPEN_SPLIT|HIVE_FILESYSTEM_ERROR|HIVE_WRITER_CLOSE_ERROR", Fault.TRANSIENT,
         None),
        (r"INTERNAL_ERROR|Internal ?(server )?error|timed? ?out|ServiceUnavailable", Fault.TRANSIENT, None),
    )
)  # fmt: skip
# Errors of the calls themselves, beyond those every AWS service has.
_CODES: Mapping[str, Fault] = {
    "TooManyRequestsException": Fault.THROTTLED,
    "ConcurrentExecutionLimitExceeded": Fault.THROTTLED,
    "InternalServerException": Fault.TRANSIENT,
    "MetadataException": Fault.CONFIGURATION,
    "EntityNotFoundException": Fault.CONFIGURATION,
}


class AthenaQueryError(PlatformError):
    """A query that failed or was stopped; `execution_id` finds it in Athena's history."""

    def __init__(self, message: str, *, execution_id: str, hint: str | None = None, fault: Fault) -> None:
        super().__init__(message, hint=hint, fault=fault)
        self.execution_id = execution_id


class AthenaTimeoutError(AthenaQueryError):
    """A query that took longer than it may; it has been stopped."""


class QueryStoppedError(AthenaQueryError):
    """The work was called off; the query has been stopped."""


@dataclass(frozen=True)
class Execution:
    """A query as Athena tells it: bytes scanned, seconds the engine took, when it was submitted, why it failed."""

    id: str
    state: str
    submitted_at: datetime
    bytes_scanned: int
    seconds: float
    reason: str = ""
    category: int | None = None  # 1: Athena's own, 2: the query's, 3: other
    retryable: bool = False
    output: str = ""


@dataclass
class Meter:
    """What the queries of one piece of work came to; thread-safe. An execution counts once, however often it is met."""

    usd_per_tb: float
    throttled: int = 0  # starts that Athena put off
    _seen: dict[str, Execution] = field(default_factory=dict[str, Execution])
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, execution: Execution) -> None:
        """Take the figures of a finished execution."""
        with self._lock:
            self._seen[execution.id] = execution

    def note_answer(self, parsed_response: Mapping[str, Any] | None = None, **_: Any) -> None:
        """Count a start that was put off; told of every answer, since botocore repeats the first of them by itself."""
        code = str((parsed_response or {}).get("Error", {}).get("Code", ""))
        if code in aws.THROTTLING_CODES or _CODES.get(code) is Fault.THROTTLED:
            with self._lock:
                self.throttled += 1

    @property
    def executions(self) -> list[Execution]:
        """The finished executions, oldest first."""
        with self._lock:
            return sorted(self._seen.values(), key=lambda each: each.submitted_at)

    @property
    def bytes_scanned(self) -> int:
        """Bytes all of them scanned."""
        return sum(each.bytes_scanned for each in self.executions)

    @property
    def usd(self) -> float:
        """What they cost; a query that scanned anything is charged for 10 MB at least."""
        return sum(cost_usd(each.bytes_scanned, self.usd_per_tb) for each in self.executions)


def cost_usd(bytes_scanned: int, usd_per_tb: float) -> float:
    """The price of one query in US dollars."""
    return max(bytes_scanned, MINIMUM_BYTES) / TB * usd_per_tb if bytes_scanned else 0.0


def output_location(settings: Settings) -> str:
    """`s3://bucket[/prefix]` below which results and tables go, without a closing slash."""
    return (settings.athena_output or f"s3://{settings.curated_bucket}").rstrip("/")


class Athena:
    """Queries of one workgroup and database, at most `concurrency` at once; shared by threads.

    `cancel` stops what runs: every thread that waits stops its query and raises QueryStoppedError.
    """

    def __init__(
        self, settings: Settings, *, meter: Meter | None = None, cancel: threading.Event | None = None
    ) -> None:
        self.database = settings.athena_database
        self.workgroup = settings.athena_workgroup
        self.output = output_location(settings)
        self.meter = meter or Meter(settings.athena_usd_per_tb)
        self.cancel = cancel or threading.Event()
        self._timeout_s = float(settings.athena_timeout_s)
        self._slots = threading.BoundedSemaphore(settings.athena_concurrency)
        self._client: Any = aws.client(settings, "athena", pool=settings.athena_concurrency + 2)
        self._client.meta.events.register("response-received.athena.StartQueryExecution", self.meter.note_answer)
        self._began = datetime.now(UTC)

    def run(self, make: Callable[[int], str], key: str, *, timeout_s: float | None = None) -> Execution:
        """Run the statement `make(attempt)` to its end, once for every `key`; what may be retried, 3 times.

        An attempt has a token of its own, so its statement must name an output prefix of its own. Who calls again with
        the same key and statement gets the execution that succeeded, running or not. Attempts that failed before this
        client was made are passed over and not counted. Raises AthenaQueryError, AthenaTimeoutError, QueryStoppedError.
        """
        failures = 0
        for attempt in range(MOST_ATTEMPTS):
            sql = make(attempt)
            with self._slots:
                execution_id = self.start(sql, f"{key}#{attempt}")
                try:
                    execution = self.wait(execution_id, timeout_s=timeout_s)
                except AthenaQueryError as error:
                    old = self.get(execution_id).submitted_at < self._began
                    failures += not old
                    stopped = isinstance(error, QueryStoppedError)
                    if stopped or (not old and (error.fault not in RETRIED or failures >= ATTEMPTS)):
                        raise
                    if not old:
                        self.cancel.wait(min(2.0**failures, 20.0))
                    continue
            return execution
        raise PlatformError(
            f"Athena: {MOST_ATTEMPTS} attempts at one statement have failed",
            hint="the workgroup's recent queries in the Athena console show them with their reasons",
        )

    def start(self, sql: str, key: str) -> str:
        """Start a query, or find the one that was started with the same key and statement; returns its id."""
        if len(sql.encode()) > STATEMENT_BYTES:
            raise PlatformError(
                f"a statement of {len(sql.encode()):,} bytes is longer than Athena takes ({STATEMENT_BYTES:,})",
                hint="ask for fewer days at once",
            )
        request = {
            "QueryString": sql,
            "ClientRequestToken": token_of(key, sql),
            "QueryExecutionContext": {"Database": self.database},
            "ResultConfiguration": {"OutputLocation": f"{self.output}/{RESULTS}"},
            "WorkGroup": self.workgroup,
        }
        # The token makes a repeated start harmless, so a lost answer is repeated too.
        answer = retrying(lambda: self._client.start_query_execution(**request), classify, attempts=6, cap_s=15.0)
        return str(answer["QueryExecutionId"])

    def wait(self, execution_id: str, *, timeout_s: float | None = None) -> Execution:
        """Wait for the end of a query; it is stopped on a time-out, when `cancel` is set and on any interrupt.

        Raises AthenaQueryError with the reason when it did not succeed.
        """
        limit_s = self._timeout_s if timeout_s is None else timeout_s
        deadline = time.monotonic() + limit_s
        pause = POLL_FIRST_S
        try:
            while (execution := self.get(execution_id)).state not in FINAL:
                if time.monotonic() > deadline:
                    self.stop(execution_id)
                    raise AthenaTimeoutError(
                        f"Athena query {execution_id} took longer than {limit_s:g} s and was stopped",
                        execution_id=execution_id,
                        hint="DATA_PLATFORM_ATHENA_TIMEOUT_S; are the year/month/day filters there?",
                        fault=Fault.TRANSIENT,
                    )
                if self.cancel.wait(pause):
                    self.stop(execution_id)
                    raise QueryStoppedError(
                        f"Athena query {execution_id} was stopped: the run was called off",
                        execution_id=execution_id,
                        fault=Fault.PERMANENT,
                    )
                pause = min(pause * 1.5, POLL_LONGEST_S)
        except Exception:  # dealt with above, or Athena cannot be reached: the token finds the query again
            raise
        except BaseException:  # Ctrl-C, and what ends a run of Dagster
            self.stop(execution_id)
            raise
        self.meter.add(execution)
        if execution.state != "SUCCEEDED":
            raise query_error(execution)
        return execution

    def get(self, execution_id: str) -> Execution:
        """The query as it is now."""
        answer = retrying(lambda: self._client.get_query_execution(QueryExecutionId=execution_id), classify, attempts=6)
        return execution_of(answer["QueryExecution"])

    def stop(self, execution_id: str) -> None:
        """Stop a query; one that has ended stays as it is."""
        retrying(lambda: self._client.stop_query_execution(QueryExecutionId=execution_id), classify, attempts=6)

    def rows(self, execution: Execution) -> Iterator[tuple[str | None, ...]]:
        """The rows of a SELECT as Athena writes them: text, None for null."""
        request: dict[str, Any] = {"QueryExecutionId": execution.id}
        first = True
        while True:
            answer = retrying(lambda: self._client.get_query_results(**request), classify, attempts=6)
            for row in answer["ResultSet"]["Rows"]:
                if first:  # the column names
                    first = False
                    continue
                yield tuple(cell.get("VarCharValue") for cell in row["Data"])
            if "NextToken" not in answer:
                return
            request["NextToken"] = answer["NextToken"]

    def enforced_output(self) -> str | None:
        """The output location the workgroup forces on every query and so overrides ours; None where it forces none."""
        answer = retrying(lambda: self._client.get_work_group(WorkGroup=self.workgroup), classify)
        configuration = answer["WorkGroup"].get("Configuration", {})
        if not configuration.get("EnforceWorkGroupConfiguration"):
            return None
        return configuration.get("ResultConfiguration", {}).get("OutputLocation")


def token_of(key: str, sql: str) -> str:
    """The client request token of a statement: 64 hexadecimal digits (Athena takes 32 to 128 characters)."""
    return hashlib.sha256(f"{key}\n{sql}".encode()).hexdigest()


def execution_of(described: Mapping[str, Any]) -> Execution:
    """An Execution from Athena's description."""
    status, statistics = described["Status"], described.get("Statistics", {})
    error = status.get("AthenaError", {})
    return Execution(
        id=str(described["QueryExecutionId"]),
        state=str(status["State"]),
        submitted_at=status["SubmissionDateTime"].astimezone(UTC),
        bytes_scanned=int(statistics.get("DataScannedInBytes", 0)),
        seconds=float(statistics.get("TotalExecutionTimeInMillis", 0)) / 1000,
        reason=str(status.get("StateChangeReason", "")),
        category=error.get("ErrorCategory"),
        retryable=bool(error.get("Retryable", False)),
        output=str(described.get("ResultConfiguration", {}).get("OutputLocation", "")),
    )


def query_error(execution: Execution) -> AthenaQueryError:
    """The error of an execution that did not succeed, with what a person can do about it."""
    fault, hint = fault_of(execution)
    verb = "was stopped" if execution.state == "CANCELLED" else "failed"
    reason = execution.reason or "no reason given"
    return AthenaQueryError(
        f"Athena query {execution.id} {verb}: {reason}", execution_id=execution.id, hint=hint, fault=fault
    )


def fault_of(execution: Execution) -> tuple[Fault, str | None]:
    """What may be done about a query that did not succeed, and the hint for a person."""
    for pattern, fault, hint in _REASONS:
        if pattern.search(execution.reason):
            return fault, hint
    if execution.state == "CANCELLED":  # by somebody else: the same statement would go on where they stopped it
        return Fault.PERMANENT, "somebody stopped it; run again if that was a mistake"
    if execution.retryable or execution.category == 1:
        return Fault.TRANSIENT, None
    return Fault.PERMANENT, None


def classify(error: BaseException) -> Fault:
    """What may be done about an error of a call to Athena or Glue."""
    from botocore.exceptions import ClientError

    if isinstance(error, PlatformError):
        return error.fault
    if isinstance(error, ClientError):
        known = _CODES.get(_code(error))
        if known is not None:
            return known
    return aws.classify(error)


def _code(error: "ClientError") -> str:
    return str(error.response.get("Error", {}).get("Code", ""))
