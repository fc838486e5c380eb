"""The calls of Athena that concern queries, over its JSON protocol; all others are passed on to moto."""

import json
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast
from wsgiref.types import StartResponse, WSGIApplication

from data_platform.local.aws.athena.errors import RequestError
from data_platform.local.aws.athena.executions import Executions
from data_platform.local.aws.fault_middleware import reset_connection
from data_platform.local.aws.requests import Environ, facts_of
from data_platform.local.faults import FaultBoard

FAULT_KINDS = ("athena.throttle", "athena.lost", "athena.fail", "athena.stall")
THROTTLED = (
    "You have exceeded the limit for the number of queries you can run concurrently. Reduce the number of concurrent "
    "queries submitted by this account. Contact customer support to request a concurrent query limit increase."
)


class AthenaFront:
    """Middleware: answers the calls it knows. The endpoint it is served at is told once it is known."""

    def __init__(self, application: WSGIApplication, executions: Executions, faults: FaultBoard) -> None:
        self._application = application
        self._executions = executions
        self._faults = faults
        self._calls: Mapping[str, Callable[[Mapping[str, Any]], Mapping[str, Any]]] = {
            "StartQueryExecution": self._start,
            "GetQueryExecution": self._get,
            "BatchGetQueryExecution": self._batch_get,
            "GetQueryResults": self._results,
            "StopQueryExecution": self._stop,
            "ListQueryExecutions": self._list,
        }

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Handle one request."""
        facts = facts_of(environ)
        call = self._calls.get(facts.action) if facts.service == "athena" else None
        if call is None:
            return self._application(environ, start_response)
        length = int(environ.get("CONTENT_LENGTH") or 0)
        request = cast("dict[str, Any]", json.loads(environ["wsgi.input"].read(length) or b"{}"))
        try:
            answer = call(request)
        except RequestError as error:
            body = {"__type": error.code, "Message": error.message, "message": error.message}
            return _send(start_response, f"{error.status} Error", body)
        if facts.action == "StartQueryExecution":
            lost = self._faults.strike("athena.lost", query=request.get("QueryString", ""))
            if lost is not None:  # it has begun, and the client does not learn of it
                reset_connection(environ)
        return _send(start_response, "200 OK", answer)

    def _start(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        query = str(request.get("QueryString", ""))
        rule = self._faults.strike("athena.throttle", query=query)
        if rule is not None:
            raise RequestError(str(rule.args.get("code", "TooManyRequestsException")), THROTTLED)
        return {"QueryExecutionId": self._executions.start(request)}

    def _get(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"QueryExecution": self._executions.get(str(request["QueryExecutionId"])).described()}

    def _batch_get(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        found: list[Mapping[str, Any]] = []
        missing: list[Mapping[str, Any]] = []
        for name in request["QueryExecutionIds"]:
            try:
                found.append(self._executions.get(str(name)).described())
            except RequestError as error:
                missing.append({"QueryExecutionId": name, "ErrorCode": error.code, "ErrorMessage": error.message})
        return {"QueryExecutions": found, "UnprocessedQueryExecutionIds": missing}

    def _results(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        execution = self._executions.get(str(request["QueryExecutionId"]))
        if execution.state != "SUCCEEDED":
            unfinished = execution.state in {"QUEUED", "RUNNING"}
            words = "has not yet finished. Current" if unfinished else "did not finish successfully. Final query"
            raise RequestError("InvalidRequestException", f"Query {words} state: {execution.state}")
        count, first = int(request.get("MaxResults") or 1000), int(request.get("NextToken") or 0)
        rows = execution.answer.rows
        shown = [
            {"Data": [{} if value is None else {"VarCharValue": value} for value in row]}
            for row in rows[first : first + count]
        ]
        answer: dict[str, Any] = {
            "UpdateCount": 0,
            "ResultSet": {
                "Rows": shown,
                "ResultSetMetadata": {"ColumnInfo": [_column(name, kind) for name, kind in execution.answer.columns]},
            },
        }
        if first + count < len(rows):
            answer["NextToken"] = str(first + count)
        return answer

    def _stop(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        self._executions.stop(str(request["QueryExecutionId"]))
        return {}

    def _list(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"QueryExecutionIds": self._executions.ids(str(request.get("WorkGroup") or "primary"))}


def _column(name: str, kind: str) -> Mapping[str, Any]:
    return {
        "CatalogName": "hive", "SchemaName": "", "TableName": "", "Name": name, "Label": name, "Type": kind,
        "Precision": 2147483647 if kind == "varchar" else 0, "Scale": 0, "Nullable": "UNKNOWN",
        "CaseSensitive": kind == "varchar",
    }  # fmt: skip


def _send(start_response: StartResponse, status: str, answer: Mapping[str, Any]) -> Iterable[bytes]:
    body = json.dumps(answer).encode()
    headers = [
        ("Content-Type", "application/x-amz-json-1.1"),
        ("Content-Length", str(len(body))),
        ("x-amzn-RequestId", f"{time.time_ns():x}"),
    ]
    start_response(status, headers)
    return [body]
