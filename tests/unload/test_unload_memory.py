"""What a worker holds does not grow with the result: it asks S3 for the manifest and the listing, never for a file."""

import tracemalloc
from collections.abc import Iterator

import pytest

from data_platform.local.cloud import Cloud
from tests.unload_bench import Bench, make_bench

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def bench(cloud: Cloud) -> Iterator[Bench]:
    with make_bench(cloud) as made:
        yield made


def most_held(bench: Bench, rows: int) -> tuple[int, int]:
    """Bytes that Python held at most for a result of `rows` rows of 1,000 bytes, and the bytes of the result."""
    tracemalloc.start()
    try:
        request = bench.run(f"select repeat('x', 1000) as a from market.api_rows a cross join market.api_rows b"
                            f" where a.id <= {rows // 1000}")  # fmt: skip
        return tracemalloc.get_traced_memory()[1], request.bytes or 0
    finally:
        tracemalloc.stop()


def test_memory_does_not_follow_the_result(bench: Bench) -> None:
    most_held(bench, 1000)  # what is imported and connected once
    small, small_size = most_held(bench, 1000)
    large, large_size = most_held(bench, 20_000)
    assert large_size > 15 * small_size > 15_000_000
    assert large < small + 2_000_000


def test_no_file_of_a_result_is_read(bench: Bench) -> None:
    faults = bench.cloud.faults("aws")
    manifest = faults.arm(
        "s3.delay", match={"method": "GET", "key": "unload-results/*/manifest"}, times=None, seconds=0
    )
    anything = faults.arm("s3.delay", match={"method": "GET", "key": "unload-results/*"}, times=None, seconds=0)
    request = bench.run("select * from market.api_rows")
    assert (request.status.value, len(bench.left(request))) == ("DONE", len(request.files) + 1)
    assert (faults.struck(manifest), faults.struck(anything)) == (1, 0)  # the first that fits is the one that strikes
