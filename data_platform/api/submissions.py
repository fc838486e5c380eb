"""Accepting requests: those that arrive together are written by one statement, so that a burst waits for one commit.

One task per process; the answer of a call is given after its commit, never before.
"""

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from anyio.to_thread import run_sync

from data_platform.api.callers import Caller
from data_platform.api.problems import ApiError
from data_platform.api.statements import Statements
from data_platform.ledger import unload_requests
from data_platform.ledger.unload_requests import NewRequest, UnloadRequest

if TYPE_CHECKING:
    from sqlalchemy import Connection

BATCH = 200
Answer = tuple[UnloadRequest, bool] | ApiError


@dataclass(frozen=True)
class _Waiting:
    request: NewRequest
    caller: Caller
    answer: "asyncio.Future[Answer]"


class Submissions:
    """Writes what waits. Belongs to one event loop; `run` it in a task."""

    def __init__(self, ask: Statements) -> None:
        self._ask = ask
        self._queue: asyncio.Queue[_Waiting] = asyncio.Queue()

    async def accept(self, request: NewRequest, caller: Caller) -> tuple[UnloadRequest, bool]:
        """The request as it stands, and whether it is new. Raises ApiError 403 or 429 by the caller's quotas."""
        waiting = _Waiting(request, caller, asyncio.get_running_loop().create_future())
        self._queue.put_nowait(waiting)
        answer = await waiting.answer
        if isinstance(answer, ApiError):
            raise answer
        return answer

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            batch = [await self._queue.get()]
            while not self._queue.empty() and len(batch) < BATCH:
                batch.append(self._queue.get_nowait())
            try:
                answers = await run_sync(self._ask, lambda connection, batch=batch: self._write(connection, batch))
            except Exception as error:  # noqa: BLE001 - it is each caller's answer, not this task's end
                for waiting in batch:
                    if not waiting.answer.done():
                        waiting.answer.set_exception(error)
                continue
            for waiting, answer in zip(batch, answers, strict=True):
                if not waiting.answer.done():  # the client may have gone
                    waiting.answer.set_result(answer)

    def _write(self, connection: "Connection", batch: list[_Waiting]) -> list[Answer]:
        refused = self._over_quota(connection, batch)
        wanted = [waiting.request for n, waiting in enumerate(batch) if n not in refused]
        accepted = iter(unload_requests.submit(connection, wanted) if wanted else ())
        return [refused[n] if n in refused else next(accepted) for n in range(len(batch))]

    def _over_quota(self, connection: "Connection", batch: list[_Waiting]) -> dict[int, ApiError]:
        """Which of the batch are new and one too many. A repetition of an accepted one never is."""
        callers = {waiting.caller.name: waiting.caller for waiting in batch}
        load = unload_requests.load_of(connection, list(callers))
        today = {
            name: unload_requests.accepted_today(connection, name)
            for name, caller in callers.items()
            if caller.limits.daily_requests is not None
        }
        coming: dict[str, int] = dict.fromkeys(callers, 0)
        refused: dict[int, ApiError] = {}
        for n, waiting in enumerate(batch):
            name, limits = waiting.caller.name, waiting.caller.limits
            many = load.get(name, 0) + coming[name] >= limits.max_open
            spent = limits.daily_requests is not None and today[name] + coming[name] >= limits.daily_requests
            if (many or spent) and unload_requests.get(connection, waiting.request.request_id) is None:
                refused[n] = (
                    ApiError(403, f"the quota of {limits.daily_requests} requests in 24 hours is spent")
                    if spent
                    else ApiError(429, f"{limits.max_open} requests wait or run already", headers={"Retry-After": "10"})
                )
            else:
                coming[name] += 1
        return refused
