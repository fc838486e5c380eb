"""A ClickHouse of this folder's own, and small catalogues to change."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from data_platform.catalog import Catalog, load_catalog
from data_platform.clients.clickhouse import connect
from data_platform.local.faults import FaultClient
from data_platform.local.process import EngineProcess
from data_platform.settings import Settings

SHIPPED = Path(__file__).resolve().parents[2] / "catalog"


@pytest.fixture(scope="session")
def shipped() -> Catalog:
    """The catalogue of the repository."""
    return load_catalog(SHIPPED)


@pytest.fixture(scope="session")
def clickhouse_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    """An embedded ClickHouse, alone: the catalogue needs no S3."""
    engine = EngineProcess.with_free_ports("clickhouse", tmp_path_factory.mktemp("clickhouse"), {"env": {}}).start()
    try:
        yield engine
    finally:
        engine.stop()


@pytest.fixture
def faults(clickhouse_engine: EngineProcess) -> Iterator[FaultClient]:
    """Its fault switches, off again afterwards."""
    yield clickhouse_engine.faults
    clickhouse_engine.faults.clear()


@pytest.fixture(scope="session")
def _engine_client(clickhouse_engine: EngineProcess) -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in clickhouse_engine.env.items():
            patch.setenv(name, value)
        client = connect(Settings())
    yield client
    client.close()


@pytest.fixture
def clickhouse(_engine_client: Any) -> Iterator[Any]:
    """The embedded ClickHouse, without the databases of the catalogue."""
    for database in ("market", "customer", "product", "analytics"):
        _engine_client.command(f"DROP DATABASE IF EXISTS {database} SYNC")
    return _engine_client
