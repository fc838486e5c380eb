"""Fault switches: what strikes, how often, and over the control port of a child."""

import threading
from collections.abc import Iterator

import pytest

from data_platform.local.engine import serve_control
from data_platform.local.faults import FaultBoard, FaultClient

pytestmark = pytest.mark.unit


@pytest.fixture
def board() -> FaultBoard:
    return FaultBoard(("s3.truncate", "s3.slow"))


@pytest.fixture
def client(board: FaultBoard) -> Iterator[FaultClient]:
    server = serve_control(board)
    yield FaultClient(f"http://127.0.0.1:{server.server_port}")
    server.shutdown()
    server.server_close()


def test_a_rule_strikes_as_often_as_it_was_told(board: FaultBoard) -> None:
    fault = board.arm("s3.truncate", times=2)
    assert [board.strike("s3.truncate") is not None for _ in range(4)] == [True, True, False, False]
    assert board.rules()[0]["id"] == fault
    assert board.rules()[0]["struck"] == 2


def test_a_rule_lets_the_first_matching_calls_pass(board: FaultBoard) -> None:
    board.arm("s3.truncate", match={"key": "market/*"}, skip=1)
    assert board.strike("s3.truncate", key="product/a") is None
    assert board.strike("s3.truncate", key="market/a") is None
    assert board.strike("s3.truncate", key="market/b") is not None


def test_without_a_limit_a_rule_strikes_until_it_is_disarmed(board: FaultBoard) -> None:
    fault = board.arm("s3.slow", times=None)
    assert all(board.strike("s3.slow") for _ in range(10))
    board.disarm(fault)
    assert board.strike("s3.slow") is None
    assert board.rules()[0]["struck"] == 10


def test_an_unknown_kind_and_unfit_arguments_are_refused(board: FaultBoard) -> None:
    def needs_bytes(args: object) -> None:
        if args != {"bytes": 3}:
            raise ValueError("needs bytes=3")

    board.check_arguments("s3.truncate", needs_bytes)
    with pytest.raises(ValueError, match=r"unknown fault 's3\.melt'; known: s3\.slow, s3\.truncate"):
        board.arm("s3.melt")
    with pytest.raises(ValueError, match="needs bytes=3"):
        board.arm("s3.truncate")
    assert board.rules() == []
    board.arm("s3.truncate", args={"bytes": 3})


def test_many_threads_cannot_strike_more_often_than_allowed(board: FaultBoard) -> None:
    board.arm("s3.slow", times=50)
    struck: list[object] = []

    def work() -> None:
        struck.extend(rule for rule in (board.strike("s3.slow") for _ in range(50)) if rule)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(struck) == 50


def test_the_client_arms_counts_and_disarms_over_http(board: FaultBoard, client: FaultClient) -> None:
    fault = client.arm("s3.truncate", match={"key": "a*"}, times=None, bytes=7)
    rule = board.strike("s3.truncate", key="abc")
    assert rule is not None
    assert rule.args == {"bytes": 7}
    assert client.struck(fault) == 1
    client.disarm(fault)
    assert board.strike("s3.truncate", key="abc") is None
    assert client.struck(fault) == 1
    client.clear()
    assert client.rules() == []


def test_the_client_passes_on_why_it_was_refused(client: FaultClient) -> None:
    with pytest.raises(ValueError, match=r"unknown fault 's3\.melt'"):
        client.arm("s3.melt")
