"""Kafka, PostgreSQL, ClickHouse: what is missing is made, a refusal has a reason, the unsafe is left to a person."""

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from pydantic import SecretStr

from data_platform.catalog import Catalog, load_catalog
from data_platform.clients import clickhouse, kafka
from data_platform.errors import ConfigurationError, Fault, PlatformError
from data_platform.ledger import schema
from data_platform.local.process import free_port
from data_platform.provisioning import Change, provision
from data_platform.settings import Settings

pytestmark = pytest.mark.integration


@pytest.fixture
def server(cloud: Any) -> Iterator[sa.Engine]:
    """The embedded PostgreSQL, in autocommit."""
    engine = sa.create_engine(cloud.settings.postgres_url.get_secret_value(), isolation_level="AUTOCOMMIT")
    yield engine
    engine.dispose()


@pytest.fixture
def without_database(cloud: Any, server: sa.Engine) -> Iterator[Settings]:
    """Settings whose PostgreSQL databases do not exist yet."""
    name = f"t_{uuid.uuid4().hex}"
    url = server.url.set(database=name)
    yield cloud.settings.model_copy(
        update={
            "postgres_url": SecretStr(url.render_as_string(hide_password=False)),
            "dagster_postgres_url": SecretStr(
                url.set(drivername="postgresql", database=f"{name}_dagster").render_as_string(hide_password=False)
            ),
        }
    )
    with server.connect() as connection:
        for database in (name, f"{name}_dagster"):
            connection.execute(sa.text(f"DROP DATABASE IF EXISTS {database} WITH (FORCE)"))


def test_missing_databases_are_made_and_migrated(without_database: Settings) -> None:
    assert without_database.postgres_url is not None
    url = sa.make_url(without_database.postgres_url.get_secret_value())
    assert set(provision(without_database, only=["postgres"]).changes) == {
        Change("database", str(url.database), "create"),
        Change("database", f"{url.database}_dagster", "create"),
        Change("ledger schema", schema.head(), "update"),
    }
    engine = sa.create_engine(url)
    assert "unload_requests" in sa.inspect(engine).get_table_names()
    engine.dispose()
    assert provision(without_database, only=["postgres"]).changes == ()


def test_a_dry_run_makes_no_database(without_database: Settings) -> None:
    for _ in range(2):
        planned = provision(without_database, only=["postgres"], dry_run=True)
        assert [change.kind for change in planned.changes] == ["database", "database"]


@pytest.mark.security
def test_a_user_who_may_not_make_databases_is_told_what_an_administrator_does(
    without_database: Settings, server: sa.Engine
) -> None:
    role = f"t_{uuid.uuid4().hex[:12]}"
    with server.connect() as connection:
        connection.execute(sa.text(f"CREATE ROLE {role} LOGIN PASSWORD 'geheim'"))
    assert without_database.postgres_url is not None
    url = sa.make_url(without_database.postgres_url.get_secret_value()).set(username=role, password="geheim")
    limited = without_database.model_copy(
        update={"postgres_url": SecretStr(url.render_as_string(hide_password=False)), "dagster_postgres_url": None}
    )
    try:
        with pytest.raises(
            ConfigurationError, match=f"not allowed: CREATE DATABASE {url.database} as {role}"
        ) as caught:
            provision(limited, only=["postgres"])
    finally:
        with server.connect() as connection:
            connection.execute(sa.text(f"DROP ROLE {role}"))
    assert f"CREATE DATABASE {url.database} OWNER {role}" in str(caught.value)


@pytest.mark.security
def test_a_wrong_password_is_told_without_the_password(cloud: Any) -> None:
    url = sa.make_url(cloud.settings.postgres_url.get_secret_value()).set(password="geheim")
    wrong = cloud.settings.model_copy(update={"postgres_url": SecretStr(url.render_as_string(hide_password=False))})
    with pytest.raises(PlatformError, match="password authentication failed") as caught:
        provision(wrong, only=["postgres"])
    assert caught.value.fault is Fault.CONFIGURATION
    assert "geheim" not in str(caught.value)


