"""Unload requests as an asset: one materialisation per finished request. They are made by the API's workers."""

import time
from typing import TYPE_CHECKING, Any

import dagster as dg

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Engine

    from data_platform.ledger.unload_requests import UnloadRequest

MOST = 100  # a call; what is left is told by the next
UNLOAD_REQUESTS = dg.AssetKey(["unload", "requests"])


def unload_requests_spec() -> dg.AssetSpec:
    """The asset; no operation makes it, the job `unload_request` and the API tell of what they did."""
    return dg.AssetSpec(
        UNLOAD_REQUESTS,
        description="Results of requests to the unload API. Each materialisation is a request that is DONE; "
        "those that failed or were cancelled are observations.",
        group_name="unload",
        kinds={"redshift", "s3"},
    )


def event_of(request: "UnloadRequest") -> dg.AssetMaterialization | dg.AssetObservation:
    """What Dagster is told of a request that has come to its end. No statement: it may hold personal data."""
    seconds = None
    if request.started_at is not None and request.completed_at is not None:
        seconds = round((request.completed_at - request.started_at).total_seconds(), 3)
    facts: dict[str, Any] = {
        "request": request.request_id,
        "caller": request.caller,
        "status": request.status.value,
        "attempts": request.attempt,
        "seconds": seconds,
        "rows": request.rows,
        "bytes": request.bytes,
        "files": [str(file["key"]) for file in request.files][:50],
        "error": f"{request.error_code}: {request.error_message}" if request.error_code else None,
    }
    metadata = {name: value for name, value in facts.items() if value is not None}
    if request.status.value == "DONE":
        metadata["dagster/row_count"] = request.rows or 0
        return dg.AssetMaterialization(UNLOAD_REQUESTS, metadata=metadata)
    return dg.AssetObservation(UNLOAD_REQUESTS, metadata=metadata)


def tell(
    ledger: "Engine",
    report: "Callable[[dg.AssetMaterialization | dg.AssetObservation], None]",
    *,
    request_id: str | None = None,
    until: float | None = None,
) -> int:
    """Tell of ended requests that were not told of, at most MOST and until `time.monotonic` is `until`; how many.

    Each has a transaction of its own: a crash tells the one that it interrupts a second time, and no other.
    """
    from data_platform.ledger import unload_reports

    for told in range(MOST):
        if until is not None and time.monotonic() > until:
            return told
        with ledger.begin() as connection:
            ended = unload_reports.unreported(connection, request_id=request_id, limit=1)
            if not ended:
                return told
            report(event_of(ended[0]))
            unload_reports.reported(connection, ended[0])
    return MOST
