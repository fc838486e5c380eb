"""A request's changes of state as server-sent events, from the ledger: a client that comes back misses none."""

import asyncio
from collections.abc import AsyncIterator, Callable

import orjson
from anyio.to_thread import run_sync

from data_platform.api.models import rfc3339
from data_platform.api.statements import Statements
from data_platform.ledger import unload_requests
from data_platform.ledger.unload_requests import FINAL, Change

LOOK_S = 0.5
HEARTBEAT_S = 10.0  # load balancers close what is silent for 60 s


async def state_changes(
    ask: Statements, request_id: str, after: int, *, ending: Callable[[], bool]
) -> AsyncIterator[bytes]:
    """Events since number `after`, then as they come, with heartbeats between; ends after a final state."""
    quiet = 0.0
    yield b"retry: 2000\n\n"
    while not ending():
        changes = await run_sync(_read, ask, request_id, after)
        for change in changes:
            after = change.id
            yield _event(change)
        if changes:
            quiet = 0.0
            if changes[-1].status in FINAL:
                return
        elif quiet >= HEARTBEAT_S:
            quiet = 0.0
            yield b": heartbeat\n\n"
        await asyncio.sleep(LOOK_S)
        quiet += LOOK_S


def _read(ask: Statements, request_id: str, after: int) -> list[Change]:
    return ask(lambda connection: unload_requests.changes(connection, request_id, after))


def _event(change: Change) -> bytes:
    data = {
        "requestId": change.request_id,
        "status": change.status.value,
        "attempt": change.attempt,
        "at": rfc3339(change.at),
    }
    return b"id: %d\nevent: state\ndata: %s\n\n" % (change.id, orjson.dumps(data))
