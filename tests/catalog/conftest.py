"""A ClickHouse of this folder's own, and small catalogues to change."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from data_platform.catalog import Catalog, load_catalog

SHIPPED = Path(__file__).resolve().parents[2] / "catalog"


@pytest.fixture(scope="session")
def shipped() -> Catalog:
    """The catalogue of the repository."""
    return load_catalog(SHIPPED)


@pytest.fixture(scope="session")
def _engine_client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    import clickhouse_connect

    from data_platform.local.process import EngineProcess

    engine = EngineProcess.with_free_ports("clickhouse", tmp_path_factory.mktemp("clickhouse"), {"env": {}}).start()
    try:
        client = clickhouse_connect.get_client(
            host=engine.env["CLICKHOUSE_HOST"],
            port=int(engine.env["CLICKHOUSE_PORT"]),
            username=engine.env["CLICKHOUSE_USER"],
            password=engine.env["CLICKHOUSE_PASSWORD"],
        )
        yield client
        client.close()
    finally:
        engine.stop()


@pytest.fixture
def clickhouse(_engine_client: Any) -> Iterator[Any]:
    """The embedded ClickHouse, without the databases of the catalogue."""
    for database in ("market", "customer", "product", "analytics"):
        _engine_client.command(f"DROP DATABASE IF EXISTS {database} SYNC")
    return _engine_client
