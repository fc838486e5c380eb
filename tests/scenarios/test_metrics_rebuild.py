"""Raw logs of the sample shops to the seven tables with one command, and again after late logs, exactly."""

import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from data_platform.analytics.metrics import METRICS
from data_platform.analytics.report import NAMESPACE
from data_platform.assets.summary_columns import COLUMNS
from data_platform.catalog import load_catalog
from data_platform.cli.metrics import app
from data_platform.clients import aws, clickhouse
from data_platform.jobs.instance import open_instance
from data_platform.local.cloud import Cloud
from data_platform.local.sample.otel import SECONDS_A_DAY, LogObject, log_objects
from data_platform.local.sample.shop import NANOSECONDS, SHOPS, shop_events
from tests.analytics.random_logs import utc_day
from tests.analytics.reference import Definitions, Event, Reference

pytestmark = pytest.mark.scenario
ZONES = {shop.service: shop.time_zone for shop in SHOPS}
DAYS = 3
ONE = ("--service", "theshop-brand")  # where it does not matter whose tables are computed


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """A cloud of its own: the shops' tables must hold what these tests put there and nothing else."""
    with Cloud(tmp_path_factory.mktemp("shops")) as cloud:
        yield cloud.up()


@pytest.fixture
def environment(own: Cloud, monkeypatch: pytest.MonkeyPatch) -> Cloud:
    for name, value in own.process_env.items():
        monkeypatch.setenv(name, value)
    return own


@dataclass(frozen=True)
class FirstRun:
    """What the command told of the first days' logs, and CloudWatch of each service: succeeded, failed, seconds."""

    summary: dict[str, Any]
    metrics: dict[str, tuple[float, float, float]]


