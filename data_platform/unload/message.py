"""A message on the topic of unload notices: ours, or one of the two older forms. Pure."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast
from uuid import UUID

from data_platform.unload.requests import REQUEST_ID_PATTERN

_FINAL = frozenset({"DONE", "FAILED", "CANCELLED"})


class PoisonError(ValueError):
    """The message is none of the forms; says why."""


@dataclass(frozen=True)
class Notice:
    """What a message says. `event_id` and `status` are ours; the older forms mean DONE."""

    request_id: str
    status: str
    event_id: UUID | None = None
    file_url: str | None = None


def parse_notice(value: bytes | None) -> Notice:
    """Read a message's value. Raises PoisonError."""
    if not value:
        raise PoisonError("the message is empty")
    try:
        text = value.decode()
    except UnicodeDecodeError:
        raise PoisonError("the message is no UTF-8") from None
    try:
        data: object = json.loads(text)
    except (ValueError, RecursionError):
        data = text.strip()
    if isinstance(data, Mapping):
        return _object(cast("Mapping[str, Any]", data))
    if isinstance(data, int) and not isinstance(data, bool):
        data = text.strip()  # an id of digits alone
    if isinstance(data, str):
        return Notice(_request_id(data), "DONE")
    raise PoisonError("the message is neither an object nor a request id")


def _object(data: Mapping[str, Any]) -> Notice:
    request_id = _request_id(data.get("requestId"))
    url = data.get("s3FileUrl")
    if url is not None and not isinstance(url, str):
        raise PoisonError("s3FileUrl is no text")
    if "eventId" not in data:
        return Notice(request_id, "DONE", file_url=url)
    try:
        event_id = UUID(str(data["eventId"]))
    except ValueError:
        raise PoisonError("eventId is no UUID") from None
    status = data.get("status")
    if status not in _FINAL:
        raise PoisonError(f"status is none of {', '.join(sorted(_FINAL))}")
    return Notice(request_id, str(status), event_id, url)


def _request_id(value: object) -> str:
    if not isinstance(value, str) or not re.match(REQUEST_ID_PATTERN, value) or value in {".", ".."}:
        raise PoisonError("requestId is missing or no request id")
    return value
