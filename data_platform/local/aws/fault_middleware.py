"""The faults of S3 and SQS that happen on the wire; those inside a queue or a rule strike in queues.py and events.py.

A fault is matched on `method`, `action`, `bucket`, `key` (S3) or `action`, `queue` (SQS). `when="after"` lets the call
take effect first, so that its outcome is unknown to the caller.
"""

import contextlib
import json
import os
import socket
import struct
import time
from collections.abc import Iterable, Iterator
from typing import Any, cast
from wsgiref.types import StartResponse, WSGIApplication

from data_platform.local.aws.requests import Environ, RequestFacts, facts_of
from data_platform.local.aws.s3_errors import S3Error
from data_platform.local.faults import FaultBoard, FaultRule

FAULT_KINDS = (
    *("s3.error", "s3.delay", "s3.reset", "s3.truncate", "s3.stall"),
    *("sqs.error", "sqs.delay", "sqs.reset", "sqs.duplicate", "sqs.reorder"),
    *("events.drop", "events.duplicate"),
)
S3_CODES = {500: "InternalError", 503: "SlowDown", 403: "AccessDenied", 404: "NoSuchKey"}
SQS_CODES = {500: "InternalError", 503: "ServiceUnavailable", 403: "AccessDenied", 400: "RequestThrottled"}


class Faults:
    """Middleware: what is armed on the board strikes here; everything else passes untouched."""

    def __init__(self, application: WSGIApplication, board: FaultBoard) -> None:
        self._application = application
        self._board = board

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Handle one request."""
        if not self._board.rules():
            return self._application(environ, start_response)
        facts = facts_of(environ)
        if facts.service not in {"s3", "sqs"}:
            return self._application(environ, start_response)
        delay = self._strike("delay", facts)
        if delay is not None and not _after(delay):
            time.sleep(float(delay.args.get("seconds", 1)))
        reset = self._strike("reset", facts)
        if reset is not None and not _after(reset):
            reset_connection(environ)
        error = self._strike("error", facts)
        if error is not None and not _after(error):
            _drain(environ)
            return _error(facts, error, environ, start_response)
        if error is not None or reset is not None:
            _finish(self._application(environ, lambda *_: _ignore))
            if reset is not None:
                reset_connection(environ)
            return _error(facts, cast("FaultRule", error), environ, start_response)
        answer = self._application(environ, start_response)
        if delay is not None and _after(delay):
            time.sleep(float(delay.args.get("seconds", 1)))
        return self._broken_body(answer, facts, environ)

    def _strike(self, kind: str, facts: RequestFacts) -> FaultRule | None:
        named: dict[str, Any] = {"method": facts.method, "action": facts.action}
        named |= {"queue": facts.queue} if facts.service == "sqs" else {"bucket": facts.bucket, "key": facts.key}
        return self._board.strike(f"{facts.service}.{kind}", **named)

    def _broken_body(self, answer: Iterable[bytes], facts: RequestFacts, environ: Environ) -> Iterable[bytes]:
        if facts.service != "s3":
            return answer
        cut = self._strike("truncate", facts)
        if cut is not None:
            return _cut(answer, int(cut.args.get("bytes", 0)), environ)
        stall = self._strike("stall", facts)
        if stall is not None:
            return _stalled(answer, int(stall.args.get("bytes", 1)), float(stall.args.get("seconds", 5)))
        return answer


def _after(rule: FaultRule) -> bool:
    return rule.args.get("when") == "after"


def _error(facts: RequestFacts, rule: FaultRule, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    status = int(rule.args.get("status", 500))
    message = str(rule.args.get("message", "Please try again."))
    if facts.service == "s3":
        code = str(rule.args.get("code") or S3_CODES.get(status, "InternalError"))
        return S3Error(status, code, message).answer(environ, start_response)
    code = str(rule.args.get("code") or SQS_CODES.get(status, "InternalError"))
    body = json.dumps({"__type": f"com.amazonaws.sqs#{code}", "message": message}).encode()
    headers = [("Content-Type", "application/x-amz-json-1.0"), ("Content-Length", str(len(body)))]
    start_response(f"{status} Error", headers)
    return [body]


def _ignore(_data: bytes) -> object:
    return None


def _drain(environ: Environ) -> None:
    """Read the request's body: a client that is still sending would see a reset instead of the error."""
    left = int(environ.get("CONTENT_LENGTH") or 0)
    while left > 0 and (chunk := environ["wsgi.input"].read(min(left, 1 << 20))):
        left -= len(chunk)


def _finish(answer: Iterable[bytes]) -> None:
    close = getattr(answer, "close", None)
    if close is not None:
        close()


def reset_connection(environ: Environ) -> None:
    """Close the connection so that the client gets a TCP reset, not an orderly end."""
    connection = cast("socket.socket", environ["werkzeug.socket"])
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    os.close(connection.detach())
    raise ConnectionResetError("fault: connection reset")


def _cut(answer: Iterable[bytes], limit: int, environ: Environ) -> Iterator[bytes]:
    """The first `limit` bytes under the full declared length, then the end of the connection."""
    try:
        for chunk in answer:
            yield chunk[:limit]
            limit -= len(chunk)
            if limit <= 0:
                break
        with contextlib.suppress(OSError):
            cast("socket.socket", environ["werkzeug.socket"]).shutdown(socket.SHUT_RDWR)
        raise ConnectionAbortedError("fault: body truncated")
    finally:
        _finish(answer)


def _stalled(answer: Iterable[bytes], after: int, seconds: float) -> Iterator[bytes]:
    """The body with one pause after `after` bytes."""
    try:
        paused = False
        for chunk in answer:
            if not paused and len(chunk) >= after:
                yield chunk[:after]
                time.sleep(seconds)
                paused = True
                yield chunk[after:]
            else:
                yield chunk
                after -= len(chunk)
    finally:
        _finish(answer)
