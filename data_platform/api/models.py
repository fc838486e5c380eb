"""What the API answers: the state of a request, its files, lists. Pure."""

import base64
import binascii
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import BaseModel, Field

from data_platform.ledger.unload_requests import UnloadRequest
from data_platform.ledger.unloads import UnloadStatus
from data_platform.unload.events import single_file_url


class RequestError(BaseModel):
    """Why a request is FAILED, in the warehouse's words where it has spoken."""

    code: str
    message: str


class RequestState(BaseModel):
    """A request. `rows` and `bytes` are how far it is while it runs; times are RFC 3339 in UTC."""

    requestId: str  # noqa: N815 - the wire's names
    status: UnloadStatus
    s3FileUrl: Annotated[str | None, Field(description="The single file; null for none or several.")]  # noqa: N815
    files: Annotated[list[str], Field(description="s3://bucket/key of each file.")]
    rows: int | None
    bytes: int | None
    error: RequestError | None
    createdAt: str  # noqa: N815
    startedAt: str | None  # noqa: N815
    completedAt: str | None  # noqa: N815
    expiresAt: str | None  # noqa: N815


class RequestPage(BaseModel):
    """The caller's requests, newest first; `cursor` leads to the next page, null at the end."""

    requests: list[RequestState]
    cursor: str | None


class DownloadFile(BaseModel):
    """One file and a link to it."""

    name: str
    url: str
    expiresAt: str  # noqa: N815
    bytes: int
    rows: int


class Download(BaseModel):
    """The files of a result; none when it has no rows."""

    files: list[DownloadFile]


class Health(BaseModel):
    """`ok`."""

    status: str


def rfc3339(at: datetime | None) -> str | None:
    """An instant in UTC with milliseconds."""
    if at is None:
        return None
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def state_of(request: UnloadRequest, bucket: str, *, now: datetime | None = None) -> dict[str, Any]:
    """The fields of RequestState; EXPIRED from the second the retention ends, swept or not."""
    keys = [str(file["key"]) for file in request.files]
    failed = request.status is UnloadStatus.FAILED
    return {
        "requestId": request.request_id,
        "status": (UnloadStatus.EXPIRED if expired(request, now) else request.status).value,
        "s3FileUrl": single_file_url(bucket, keys),
        "files": [f"s3://{bucket}/{key}" for key in keys],
        "rows": request.rows,
        "bytes": request.bytes,
        "error": {"code": request.error_code, "message": request.error_message} if failed else None,
        "createdAt": rfc3339(request.created_at),
        "startedAt": rfc3339(request.started_at),
        "completedAt": rfc3339(request.completed_at),
        "expiresAt": rfc3339(request.expires_at),
    }


def expired(request: UnloadRequest, now: datetime | None = None) -> bool:
    """Whether the retention of a finished request is over."""
    if request.status is UnloadStatus.EXPIRED:
        return True
    over = request.expires_at is not None and request.expires_at <= (now or datetime.now(UTC))
    return request.status is UnloadStatus.DONE and over


def cursor_of(request: UnloadRequest) -> str:
    """Where the next page begins, opaque to callers."""
    text = f"{request.created_at.astimezone(UTC).isoformat()} {request.request_id}"
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def parse_cursor(text: str) -> tuple[datetime, str]:
    """The inverse of `cursor_of`. Raises ValueError for anything else."""
    try:
        plain = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True).decode()
    except (binascii.Error, UnicodeDecodeError) as error:
        raise ValueError("not a cursor of this API: leave it out, then use the one of each answer") from error
    at, _, request_id = plain.partition(" ")
    when = datetime.fromisoformat(at)
    if when.tzinfo is None or not request_id or "\0" in request_id:
        raise ValueError("not a cursor of this API: leave it out, then use the one of each answer")
    return when, request_id
