"""The queries of the embedded Athena: their states, their tokens, a few running at once, the rest queued."""

import json
import logging
import re
import threading
import time
import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from data_platform.local.aws.athena.errors import SYSTEM, QueryCancelled, QueryFailedError, RequestError
from data_platform.local.aws.athena.statement import Answer, Runner, Scope
from data_platform.local.faults import FaultBoard

logger = logging.getLogger(__name__)
MOST_ACTIVE = 25  # queued and running, as in a new account
RUNNING_AT_ONCE = 4
INTERRUPT_EVERY_S = 0.05
SELECTS = re.compile(r"\s*(\(|select|with|values)\b", re.IGNORECASE)
_CODE = re.compile(r"\b(DIVISION_BY_ZERO|INVALID_FUNCTION_ARGUMENT|INVALID_CAST_ARGUMENT): [^\n]*")


@dataclass
class Query:
    """One query execution."""

    id: str
    sql: str
    context: Mapping[str, Any]
    workgroup: str
    location: str  # of the results, with a closing slash
    parameters: list[str]
    scan_limit: int | None
    state: str = "QUEUED"
    submitted: float = field(default_factory=time.time)
    began: float | None = None
    ended: float | None = None
    reason: str | None = None
    category: int = SYSTEM
    retryable: bool = False
    answer: Answer = field(default_factory=Answer)
    stopped: threading.Event = field(default_factory=threading.Event)
    runner: Runner | None = None

    @property
    def database(self) -> str:
        """The database that names without one belong to."""
        return str(self.context.get("Database") or "default").strip('"`')

    @property
    def output(self) -> str:
        """S3 URL of the result file."""
        if self.answer.output:
            return self.answer.output
        return f"{self.location}{self.id}.{'csv' if SELECTS.match(self.sql) else 'txt'}"

    def described(self) -> dict[str, Any]:
        """The execution as GetQueryExecution tells it."""
        now = time.time()
        began, ended = self.began or self.ended or now, self.ended or now
        status: dict[str, Any] = {"State": self.state, "SubmissionDateTime": self.submitted}
        if self.ended is not None:
            status["CompletionDateTime"] = self.ended
        if self.reason is not None:
            status["StateChangeReason"] = self.reason
        if self.state == "FAILED":
            status["AthenaError"] = {
                "ErrorCategory": self.category, "ErrorType": 1, "Retryable": self.retryable, "ErrorMessage": self.reason
            }  # fmt: skip
        statistics: dict[str, Any] = {
            "DataScannedInBytes": self.answer.scanned,
            "EngineExecutionTimeInMillis": int(1000 * (ended - began)),
            "QueryQueueTimeInMillis": int(1000 * (began - self.submitted)),
            "TotalExecutionTimeInMillis": int(1000 * (ended - self.submitted)),
            "ServiceProcessingTimeInMillis": 0,
        }
        if self.answer.manifest:
            statistics["DataManifestLocation"] = self.answer.manifest
        return {
            "QueryExecutionId": self.id,
            "Query": self.sql,
            "StatementType": "DML" if SELECTS.match(self.sql) else "DDL",
            "ResultConfiguration": {"OutputLocation": self.output},
            "ResultReuseConfiguration": {"ResultReuseByAgeConfiguration": {"Enabled": False}},
            "QueryExecutionContext": dict(self.context),
            "Status": status,
            "Statistics": statistics,
            "WorkGroup": self.workgroup,
            "EngineVersion": {
                "SelectedEngineVersion": "AUTO", "EffectiveEngineVersion": "Athena engine version 3"
            },
            "SubstatementType": "SELECT" if SELECTS.match(self.sql) else "CREATE_TABLE_AS_SELECT",
            **({"ExecutionParameters": self.parameters} if self.parameters else {}),
        }  # fmt: skip


