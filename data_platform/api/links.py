"""Links to the files of a result: presigned per call, never stored, dead before the object or the credentials are."""

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from data_platform.api.models import rfc3339
from data_platform.api.problems import ApiError
from data_platform.ledger.unload_requests import UnloadRequest
from data_platform.settings import Settings
from data_platform.unload.execution import RESULTS_PREFIX, list_prefix

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

# Temporary credentials given as they are do not say when they end.
UNKNOWN_CREDENTIALS = timedelta(minutes=15)
_TYPES = {"gz": "application/gzip", "csv": "text/csv", "json": "application/json"}


def files_of(
    settings: Settings, s3: "S3Client", request: UnloadRequest, now: datetime | None = None
) -> list[dict[str, Any]]:
    """The files with links. Raises ApiError 410 when objects are gone before their time."""
    now = now or datetime.now(UTC)
    if request.expires_at is None:
        raise ApiError(410, "the files have no date of expiry any more")
    seconds = int(lifetime(settings, s3, request.expires_at - now).total_seconds())
    if seconds < 1:
        raise ApiError(410, "the files have expired")
    prefix = f"{RESULTS_PREFIX}/{request.request_id}/"
    there = list_prefix(s3, settings.unload_bucket, prefix) if request.files else {}
    files: list[dict[str, Any]] = []
    for number, file in enumerate(request.files):
        key = str(file["key"])
        if key not in there:
            raise ApiError(410, "files of this result were deleted; submit the query again under a new id")
        name = file_name(request.request_id, key, number if len(request.files) > 1 else None)
        parameters = {
            "Bucket": settings.unload_bucket,
            "Key": key,
            "ResponseContentDisposition": f'attachment; filename="{name}"',
            "ResponseContentType": _TYPES.get(name.rpartition(".")[2], "application/octet-stream"),
        }
        url = s3.generate_presigned_url("get_object", Params=parameters, ExpiresIn=seconds)
        expires = rfc3339(now + timedelta(seconds=seconds))
        files.append({"name": name, "url": url, "expiresAt": expires, "bytes": file["bytes"], "rows": file["rows"]})
    return files


def lifetime(settings: Settings, s3: "S3Client", left: timedelta) -> timedelta:
    """How long a link may live: the setting, what is left of the object, what is left of the credentials."""
    longest = min(timedelta(seconds=settings.unload_link_s), left)
    credentials: Any = s3._request_signer._credentials  # type: ignore[attr-defined]  # pyright: ignore
    expiry = getattr(credentials, "_expiry_time", None)
    if isinstance(expiry, datetime):
        return min(longest, expiry - datetime.now(UTC))
    return min(longest, UNKNOWN_CREDENTIALS) if getattr(credentials, "token", None) else longest


def file_name(request_id: str, key: str, number: int | None) -> str:
    """`<requestId>.csv.gz`, or `<requestId>-0001.csv.gz` where there are several."""
    last = key.rpartition("/")[2]
    suffix = last[last.index(".") :] if "." in last else ""
    if suffix in {"", ".gz", ".bz2", ".zst"}:
        suffix = f".txt{suffix}"  # the older delimited text has no extension of its own
    return f"{request_id}{'' if number is None else f'-{number + 1:04d}'}{suffix}"
