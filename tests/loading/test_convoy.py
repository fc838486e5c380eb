"""Rows of several threads go together; whoever's insert failed hears of it, and nobody else."""

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from data_platform.errors import UnknownOutcomeError
from data_platform.loading.convoy import Convoy, Straggler

pytestmark = pytest.mark.unit


class Rows(Sequence[int]):
    """Rows that tell when a convoy has taken them."""

    def __init__(self, *numbers: int) -> None:
        self._numbers = numbers
        self.taken = threading.Event()

    def __getitem__(self, place: Any) -> Any:
        return self._numbers[place]

    def __len__(self) -> int:
        return len(self._numbers)

    def __iter__(self) -> Iterator[int]:
        yield from self._numbers
        self.taken.set()


def test_what_comes_while_an_insert_is_under_way_goes_with_the_next() -> None:
    sent: list[list[int]] = []
    first_is_under_way, go_on = threading.Event(), threading.Event()

    def send(rows: Sequence[int]) -> None:
        sent.append(list(rows))
        first_is_under_way.set()
        go_on.wait(30)

    convoy = Convoy(send)
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(convoy.append, [1])
        first_is_under_way.wait(30)
        waiting = [Rows(number, number) for number in (2, 3, 4)]
        others = [pool.submit(convoy.append, rows) for rows in waiting]
        for rows in waiting:
            assert rows.taken.wait(30)
        assert not any(each.done() for each in [first, *others])
        go_on.set()
        for each in [first, *others]:
            each.result(30)
    assert sent[0] == [1]
    assert [sorted(rows) for rows in sent[1:]] == [[2, 2, 3, 3, 4, 4]]


def test_an_error_is_raised_to_all_whose_rows_went_with_it_and_to_nobody_else() -> None:
    first_is_under_way, go_on = threading.Event(), threading.Event()

    def send(rows: Sequence[int]) -> None:
        first_is_under_way.set()
        go_on.wait(30)
        if 13 in rows:
            raise ConnectionError("gone")

    convoy = Convoy(send)
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(convoy.append, [1])
        first_is_under_way.wait(30)
        waiting = [Rows(2), Rows(13)]
        unlucky = [pool.submit(convoy.append, rows) for rows in waiting]
        for rows in waiting:
            assert rows.taken.wait(30)
        go_on.set()
        first.result(30)
        for each in unlucky:
            with pytest.raises(ConnectionError):
                each.result(30)
    convoy.append([3])


def test_nobody_waits_for_a_sender_that_was_ended() -> None:
    begun, go_on = threading.Event(), threading.Event()
    sent: list[int] = []

    def send(rows: Sequence[int]) -> None:
        if 1 in rows:
            begun.set()
            go_on.wait(30)
        if 2 in rows:
            raise SystemExit
        sent.extend(rows)

    convoy = Convoy(send)
    waiting = [Rows(2), Rows(3)]
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(convoy.append, [1])
        assert begun.wait(30)
        ended = pool.submit(convoy.append, waiting[0])
        assert waiting[0].taken.wait(30)
        follower = pool.submit(convoy.append, waiting[1])
        assert waiting[1].taken.wait(30)
        go_on.set()
        first.result(30)
        with pytest.raises(SystemExit):
            ended.result(30)
        with pytest.raises(UnknownOutcomeError, match="was ended"):
            follower.result(30)
    convoy.append([4])
    assert sent == [1, 4]


def test_no_row_is_lost_or_sent_twice() -> None:
    sent: list[int] = []
    convoy = Convoy(sent.extend)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: convoy.append([number]), range(2000)))
    assert sorted(sent) == list(range(2000))


def test_what_nobody_waits_for_goes_together_and_is_sent_before_the_end() -> None:
    sent: list[list[int]] = []
    straggler = Straggler[int](lambda rows: sent.append(list(rows)), 30)
    for number in range(3):
        straggler.append(number)
    straggler.finish()
    straggler.append(3)
    straggler.finish()
    straggler.finish()
    assert sent == [[0, 1, 2], [3]]


def test_what_could_not_be_sent_is_told_in_the_log_and_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    sent: list[int] = []

    def send(rows: Sequence[int]) -> None:
        if 1 in rows:
            raise ConnectionError("gone")
        sent.extend(rows)

    straggler = Straggler(send, 30)
    straggler.append(1)
    straggler.finish()
    straggler.append(2)
    straggler.finish()
    assert sent == [2]
    assert "1 rows were not sent" in caplog.text