def test_engines_that_are_down_are_told_together(cloud: Any) -> None:
    gone = free_port()
    down = cloud.settings.model_copy(
        update={"postgres_url": SecretStr(f"postgresql+psycopg://u:p@127.0.0.1:{gone}/d"), "clickhouse_port": gone}
    )
    with pytest.raises(PlatformError) as caught:
        provision(down, only=["postgres", "clickhouse"])
    assert f"PostgreSQL 127.0.0.1:{gone}/d" in str(caught.value)
    assert f"ClickHouse 127.0.0.1:{gone}" in str(caught.value)
    assert caught.value.fault is Fault.TRANSIENT


@pytest.fixture
def own_catalog(settings: Settings) -> Iterator[Catalog]:
    """The catalogue's `market` under a name of its own: a database nobody made yet."""
    catalog = load_catalog(settings.catalog)
    name = f"t_{uuid.uuid4().hex[:12]}"
    domain = catalog.domains["market"].model_copy(update={"name": name})
    datasets = {
        f"{name}/{dataset.name}": dataset.model_copy(update={"domain": name}) for dataset in catalog.in_domain("market")
    }
    yield Catalog(datasets=datasets, domains={name: domain}, services={}, topics={})
    with clickhouse.connect(settings) as client:
        client.command(f"DROP DATABASE IF EXISTS {name} SYNC")


def test_clickhouse_tables_are_made_from_the_catalogue_once(settings: Settings, own_catalog: Catalog) -> None:
    (domain,) = own_catalog.domains
    report = provision(settings, catalog=own_catalog, only=["clickhouse"])
    assert Change("clickhouse", domain, "create") in report.changes
    assert Change("clickhouse", f"{domain}.flights", "create") in report.changes
    assert provision(settings, catalog=own_catalog, only=["clickhouse"]).changes == ()
    with clickhouse.connect(settings) as client:
        tables = client.query(f"SELECT name FROM system.tables WHERE database = '{domain}'").result_rows
    assert ("flights",) in {tuple(row) for row in tables}


def test_the_loaders_own_tables_are_made(settings: Settings) -> None:
    with clickhouse.connect(settings) as client:
        tables = client.query("SELECT name FROM system.tables WHERE database = 'platform'").result_rows
    assert {"objects", "partitions"} <= {row[0] for row in tables}


def test_a_table_that_a_person_must_decide_about_is_left_and_told(settings: Settings, own_catalog: Catalog) -> None:
    (domain,) = own_catalog.domains
    with clickhouse.connect(settings) as client:
        client.command(f"CREATE DATABASE {domain}")
        client.command(f"CREATE TABLE {domain}.flights (a Int8) ENGINE = MergeTree ORDER BY a")
    report = provision(settings, catalog=own_catalog, only=["clickhouse"])
    told = [skipped for skipped in report.skipped if skipped.part == f"clickhouse {domain}.flights"]
    assert told
    with clickhouse.connect(settings) as client:
        assert client.query(f"DESCRIBE {domain}.flights").result_rows[0][0] == "a"


def test_missing_topics_are_made_with_the_catalogues_partitions(settings: Settings) -> None:
    name = f"t-{uuid.uuid4().hex[:8]}"
    catalog = load_catalog(settings.catalog)
    topic = catalog.topics["user-events"].model_copy(update={"name": name, "partitions": 5})
    own = Catalog(datasets={}, domains={}, services={}, topics={name: topic})
    assert provision(settings, catalog=own, only=["kafka"]).changes == (Change("topic", name, "create"),)
    found = kafka.admin(settings).list_topics(topic=name, timeout=10).topics[name]
    assert len(found.partitions) == 5
    assert provision(settings, catalog=own, only=["kafka"]).changes == ()


def test_a_topic_with_other_partitions_is_left_and_told(settings: Settings) -> None:
    catalog = load_catalog(settings.catalog)
    topic = catalog.topics["user-events"].model_copy(update={"partitions": 9})
    own = Catalog(datasets={}, domains={}, services={}, topics={topic.name: topic})
    report = provision(settings, catalog=own, only=["kafka"])
    assert report.changes == ()
    assert [(skipped.part, skipped.reason) for skipped in report.skipped] == [
        ("topic user-events", "has 3 partitions, not 9")
    ]
