"""The job `unload_request`: the API's own claim and attempts for one request, in a run whose page shows them."""

import time
from typing import TYPE_CHECKING

import dagster as dg

from data_platform.assets.unload_requests import event_of
from data_platform.resources.settings import SettingsResource

if TYPE_CHECKING:
    from data_platform.ledger.unload_requests import UnloadRequest
    from data_platform.unload.workers import Workers

JOB = "unload_request"
LOOK_S = 1.0
GRACE_S = 3.0


class RequestConfig(dg.Config):
    """Which request."""

    request_id: str


@dg.op(name="run_unload_request", pool="redshift")
def run_unload_request(context: dg.OpExecutionContext, config: RequestConfig, platform: SettingsResource) -> None:
    """Claim the request and bring it to its end; follows it where a worker has it already."""
    from data_platform.clients import aws, postgres
    from data_platform.ledger import unload_reports
    from data_platform.unload.workers import Workers

    settings = platform.load()
    ledger = postgres.engine(settings, pool_size=2)
    workers = Workers(settings, ledger, aws.s3(settings), count=0, run_id=context.run_id)
    workers.start()
    try:
        request = _to_its_end(context, workers, config.request_id)
        context.log_event(event_of(request))
        with ledger.begin() as connection:
            unload_reports.reported(connection, request)
    finally:
        workers.stop(GRACE_S)
        ledger.dispose()
    if request.status.value == "FAILED":
        raise dg.Failure(failure_of(request), allow_retries=False)


def failure_of(request: "UnloadRequest") -> str:
    """Why a request FAILED, and what its caller does."""
    return (
        f"the unload request {request.request_id} of {request.caller} FAILED: {request.error_message} "
        f"[{request.error_code}]\n  -> its caller, {request.caller}, has been told the "
        "same. Where its statement is wrong, the caller sends a corrected request and you have nothing to do. Where "
        "something of the warehouse or of the platform is wrong, put it right, then: "
        f"data-platform unload retry {request.request_id}"
    )


def _to_its_end(context: dg.OpExecutionContext, workers: "Workers", request_id: str) -> "UnloadRequest":
    from data_platform.ledger.unload_requests import FINAL

    told = ""
    while True:
        claim = workers.run_one(request_id)
        if claim is not None:
            context.log.info("attempt %d of %s has ended", claim.attempt, request_id)
        request = workers.find(request_id)
        if request is None:
            hint = "the ledger forgets old requests; there is nothing to do"
            raise dg.Failure(f"there is no unload request {request_id}\n  -> {hint}", allow_retries=False)
        if request.status.value != told:
            told = request.status.value
            context.log.info("%s is %s", request_id, told)
        if request.status in FINAL:
            return request
        time.sleep(LOOK_S)  # another worker has it: its end is seen in the ledger


@dg.job(name=JOB, description="Runs one unload request that nobody has claimed, or follows it to its end.")
def unload_request_job() -> None:
    """See run_unload_request."""
    run_unload_request()
