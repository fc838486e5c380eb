"""The calls of the unload API: what each does, and which codes it answers."""

import re
from collections.abc import AsyncIterator, Mapping
from typing import Annotated, Any

import orjson
from anyio.to_thread import run_sync
from fastapi import APIRouter, Depends, Header, Query, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy import Connection
from starlette.responses import Response, StreamingResponse

from data_platform.api.callers import Caller
from data_platform.api.links import files_of
from data_platform.api.models import (
    Download,
    Health,
    RequestPage,
    RequestState,
    cursor_of,
    expired,
    parse_cursor,
    state_of,
)
from data_platform.api.problems import MEDIA_TYPE, ApiError, Problem
from data_platform.api.state import ApiState
from data_platform.api.stream import state_changes
from data_platform.ledger import outbox, unload_requests
from data_platform.ledger.unload_requests import NewRequest, NotThatStateError, UnloadRequest
from data_platform.ledger.unloads import UnloadStatus
from data_platform.unload.events import request_event
from data_platform.unload.guard import guard
from data_platform.unload.requests import REQUEST_ID_PATTERN, UnloadBody, body_hash, check_columns

PARSED_INLINE = 2_000  # characters; what is longer is parsed in a thread, so that the loop goes on
STREAMS_PER_CALLER = 20
_REQUEST_ID = re.compile(REQUEST_ID_PATTERN)
_WORDS = {
    400: "malformed",
    401: "no token, or one that is unknown",
    403: "not allowed to this caller (schema, quota)",
    404: "no such request of this caller",
    409: "not in this state",
    410: "the retention has passed",
    413: "the body is too large",
    422: "refused input",
    429: "too fast, or too many at once; see Retry-After",
    503: "the ledger cannot be reached now; see Retry-After",
}


def _problems(*codes: int) -> dict[int | str, dict[str, Any]]:
    content = {MEDIA_TYPE: {"schema": Problem.model_json_schema()}}
    return {code: {"description": _WORDS[code], "content": content} for code in (401, 429, 503, *codes)}


bearer = HTTPBearer(auto_error=False, description="A token made by `data-platform api token create`.")


def state(request: Request) -> ApiState:
    """What the process shares."""
    return request.app.state.api


async def caller(
    request: Request, _credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]
) -> Caller:
    """Who calls."""
    return await state(request).callers.of(request.headers.get("authorization"))


State = Annotated[ApiState, Depends(state)]
Who = Annotated[Caller, Depends(caller)]
router = APIRouter(prefix="/api/unload", tags=["unload"])
health_router = APIRouter(tags=["health"])


def answer(content: Mapping[str, Any], status: int = 200) -> Response:
    """A JSON response."""
    return Response(orjson.dumps(content), status, media_type="application/json")


@router.post(
    "",
    status_code=202,
    response_model=RequestState,
    responses={200: {"model": RequestState, "description": "known already"}, **_problems(400, 403, 409, 413, 422)},
)
async def submit(body: UnloadBody, api: State, who: Who) -> Response:
    """Accept a request and start it. The same id with the same body runs once; with another body it is a conflict."""
    options = body.options()
    if len(body.sql) > PARSED_INLINE:
        query = await run_sync(guard, body.sql, who.schemas)
    else:
        query = guard(body.sql, who.schemas)
    check_columns(query, options)
    hashed = body_hash(query.sql, options)
    new = NewRequest(body.request_id, who.name, hashed, query.sql, options.model_dump(mode="json"))
    request, accepted = await api.submissions.accept(new, who)
    if accepted:
        api.wake()
    elif request.caller != who.name or request.body_hash != hashed:
        raise ApiError(409, f"requestId {body.request_id} was used for another request")
    return answer(state_of(request, api.bucket), 202 if accepted else 200)


