"""One warehouse, and the S3 it unloads to, for all tests of this folder; sessions over the drivers people use."""

import contextlib
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import boto3
import psycopg
import pytest
import redshift_connector

from data_platform.local.process import EngineProcess

BUCKET = "warehouse-tests"
ROLE = "arn:aws:iam::000000000000:role/redshift-unload"


@pytest.fixture(scope="session")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    engine = EngineProcess.with_free_ports("aws", tmp_path_factory.mktemp("aws")).start()
    yield engine
    engine.stop()


@pytest.fixture(scope="session")
def warehouse(tmp_path_factory: pytest.TempPathFactory, aws: EngineProcess) -> Iterator[EngineProcess]:
    engine = EngineProcess.with_free_ports("warehouse", tmp_path_factory.mktemp("warehouse"), {"env": aws.env}).start()
    yield engine
    engine.stop()


@pytest.fixture(autouse=True)
def _no_faults_left(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "warehouse" in request.fixturenames:
        request.getfixturevalue("warehouse").faults.clear()


@pytest.fixture(scope="session")
def s3(aws: EngineProcess) -> Any:
    client = boto3.client(
        "s3",
        endpoint_url=aws.env["AWS_ENDPOINT_URL"],
        aws_access_key_id=aws.env["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=aws.env["AWS_SECRET_ACCESS_KEY"],
        region_name=aws.env["AWS_DEFAULT_REGION"],
    )
    client.create_bucket(Bucket=BUCKET)
    return client


def redshift_session(engine: EngineProcess, **changes: Any) -> redshift_connector.Connection:
    """A session of redshift-connector, autocommit on."""
    env = engine.env
    arguments: dict[str, Any] = {
        "host": env["REDSHIFT_HOST"],
        "port": int(env["REDSHIFT_PORT"]),
        "database": env["REDSHIFT_DATABASE"],
        "user": env["REDSHIFT_USER"],
        "password": env["REDSHIFT_PASSWORD"],
        "ssl": False,
        "timeout": 30,
    }
    connection = redshift_connector.connect(**{**arguments, **changes})
    connection.autocommit = True
    return connection


def psycopg_session(engine: EngineProcess, **changes: Any) -> psycopg.Connection[Any]:
    """A session of psycopg through the front, autocommit on."""
    env = engine.env
    return psycopg.connect(
        host=env["REDSHIFT_HOST"],
        port=int(env["REDSHIFT_PORT"]),
        dbname=env["REDSHIFT_DATABASE"],
        user=env["REDSHIFT_USER"],
        password=changes.pop("password", env["REDSHIFT_PASSWORD"]),
        autocommit=True,
        **changes,
    )


Open = Callable[[], redshift_connector.Connection]


@pytest.fixture
def open_session(warehouse: EngineProcess) -> Iterator[Open]:
    """Opens sessions of redshift-connector that end with the test."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(redshift_session(warehouse))


@pytest.fixture
def session(open_session: Open) -> redshift_connector.Connection:
    return open_session()


@pytest.fixture
def psycopg_connection(warehouse: EngineProcess) -> Iterator[psycopg.Connection[Any]]:
    with psycopg_session(warehouse) as connection:
        yield connection


def rows(
    connection: redshift_connector.Connection, sql: str, parameters: tuple[object, ...] | None = None
) -> list[Any]:
    """Execute and fetch all."""
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return [tuple(row) for row in cursor.fetchall()] if cursor.description else []


def unload_sql(query: str, prefix: str, options: str = "") -> str:
    """An UNLOAD of `query` to the tests' bucket."""
    quoted = query.replace("\\", "\\\\").replace("'", "''")
    return f"UNLOAD ('{quoted}\n') TO 's3://{BUCKET}/{prefix}' IAM_ROLE '{ROLE}' {options}"


def run_until_it_fails(connection: redshift_connector.Connection, sql: str) -> None:
    """Execute what will be cut off; how the driver words a lost connection differs."""
    with contextlib.suppress(redshift_connector.Error, OSError, struct.error, ValueError):
        rows(connection, sql)
