"""The bench of the CSV batch, fresh for each test."""

import uuid
from collections.abc import Iterator

import pytest

from data_platform.local.cloud import Cloud
from tests.statistics.bench import Bench, emptied, make_bench


@pytest.fixture(scope="module")
def module_bench(cloud: Cloud) -> Iterator[Bench]:
    """One database for the tests of this module."""
    yield from make_bench(cloud, f"s_{uuid.uuid4().hex}")


@pytest.fixture
def bench(module_bench: Bench) -> Bench:
    """The module's database, empty but for 100 users."""
    return emptied(module_bench)