@router.get("", response_model=RequestPage, responses=_problems(422))
async def list_requests(
    api: State,
    who: Who,
    status: Annotated[UnloadStatus | None, Query(description="Only these.")] = None,
    cursor: Annotated[str | None, Query(max_length=400, description="Of the page before.")] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> Response:
    """The caller's requests, newest first."""
    try:
        before = None if cursor is None else parse_cursor(cursor)
    except ValueError:
        raise ApiError(422, "cursor is none that this API gave") from None

    def read(connection: Connection) -> list[UnloadRequest]:
        return unload_requests.page(connection, who.name, status=status, before=before, limit=limit + 1)

    found = await run_sync(api.ask, read)
    following = cursor_of(found[limit - 1]) if len(found) > limit else None
    return answer({"requests": [state_of(each, api.bucket) for each in found[:limit]], "cursor": following})


@router.get("/status/{request_id}", response_model=RequestState, responses=_problems(404))
async def status_of(request_id: str, api: State, who: Who) -> Response:
    """The state of a request."""
    return answer(state_of(await _own(api, who, request_id), api.bucket))


@router.get("/file/{request_id}", response_model=Download, responses=_problems(404, 409, 410))
async def files(request_id: str, api: State, who: Who) -> Response:
    """Links to the files, made for this call."""
    request = await _own(api, who, request_id)
    if expired(request):
        raise ApiError(410, f"the files of {request_id} were kept until {state_of(request, api.bucket)['expiresAt']}")
    if request.status is not UnloadStatus.DONE:
        raise ApiError(409, f"{request_id} is {request.status.value}: there are files once it is DONE")
    return answer({"files": await run_sync(files_of, api.settings, api.s3, request)})


@router.get("/{request_id}", response_model=RequestState, responses=_problems(404))
async def one(request_id: str, api: State, who: Who) -> Response:
    """The state of a request."""
    return answer(state_of(await _own(api, who, request_id), api.bucket))


@router.get(
    "/{request_id}/events",
    responses={200: {"content": {"text/event-stream": {}}, "description": "state changes"}, **_problems(404, 422)},
)
async def events(
    request_id: str,
    api: State,
    who: Who,
    last_event_id: Annotated[str | None, Header(description="Where a stream that broke off had come to.")] = None,
) -> Response:
    """The changes of state as server-sent events; ends after a final one."""
    await _own(api, who, request_id)
    after = int(last_event_id) if last_event_id and re.fullmatch(r"[0-9]{1,18}", last_event_id) else 0
    streams = api.streams
    if streams.get(who.name, 0) >= STREAMS_PER_CALLER:
        raise ApiError(429, f"{STREAMS_PER_CALLER} streams are open already", headers={"Retry-After": "5"})
    streams[who.name] = streams.get(who.name, 0) + 1

    async def body() -> AsyncIterator[bytes]:
        try:
            async for chunk in state_changes(api.ask, request_id, after, ending=lambda: api.ending):
                yield chunk
        finally:
            streams[who.name] -= 1

    return StreamingResponse(body(), media_type="text/event-stream", headers={"Cache-Control": "no-store"})


@router.post("/{request_id}/cancel", status_code=202, response_model=RequestState, responses=_problems(404, 409))
async def cancel(request_id: str, api: State, who: Who) -> Response:
    """Stop a request: at once where it waits, within seconds where its query runs."""
    await _own(api, who, request_id, foreign=409)

    def change() -> UnloadRequest:
        with api.ledger.begin() as connection:
            request = unload_requests.cancel(connection, request_id, who.name)
            if request.status is UnloadStatus.CANCELLED:
                outbox.add(connection, request_event(api.settings, request))
            return request

    return answer(state_of(await _changed(change), api.bucket), 202)


@router.post("/{request_id}/retry", status_code=202, response_model=RequestState, responses=_problems(404, 409))
async def retry(request_id: str, api: State, who: Who) -> Response:
    """A new attempt of a FAILED request."""
    await _own(api, who, request_id, foreign=409)

    def change() -> UnloadRequest:
        with api.ledger.begin() as connection:
            return unload_requests.retry(connection, request_id, who.name)

    request = await _changed(change)
    api.wake()
    return answer(state_of(request, api.bucket), 202)


@health_router.get("/health", response_model=Health)
async def health() -> Response:
    """The process lives."""
    return answer({"status": "ok"})


@health_router.get(
    "/ready",
    response_model=Health,
    responses={503: {"description": "not now", "content": {MEDIA_TYPE: {"schema": Problem.model_json_schema()}}}},
)
async def ready(api: State) -> Response:
    """Calls can be handled: the ledger can be reached, and the process is not ending."""
    if api.ending:
        raise ApiError(503, "the process is ending")
    reason = await run_sync(api.not_ready)
    if reason is not None:
        raise ApiError(503, reason)
    return answer({"status": "ok"})


async def _own(api: ApiState, who: Caller, request_id: str, *, foreign: int = 404) -> UnloadRequest:
    """The caller's request. Raises ApiError 404, or `foreign` for somebody else's."""

    def read(connection: Connection) -> UnloadRequest | None:
        return unload_requests.get(connection, request_id)

    request = await run_sync(api.ask, read) if _REQUEST_ID.fullmatch(request_id) else None
    if request is None or (request.caller != who.name and foreign == 404):
        raise ApiError(404, "there is no such request")
    if request.caller != who.name:
        raise ApiError(foreign, "this requestId is another caller's")
    return request


async def _changed(change: Any) -> UnloadRequest:
    try:
        return await run_sync(change)
    except NotThatStateError as error:
        raise ApiError(409, error.message) from None
