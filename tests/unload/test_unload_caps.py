"""Caps on rows, bytes and time: a query over one is stopped, the request is FAILED by its name, nothing is left."""

import time
from collections.abc import Iterator
from uuid import uuid4

import pytest

from data_platform.local.cloud import Cloud
from tests.unload_bench import Bench, make_bench

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def bench(cloud: Cloud) -> Iterator[Bench]:
    with make_bench(cloud) as made:
        yield made


def test_more_rows_than_allowed_are_refused_when_the_query_has_ended(bench: Bench) -> None:
    request = bench.run("select id from market.api_rows", unload_max_rows=999)
    assert (request.status, request.error_code, request.error_message) == ("FAILED", "ROW_CAP", "more than 999 rows")
    assert bench.left(request) == []


def test_more_bytes_than_allowed_are_refused(bench: Bench) -> None:
    request = bench.run("select repeat('x', 3000) as a from market.api_rows", unload_max_mb=1)
    assert (request.status, request.error_code, request.error_message) == ("FAILED", "BYTE_CAP", "more than 1 MiB")
    assert bench.left(request) == []


def test_a_query_over_its_cap_is_stopped_while_it_runs(bench: Bench) -> None:
    name = f"c{uuid4().hex[:8]}"
    slow = bench.cloud.faults("warehouse").arm("unload.slow", match={"query": f"*{name}*"}, times=None, seconds=40)
    began = time.monotonic()
    request = bench.run(f"select id as {name} from market.api_rows", unload_max_rows=100)
    assert bench.cloud.faults("warehouse").struck(slow) >= 1
    assert (request.status, request.error_code) == ("FAILED", "ROW_CAP")
    assert "cancelled" in (request.error_message or "")
    assert bench.left(request) == []
    assert time.monotonic() - began < 40, "it was waited for, not stopped"


def test_a_query_beyond_its_time_is_ended_by_the_warehouse(bench: Bench) -> None:
    name = f"c{uuid4().hex[:8]}"
    slow = bench.cloud.faults("warehouse").arm("unload.slow", match={"query": f"*{name}*"}, times=None, seconds=40)
    request = bench.run(f"select id as {name} from market.api_rows", unload_max_seconds=1)
    assert bench.cloud.faults("warehouse").struck(slow) >= 1
    assert (request.status, request.error_code) == ("FAILED", "TIMEOUT")
    assert bench.left(request) == []
