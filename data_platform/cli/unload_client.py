"""The unload API as its own command line sees it: calls over HTTP, problems as PlatformError, downloads checked."""

import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from data_platform.errors import ConfigurationError, Fault, PlatformError
from data_platform.settings import Settings

TIMEOUT_S = 30
CHUNK = 1024 * 1024
FINAL = frozenset({"DONE", "FAILED", "CANCELLED", "EXPIRED"})


class UnloadClient:
    """Calls the API at DATA_PLATFORM_API_URL with DATA_PLATFORM_API_TOKEN."""

    def __init__(self, settings: Settings) -> None:
        if settings.api_token is None:
            raise ConfigurationError(
                "not set: DATA_PLATFORM_API_TOKEN", hint="make one: data-platform api token create NAME"
            )
        if not settings.api_url.startswith(("http://", "https://")):
            raise ConfigurationError(
                f"DATA_PLATFORM_API_URL is {settings.api_url!r}; it has to begin with http:// or https://",
                hint="for example http://127.0.0.1:8000",
            )
        self._url = settings.api_url.rstrip("/")
        self._token = settings.api_token

    def get(self, path: str, query: Mapping[str, object] | None = None) -> dict[str, Any]:
        """GET /api/unload<path>. Raises PlatformError with the problem's words."""
        parameters = {name: str(value) for name, value in (query or {}).items() if value is not None}
        suffix = f"?{urllib.parse.urlencode(parameters)}" if parameters else ""
        return self._call("GET", f"{path}{suffix}", None)

    def post(self, path: str, body: Mapping[str, object] | None = None) -> dict[str, Any]:
        """POST /api/unload<path>. Raises as `get`."""
        return self._call("POST", path, None if body is None else json.dumps(body).encode())

    def _call(self, method: str, path: str, data: bytes | None) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {self._token.get_secret_value()}", "Content-Type": "application/json"}
        request = urllib.request.Request(  # noqa: S310 - the scheme is checked above
            f"{self._url}/api/unload{path}", data=data, headers=headers, method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:  # noqa: S310 - as above
                return cast("dict[str, Any]", json.load(response))
        except urllib.error.HTTPError as error:
            raise _problem(error) from None
        except OSError as error:
            raise PlatformError(
                f"the unload API at {self._url} cannot be reached: {getattr(error, 'reason', error)}",
                hint="start it: data-platform api; or set DATA_PLATFORM_API_URL",
                fault=Fault.TRANSIENT,
            ) from None


def download(file: Mapping[str, Any], folder: Path) -> Path:
    """Fetch one file into the folder under its own name; in place only when its size is right. Raises PlatformError."""
    target = folder / Path(str(file["name"])).name
    partial = target.with_name(f"{target.name}.part")
    size = 0
    try:
        with urllib.request.urlopen(str(file["url"]), timeout=TIMEOUT_S) as response, partial.open("wb") as out:  # noqa: S310 - the API's link
            while chunk := response.read(CHUNK):
                out.write(chunk)
                size += len(chunk)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise PlatformError(
            f"{target.name} could not be fetched: {error}",
            hint="run the command again: links last for some minutes, and each run gets new ones",
            fault=Fault.TRANSIENT,
        ) from None
    if size != file["bytes"]:
        partial.unlink(missing_ok=True)
        raise PlatformError(f"{target.name} has {size} bytes, {file['bytes']} were expected", hint="fetch it again")
    partial.replace(target)
    return target


def quoted(request_id: str) -> str:
    """A request id in a path."""
    return urllib.parse.quote(request_id, safe="")


def _problem(error: urllib.error.HTTPError) -> PlatformError:
    try:
        problem = json.load(error)
        detail = str(problem["detail"])
    except (ValueError, KeyError, TypeError):
        detail = error.reason
    wait = error.headers.get("Retry-After")
    hint = f"try again in {wait} s" if wait else None
    return PlatformError(f"{error.code}: {detail}", hint=hint, fault=Fault.THROTTLED if wait else Fault.PERMANENT)
