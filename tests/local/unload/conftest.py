"""An S3 and a PostgreSQL for the UNLOAD executor alone: the protocol front is not involved here."""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import psycopg
import pytest

from data_platform.local.faults import FaultBoard, FaultClient
from data_platform.local.process import EngineProcess
from data_platform.local.warehouse.unload import FAULT_KINDS, execute_unload, parse_unload
from data_platform.local.warehouse.unload.contract import (
    ColumnFacts,
    UnloadEnvironment,
    UnloadOutcome,
    UnloadStatement,
    WarehouseError,
)

BUCKET = "unload-tests"


@dataclass
class ConnectionSource:
    """The inner SELECT over one psycopg connection; libpq hands out a row per call, so rows are gathered."""

    connection: psycopg.Connection[Any]
    query: str
    cancel: Callable[[], bool] = lambda: False

    def describe(self) -> list[ColumnFacts]:
        try:
            cursor = self.connection.execute(f"SELECT * FROM ({self.query}\n) AS unloaded LIMIT 0")
        except psycopg.Error as error:
            raise WarehouseError(error.sqlstate or "XX000", str(error)) from error
        names = dict(self.connection.execute("SELECT oid, typname FROM pg_type").fetchall())
        return [
            ColumnFacts(each.name, each.type_code, names[each.type_code], each.display_size, each.precision, each.scale)
            for each in cursor.description or ()
        ]

    def copy(self, format: str, **options: str) -> Iterator[bytes]:  # noqa: A002
        assert not options
        try:
            with self.connection.cursor().copy(f"COPY ({self.query}\n) TO STDOUT (FORMAT {format})") as copy:
                rows: list[bytes] = []
                for row in copy:
                    rows.append(bytes(row))
                    if len(rows) == 1000:
                        yield b"".join(rows)
                        rows = []
                yield b"".join(rows)
        except psycopg.Error as error:
            raise WarehouseError(error.sqlstate or "XX000", str(error)) from error

    def cancelled(self) -> bool:
        return self.cancel()


@dataclass(frozen=True)
class Engines:
    """The two engines' variables, the warehouse's ports, their fault switches."""

    env: dict[str, str]
    ports: dict[str, int]
    s3_faults: FaultClient
    warehouse_faults: FaultClient


@dataclass
class Bench:
    """Run UNLOADs and look at what they left."""

    s3: Any
    connection: psycopg.Connection[Any]
    environment: UnloadEnvironment
    prefix: str  # s3://bucket/<test>/
    faults: FaultBoard
    s3_faults: FaultClient
    seen: list[tuple[int, int, int]] = field(default_factory=list[tuple[int, int, int]])

    def statement(self, query: str, options: str = "", name: str = "") -> UnloadStatement:
        quoted = query.replace("\\", "\\\\").replace("'", "''")
        return parse_unload(f"UNLOAD ('{quoted}\n') TO '{self.prefix}{name}' IAM_ROLE default {options}")

    def unload(
        self, query: str, options: str = "", name: str = "", cancel: Callable[[], bool] = lambda: False
    ) -> UnloadOutcome:
        statement = self.statement(query, options, name)
        return execute_unload(statement, ConnectionSource(self.connection, statement.query, cancel), self.environment)

    def names(self) -> list[str]:
        """Names under the prefix, in order."""
        start = len(f"s3://{BUCKET}/")
        listing = self.s3.list_objects_v2(Bucket=BUCKET, Prefix=self.prefix[start:])
        return [each["Key"].removeprefix(self.prefix[start:]) for each in listing.get("Contents", [])]

    def data_names(self) -> list[str]:
        return [key for key in self.names() if not key.endswith("manifest")]

    def read(self, name: str) -> bytes:
        key = self.prefix[len(f"s3://{BUCKET}/") :] + name
        return self.s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()

    def read_all(self) -> bytes:
        """All data files one after the other, in the order of their names."""
        return b"".join(self.read(key) for key in self.data_names())

    def manifest(self, name: str = "manifest") -> dict[str, Any]:
        return json.loads(self.read(name))

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        return self.connection.execute(query).fetchall()


@pytest.fixture(scope="session")
def unload_engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engines]:
    home: Path = tmp_path_factory.mktemp("engines")
    home.chmod(0o755)
    aws = EngineProcess.with_free_ports("aws", home / "aws")
    aws.start()
    warehouse = EngineProcess.with_free_ports("warehouse", home / "warehouse", {"env": aws.env})
    try:
        warehouse.start()
        yield Engines({**aws.env, **warehouse.env}, warehouse.ports, aws.faults, warehouse.faults)
    finally:
        warehouse.stop()
        aws.stop()


@pytest.fixture(scope="session")
def unload_s3(unload_engines: Engines) -> Any:
    env = unload_engines.env
    s3 = boto3.client(
        "s3",
        endpoint_url=env["AWS_ENDPOINT_URL"],
        aws_access_key_id=env["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=env["AWS_SECRET_ACCESS_KEY"],
        region_name=env["AWS_DEFAULT_REGION"],
    )
    s3.create_bucket(Bucket=BUCKET)
    return s3


@pytest.fixture(scope="session")
def unload_connection(
    unload_engines: Engines,
) -> Iterator[psycopg.Connection[Any]]:
    env, ports = unload_engines.env, unload_engines.ports
    with psycopg.connect(
        host="127.0.0.1",
        port=ports["postgres"],
        dbname=env["REDSHIFT_DATABASE"],
        user=env["REDSHIFT_USER"],
        password=env["REDSHIFT_PASSWORD"],
        autocommit=True,
    ) as connection:
        yield connection


@pytest.fixture
def bench(
    unload_engines: Engines,
    unload_s3: Any,
    unload_connection: psycopg.Connection[Any],
    request: pytest.FixtureRequest,
) -> Bench:
    env = unload_engines.env
    faults = FaultBoard(FAULT_KINDS)
    unload_engines.s3_faults.clear()
    seen: list[tuple[int, int, int]] = []
    environment = UnloadEnvironment(
        s3_endpoint=env["AWS_ENDPOINT_URL"],
        access_key_id=env["AWS_ACCESS_KEY_ID"],
        secret_access_key=env["AWS_SECRET_ACCESS_KEY"],
        region=env["AWS_DEFAULT_REGION"],
        faults=faults,
        progress=lambda rows, size, files: seen.append((rows, size, files)),
    )
    folder = f"{os.getpid()}/{abs(hash(request.node.nodeid))}"
    return Bench(
        unload_s3, unload_connection, environment, f"s3://{BUCKET}/{folder}/", faults, unload_engines.s3_faults, seen
    )
