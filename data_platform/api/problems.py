"""Errors as problem+json (RFC 9457): one form for whatever went wrong, and never a stack trace."""

import logging
import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from data_platform.clients import postgres
from data_platform.clients.retry import RETRIED
from data_platform.unload.sqltext import RefusedError

log = logging.getLogger(__name__)
MEDIA_TYPE = "application/problem+json"


class Problem(BaseModel):
    """An error. `part` and `position` (from 1) tell where a refused statement is wrong."""

    type: str
    title: str
    status: int
    detail: str
    part: str | None = None
    position: int | None = None
    errors: list[dict[str, Any]] | None = None


class ApiError(Exception):
    """Ends a call with a problem."""

    def __init__(self, status: int, detail: str, *, headers: Mapping[str, str] | None = None, **members: Any) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = dict(headers or {})
        self.members = members


def problem(status: int, detail: str, headers: Mapping[str, str] | None = None, **members: Any) -> Response:
    """The response."""
    body = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail, **members}
    return Response(orjson.dumps(body), status, headers=dict(headers or {}), media_type=MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Let every error of the application leave as a problem."""

    @app.exception_handler(ApiError)
    async def _api(_request: Request, error: ApiError) -> Response:  # pyright: ignore[reportUnusedFunction]
        return problem(error.status, error.detail, error.headers, **error.members)

    @app.exception_handler(RefusedError)
    async def _refused(_request: Request, error: RefusedError) -> Response:  # pyright: ignore[reportUnusedFunction]
        status = 403 if error.forbidden else 422
        return problem(status, error.message, part=error.part or None, position=error.position)

    @app.exception_handler(RequestValidationError)
    async def _invalid(_request: Request, error: RequestValidationError) -> Response:  # pyright: ignore[reportUnusedFunction]
        reasons = [
            {"field": ".".join(str(part) for part in each["loc"][1:]), "reason": str(each["msg"])}
            for each in error.errors()
        ]
        malformed = any(
            each["type"] == "json_invalid" or (each["type"] == "missing" and tuple(each["loc"]) == ("body",))
            for each in error.errors()
        )
        detail = "; ".join(f"{each['field']}: {each['reason']}".removeprefix(": ") for each in reasons)
        return problem(400 if malformed else 422, detail, errors=reasons)

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> Response:  # pyright: ignore[reportUnusedFunction]
        headers = dict(error.headers or {})
        if error.status_code == 405:
            headers["Allow"] = ", ".join(sorted(_methods(request)))
        return problem(error.status_code, str(error.detail), headers)

    @app.exception_handler(SQLAlchemyError)
    async def _ledger(request: Request, error: SQLAlchemyError) -> Response:  # pyright: ignore[reportUnusedFunction]
        if postgres.classify(error) not in RETRIED:
            raise error
        log.warning("%s %s: the ledger is away: %s", request.method, request.url.path, type(error).__name__)
        return problem(503, "the ledger cannot be reached now; send the same again", {"Retry-After": "2"})

    @app.exception_handler(Exception)
    async def _bug(request: Request, error: Exception) -> Response:  # pyright: ignore[reportUnusedFunction]
        log.error("%s %s failed: %s", request.method, request.url.path, type(error).__name__, exc_info=error)
        return problem(500, "the request could not be handled; it is in the log of the server")


def _methods(request: Request) -> set[str]:
    """The methods of the path over all its calls: the framework names those of the first only."""
    paths: dict[str, dict[str, Any]] = request.app.openapi()["paths"]
    here = [calls for path, calls in paths.items() if re.fullmatch(re.sub(r"{\w+}", "[^/]+", path), request.url.path)]
    return {method.upper() for calls in here for method in calls}
