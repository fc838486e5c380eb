"""The stream of a request's changes: heartbeats while nothing happens, an end after a final state."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from data_platform.api import stream
from data_platform.ledger.unload_requests import Change
from data_platform.ledger.unloads import UnloadStatus

pytestmark = pytest.mark.unit


def change(number: int, status: UnloadStatus) -> Change:
    return Change(number, "r-1", 1, status, "somebody", datetime.now(UTC))


class Ledger:
    """Answers each look with the next list of changes, then with none."""

    def __init__(self, *answers: list[Change]) -> None:
        self._answers = list(answers)
        self.looks = 0

    def __call__(self, _statement: Any) -> Any:
        self.looks += 1
        return self._answers.pop(0) if self._answers else []


async def chunks(ledger: Any, *, looks: int = 1000) -> list[bytes]:
    told = stream.state_changes(ledger, "r-1", 0, ending=lambda: ledger.looks >= looks)
    return [chunk async for chunk in told]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "LOOK_S", 0.001)
    monkeypatch.setattr(stream, "HEARTBEAT_S", 0.003)


def test_silence_is_broken_by_heartbeats() -> None:
    told = asyncio.run(chunks(Ledger(*[[] for _ in range(20)], [change(7, UnloadStatus.DONE)])))
    assert told[0] == b"retry: 2000\n\n"
    assert told.count(b": heartbeat\n\n") >= 3
    assert told[-1].startswith(b"id: 7\nevent: state\ndata: {")


def test_it_ends_after_a_final_state_and_with_the_process() -> None:
    states = (UnloadStatus.RUNNING, UnloadStatus.FAILED, UnloadStatus.PENDING)
    ended = Ledger(*([change(number, status)] for number, status in enumerate(states, start=1)))
    assert [chunk for chunk in asyncio.run(chunks(ended)) if b"id: " in chunk][-1].startswith(b"id: 2\n")
    open_ = Ledger()
    asyncio.run(chunks(open_, looks=5))
    assert open_.looks == 5