@pytest.fixture(scope="module")
def first(own: Cloud) -> FirstRun:
    """The first days' logs are there and the command was run once, whichever test comes first."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in own.process_env.items():
            patch.setenv(name, value)
        wanted = {key for objects in delivered(DAYS).values() for key, _ in objects}
        put(own, [each for each in logs() if each.key in wanted])
        summary = rebuild()
    names = ("ExecutionsSucceeded", "ExecutionsFailed", "ExecutionTime")
    told = {shop.service: [executions(own, name, shop.service) for name in names] for shop in SHOPS}
    return FirstRun(summary, {service: (a, b, c) for service, (a, b, c) in told.items()})


@cache
def logs() -> tuple[LogObject, ...]:
    return tuple(log_objects(days=DAYS + 1))


@cache
def delivered(number: int) -> dict[str, list[tuple[str, list[Event]]]]:
    """What the shops logged on each of the first `number` days of export: (object key, its events in their order)."""
    found: dict[str, list[tuple[str, list[Event]]]] = {}
    for shop in SHOPS:
        own = [each for each in logs() if f"/{shop.service}_logs_" in each.key]
        days: dict[int, list[Any]] = {}
        for event in shop_events(shop):
            days.setdefault(event.delivered_ns // NANOSECONDS // SECONDS_A_DAY, []).append(event)
        found[shop.service] = [
            (
                log.key,
                [
                    Event(e.time_ns, e.name, e.user_id, e.session_id, e.uid, log.key, position)
                    for position, e in enumerate(events)
                ],
            )
            for log, events in zip(own[:number], days.values(), strict=False)
        ]
    return found


def put(cloud: Cloud, objects: list[LogObject]) -> None:
    s3 = aws.s3(cloud.settings)
    for each in objects:
        s3.put_object(Bucket=cloud.settings.raw_bucket, Key=each.key, Body=each.body)


def rebuild(*arguments: str) -> dict[str, Any]:
    result = CliRunner().invoke(app, ["rebuild", "--json", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def executions(cloud: Cloud, name: str, service: str) -> float:
    """What CloudWatch was told of a service in the last hour."""
    dimensions = {"Environment": cloud.settings.env, "Service": service, "Engine": "clickhouse"}
    now = datetime.now(UTC)
    found = aws.cloudwatch(cloud.settings).get_metric_statistics(
        Namespace=NAMESPACE,
        MetricName=name,
        Dimensions=[{"Name": name, "Value": value} for name, value in dimensions.items()],
        StartTime=now - timedelta(hours=1),
        EndTime=now + timedelta(minutes=1),
        Period=7200,
        Statistics=["Sum"],
    )
    return sum(point.get("Sum", 0) for point in found["Datapoints"])


def compare(cloud: Cloud, expected: dict[str, list[tuple[str, list[Event]]]]) -> None:
    services = load_catalog(cloud.settings.catalog).services
    s3 = aws.s3(cloud.settings)
    with clickhouse.connect(cloud.settings) as client:
        for name, objects in expected.items():
            reference = Reference([e for _, events in objects for e in events], Definitions(ZONES[name]))
            for metric in METRICS:
                table = f"analytics.{services[name].prefix}_{metric}_summary"
                rows = sorted(map(tuple, client.query(f"SELECT * EXCEPT execution_date FROM {table}").result_rows))
                assert rows == getattr(reference, metric)(), f"{table} differs"
                key = f"summary/{name}/{metric}/{metric}.parquet"
                body = s3.get_object(Bucket=cloud.settings.curated_bucket, Key=key)["Body"].read()
                exported = pq.read_table(io.BytesIO(body)).drop(["execution_date"])
                assert sorted(tuple(row.values()) for row in exported.to_pylist()) == rows


def test_one_command_makes_the_tables_and_late_logs_change_exactly_their_days(
    environment: Cloud, first: FirstRun
) -> None:
    summary = first.summary
    assert summary["status"] == "SUCCESS"
    assert summary["execution_summary"]["processed_services"] == len(SHOPS)
    assert len(summary["tables"]) == len(SHOPS) * len(METRICS)
    assert summary["curated_days"] == summary["loaded_days"] > 0
    assert summary["bytes_scanned"] > 0
    assert summary["estimated_cost_usd"] == 0
    for succeeded, failed, seconds in first.metrics.values():
        assert (succeeded, failed) == (len(METRICS), 0)
        assert seconds > 0
    compare(environment, delivered(DAYS))
    with open_instance(environment.settings) as instance:
        made = instance.get_latest_materialization_event(dg.AssetKey(["summaries", "theshop_brand", "dau"]))
        assert made is not None
        assert made.asset_materialization is not None
        read: Any = made.asset_materialization.metadata["read"].value
        assert read["source"] == "clickhouse/analytics/events"
        assert re.fullmatch(r"revision \d+", read["version"])

    again = rebuild(*ONE)
    assert (again["curated_days"], again["loaded_days"]) == (0, 0)

    # The next export brings its own day and stragglers of the days before.
    known = {key for objects in delivered(DAYS).values() for key, _ in objects}
    late = {key for objects in delivered(DAYS + 1).values() for key, _ in objects} - known
    put(environment, [each for each in logs() if each.key in late])
    # A range takes in its own days only; the next run without one takes in the rest.
    stale = {
        utc_day(event)
        for objects in delivered(DAYS + 1).values()
        for key, events in objects
        if key in late
        for event in events
    }
    day = str(min(stale))
    one = rebuild("--from", day, "--to", day, *ONE)
    assert (one["curated_days"], one["loaded_days"], one["left_days"]) == (1, 1, len(stale) - 1)
    assert 2 <= len(stale) <= DAYS
    rest = rebuild()
    assert (rest["curated_days"], rest["left_days"]) == (one["left_days"], 0)
    compare(environment, delivered(DAYS + 1))


@pytest.mark.usefixtures("first")
def test_the_assets_tell_the_columns_that_the_tables_have(environment: Cloud) -> None:
    with clickhouse.connect(environment.settings) as client:
        found = {
            metric: {row[0]: row[1] for row in client.query(f"DESCRIBE TABLE {table}").result_rows}
            for metric, table in ((each, f"analytics.theshop_brand_{each}_summary") for each in METRICS)
        }
    wanted = {metric: {name: type_ for name, (type_, _) in columns.items()} for metric, columns in COLUMNS.items()}
    assert found == wanted
    assert [list(columns) for columns in found.values()] == [list(wanted[metric]) for metric in found]
    events = {column.name for column in load_catalog(environment.settings.catalog).dataset("analytics/events").columns}
    assert {dep for columns in COLUMNS.values() for _, deps in columns.values() for dep in deps} <= events


def test_a_range_that_ends_before_it_begins_is_refused(environment: Cloud) -> None:
    result = CliRunner().invoke(app, ["rebuild", "--from", "2013-01-02", "--to", "2013-01-01"])
    assert result.exit_code == 2
    assert "2013-01-01 is before --from 2013-01-02" in result.output


@pytest.mark.usefixtures("first")
def test_old_files_of_a_table_are_removed_and_the_page_stands_alone(environment: Cloud) -> None:
    s3, bucket = aws.s3(environment.settings), environment.settings.curated_bucket
    s3.put_object(Bucket=bucket, Key="summary/theshop-brand/dau/000-old.parquet", Body=b"old")
    rebuild("--service", "theshop-brand")
    listed = s3.list_objects_v2(Bucket=bucket, Prefix="summary/theshop-brand/dau/")
    assert [item.get("Key") for item in listed.get("Contents", [])] == ["summary/theshop-brand/dau/dau.parquet"]
    page = s3.get_object(Bucket=bucket, Key="summary/theshop-brand/index.html")["Body"].read().decode()
    assert page.count("<svg") >= 4
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")


def test_an_unknown_service_is_named(environment: Cloud) -> None:
    result = CliRunner().invoke(app, ["rebuild", "--service", "theshop-brnd"])
    assert result.exit_code != 0
    assert "theshop-brnd" in str(result.exception)


def test_a_day_of_the_reference_is_no_accident() -> None:
    objects = delivered(DAYS)["theshop-brand"]
    dau = Reference([e for _, events in objects for e in events], Definitions()).dau()
    assert dau[0][0] == date(2013, 1, 1)
    assert len(dau) >= DAYS - 1
    assert Path(objects[0][0]).name.startswith("theshop-brand_logs_")
