"""What all tests share: one embedded cloud per test process, settings that lead to it, and nothing left running.

A developer's shell must not leak in: variables that name engines are removed before anything is imported.
"""

import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from data_platform.local.cloud import Cloud
from data_platform.local.engine import ENGINES
from data_platform.local.process import ENGINE_VARIABLE_PREFIXES
from data_platform.settings import Settings

for _name in [name for name in os.environ if name.startswith(ENGINE_VARIABLE_PREFIXES)]:
    del os.environ[_name]


def _written(engine: str) -> bool:
    """Whether the engine exists in this tree."""
    try:
        spec = find_spec(ENGINES[engine].module)
    except ModuleNotFoundError:
        return False
    return spec is not None and spec.origin is not None and "ENGINE" in Path(spec.origin).read_text()


@pytest.fixture(scope="session")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """The whole embedded cloud of this test process, provisioned, in a folder and on ports of its own."""
    with Cloud(tmp_path_factory.mktemp("home")) as embedded:
        yield embedded.up(engines=[name for name in ENGINES if _written(name)])


@pytest.fixture(scope="session")
def settings(cloud: Cloud) -> Settings:
    """Settings that lead to the embedded cloud."""
    return cloud.settings


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test that uses the cloud is an integration test unless it says that it is something else."""
    kinds = {"unit", "integration", "scenario", "security", "load", "browser"}
    for item in items:
        if "cloud" in getattr(item, "fixturenames", ()) and not kinds & {mark.name for mark in item.iter_markers()}:
            item.add_marker(pytest.mark.integration)
