"""A fresh, empty database per test on the embedded PostgreSQL."""

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from data_platform.ledger import migrate


@pytest.fixture
def new_database(cloud: Any) -> Iterator[Any]:
    """Call it for another empty database; all are dropped at the end."""
    url = sa.make_url(cloud.settings.postgres_url.get_secret_value())
    server = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    engines: list[sa.Engine] = []

    def make() -> sa.Engine:
        name = f"t_{uuid.uuid4().hex}"
        with server.connect() as connection:
            connection.execute(sa.text(f"CREATE DATABASE {name}"))
        engines.append(sa.create_engine(url.set(database=name)))
        return engines[-1]

    yield make
    for engine in engines:
        engine.dispose()
        with server.connect() as connection:
            connection.execute(sa.text(f"DROP DATABASE {engine.url.database} WITH (FORCE)"))
    server.dispose()


@pytest.fixture
def ledger(new_database: Any) -> sa.Engine:
    """A database at the newest schema."""
    engine = new_database()
    migrate(engine)
    return engine
