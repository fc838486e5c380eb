"""A running API on the embedded cloud, for all tests of this folder; callers with limits of their own."""

import os
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest
import sqlalchemy as sa

from data_platform.clients import postgres
from data_platform.ledger import api_tokens
from data_platform.local.cloud import Cloud
from tests.unload_api import ApiProcess, Client, make_table


@pytest.fixture(scope="session")
def table(cloud: Cloud) -> str:
    return make_table(cloud)


@pytest.fixture(scope="session")
def ledger(cloud: Cloud) -> Iterator[sa.Engine]:
    engine = postgres.engine(cloud.settings)
    yield engine
    engine.dispose()


@pytest.fixture(scope="session")
def api(cloud: Cloud, table: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiProcess]:
    """The API with two workers, for all tests of this process."""
    process = ApiProcess(cloud, tmp_path_factory.mktemp("api") / "api.log").start()
    yield process
    process.stop()


NewClient = Callable[..., Client]


@pytest.fixture
def new_client(api: ApiProcess, ledger: sa.Engine) -> NewClient:
    """Makes callers with limits of their own."""

    def make(*, schemas: tuple[str, ...] | None = None, **limits: Any) -> Client:
        with ledger.begin() as connection:
            name = f"caller-{uuid4().hex[:12]}"
            token = api_tokens.create(connection, name, schemas=schemas, limits=api_tokens.Limits(**limits))
        return Client(api.url, token)

    return make


@pytest.fixture
def client(new_client: NewClient) -> Client:
    """A caller with the default limits."""
    return new_client()


@pytest.fixture(autouse=True)
def _variables_stay_out(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DATA_PLATFORM_API_URL", "DATA_PLATFORM_API_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    assert os.environ.get("DATA_PLATFORM_API_TOKEN") is None
