"""Rows of several threads go together; whoever's insert failed hears of it, and nobody else."""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from data_platform.loading.convoy import Convoy

pytestmark = pytest.mark.unit


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
        others = [pool.submit(convoy.append, [number, number]) for number in (2, 3, 4)]
        while len(convoy.waiting()) < 6:
            pass
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
        unlucky = [pool.submit(convoy.append, [number]) for number in (2, 13)]
        while len(convoy.waiting()) < 2:
            pass
        go_on.set()
        first.result(30)
        for each in unlucky:
            with pytest.raises(ConnectionError):
                each.result(30)
    convoy.append([3])


def test_no_row_is_lost_or_sent_twice() -> None:
    sent: list[int] = []
    convoy = Convoy(sent.extend)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: convoy.append([number]), range(2000)))
    assert sorted(sent) == list(range(2000))
