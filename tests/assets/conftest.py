"""Runs of the platform's own definitions, in this process, on a catalogue of the test's."""

from collections.abc import Iterator

import pytest

from data_platform.local.cloud import Cloud
from tests.flow_runs import FlowRuns, flow_runs

SQL = (
    "SELECT s.day, s.id, upper(n.name) AS name, s.price * s.quantity AS amount "
    "FROM {domain}.sales AS s JOIN {domain}.names AS n ON n.id = s.id"
)


@pytest.fixture(scope="module")
def runs(cloud: Cloud, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlowRuns]:
    """Daily items, a snapshot, and a dataset made of a join."""
    with flow_runs(
        cloud, tmp_path_factory.mktemp("catalog"), "items", {"name": "plans", "mode": "snapshot"},
        {"name": "revenue", "sql": SQL}, lease_s=30,  # nobody is killed here, and a busy machine may pause
    ) as runs:  # fmt: skip
        yield runs