class Executions:
    """Every query since the engine's start."""

    def __init__(self, scope: Scope, faults: FaultBoard) -> None:
        self._scope = scope
        self._faults = faults
        self._queries: dict[str, Query] = {}
        self._tokens: dict[str, tuple[str, str]] = {}
        self._lock = threading.RLock()
        self._pool = ThreadPoolExecutor(RUNNING_AT_ONCE, thread_name_prefix="athena")

    def start(self, request: Mapping[str, Any]) -> str:
        """Start a query; with a token that is known already, the id it had. Raises RequestError."""
        token = str(request.get("ClientRequestToken") or "")
        if token and not 32 <= len(token) <= 128:
            raise RequestError("InvalidRequestException", "clientRequestToken must have 32 to 128 characters")
        same = {name: value for name, value in request.items() if name != "ClientRequestToken"}
        signature = json.dumps(same, sort_keys=True)
        with self._lock:
            if token in self._tokens:
                known, before = self._tokens[token]
                if before != signature:
                    raise RequestError("InvalidRequestException", "Idempotent parameters do not match")
                return known
            if sum(query.ended is None for query in self._queries.values()) >= MOST_ACTIVE:
                raise RequestError("TooManyRequestsException", "You have exceeded the limit for the number of queries")
            query = self._made(request)
            self._queries[query.id] = query
            if token:
                self._tokens[token] = (query.id, signature)
        self._pool.submit(self._run, query)
        return query.id

    def get(self, name: str) -> Query:
        """The query of this id. Raises RequestError."""
        with self._lock:
            query = self._queries.get(name)
        if query is None:
            raise RequestError("InvalidRequestException", f"QueryExecution {name} was not found")
        return query

    def stop(self, name: str) -> None:
        """Stop a query that is queued or running."""
        query = self.get(name)
        with self._lock:
            if query.ended is not None:
                return
            query.stopped.set()
            if query.state == "QUEUED":
                query.state, query.ended, query.reason = "CANCELLED", time.time(), "Query cancelled by user"
        threading.Thread(target=_interrupt, args=(query,), name="athena-stop", daemon=True).start()

    def ids(self, workgroup: str) -> list[str]:
        """The ids of a workgroup's queries, newest first."""
        with self._lock:
            return [query.id for query in reversed(self._queries.values()) if query.workgroup == workgroup]

    def close(self) -> None:
        """Stop everything; the engine ends."""
        for name in list(self._queries):
            self.stop(name)
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _made(self, request: Mapping[str, Any]) -> Query:
        workgroup = str(request.get("WorkGroup") or "primary")
        configuration = self._scope.workgroup(workgroup)
        own = (request.get("ResultConfiguration") or {}).get("OutputLocation")
        theirs = (configuration.get("ResultConfiguration") or {}).get("OutputLocation")
        location = theirs if theirs and (configuration.get("EnforceWorkGroupConfiguration") or not own) else own
        if not location:
            raise RequestError(
                "InvalidRequestException",
                "No output location provided. An output location is required either through the Workgroup result "
                "configuration setting or as an API input.",
            )
        limit = configuration.get("BytesScannedCutoffPerQuery")
        return Query(
            id=str(uuid.uuid4()),
            sql=str(request["QueryString"]),
            context=request.get("QueryExecutionContext") or {},
            workgroup=workgroup,
            location=f"{str(location).rstrip('/')}/",
            parameters=[str(value) for value in request.get("ExecutionParameters") or []],
            scan_limit=None if limit is None else int(limit),
        )

    def _run(self, query: Query) -> None:
        with self._lock:
            if query.state != "QUEUED":
                return
            query.state, query.began = "RUNNING", time.time()
            query.runner = Runner(self._scope, query.database, query.location, query.id, query.scan_limit)
        state, failure = "SUCCEEDED", None
        try:
            self._strike(query)
            query.answer = query.runner.run(query.sql, query.parameters, query.stopped)
        except QueryCancelled:
            state = "CANCELLED"
        except QueryFailedError as error:
            state, failure = "FAILED", error
        except Exception as error:
            # Whatever else goes wrong inside is an internal error to the client, as it would be in AWS.
            state, failure = ("CANCELLED", None) if query.stopped.is_set() else ("FAILED", _failure(error))
            if state == "FAILED":
                logger.exception("query %s failed: %s", query.id, query.sql[:2000])
        finally:
            query.answer.scanned = query.runner.scanned
            query.runner.close()
        with self._lock:
            query.state, query.ended, query.runner = state, time.time(), None
            if failure is not None:
                query.reason, query.category, query.retryable = str(failure), failure.category, failure.retryable
            elif state == "CANCELLED":
                query.reason = "Query cancelled by user"

    def _strike(self, query: Query) -> None:
        stall = self._faults.strike("athena.stall", query=query.sql)
        if stall is not None and query.stopped.wait(float(stall.args.get("seconds", 5))):
            raise QueryCancelled
        fail = self._faults.strike("athena.fail", query=query.sql)
        if fail is not None:
            code = str(fail.args.get("code", "GENERIC_INTERNAL_ERROR"))
            words = str(fail.args.get("message", "an internal error occurred"))
            raise QueryFailedError(code, words, category=SYSTEM, retryable=bool(fail.args.get("retryable", True)))


def _interrupt(query: Query) -> None:
    """Interrupt until the query has ended: an interrupt between two statements of DuckDB's stops neither."""
    while query.ended is None:
        runner = query.runner
        if runner is not None:
            runner.interrupt()
        time.sleep(INTERRUPT_EVERY_S)


def _failure(error: Exception) -> QueryFailedError:
    known = _CODE.search(str(error))
    if known is not None:
        code, _, message = known[0].partition(": ")
        return QueryFailedError(code, message)
    words = str(error).splitlines()[0][:500] if str(error) else type(error).__name__
    return QueryFailedError("GENERIC_INTERNAL_ERROR", f"{type(error).__name__}: {words}", category=SYSTEM)
