"""What all tests share: one embedded cloud per test process, settings that lead to it, and nothing left running.

A developer's shell must not leak in: variables that name engines are removed before anything is imported.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from data_platform.local.cloud import Cloud
from data_platform.local.process import ENGINE_VARIABLE_PREFIXES, MARKER_VARIABLE
from data_platform.settings import Settings

for _name in [name for name in os.environ if name.startswith(ENGINE_VARIABLE_PREFIXES)]:
    del os.environ[_name]

KINDS = {"unit", "integration", "scenario", "security", "load", "browser"}


@pytest.fixture(scope="session")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """The whole embedded cloud of this test process, provisioned, in a folder and on ports of its own."""
    with Cloud(tmp_path_factory.mktemp("home")) as embedded:
        yield embedded.up()


@pytest.fixture(scope="session")
def settings(cloud: Cloud) -> Settings:
    """Settings that lead to the embedded cloud."""
    return cloud.settings


@pytest.fixture(autouse=True)
def _cloud_is_handed_on_whole(request: pytest.FixtureRequest) -> Iterator[None]:
    """No fault armed by one test strikes in the next, and a test that leaves an engine dead fails itself."""
    embedded: Cloud | None = request.getfixturevalue("cloud") if "cloud" in request.fixturenames else None
    yield
    if embedded is None:
        return
    dead = [name for name, alive in embedded.running().items() if not alive]
    for name in dead:
        embedded.restart(name)
    for name in embedded.running():
        embedded.faults(name).clear()
    assert not dead, f"left dead: {', '.join(dead)}"


@pytest.fixture(scope="session", autouse=True)
def _nothing_is_left_running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Set up first, so torn down last: no engine and no supervisor under this run's temporary folder may be left."""
    yield
    leaked = _processes_of(tmp_path_factory.getbasetemp())
    for process in leaked:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    assert not leaked, f"left running: {leaked}"


def _processes_of(folder: Path) -> list[psutil.Process]:
    """Living processes that belong to an embedded cloud below `folder`, by mark or by command line."""
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            marked = process.environ().get(MARKER_VARIABLE, "").startswith(f"{folder}/")
            hosting = "data_platform.local.supervisor" in process.cmdline() and f"{folder}/" in str(process.cmdline())
            if (marked or hosting) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test that uses the cloud is an integration test unless it says that it is something else."""
    for item in items:
        if "cloud" in getattr(item, "fixturenames", ()) and not KINDS & {mark.name for mark in item.iter_markers()}:
            item.add_marker(pytest.mark.integration)
