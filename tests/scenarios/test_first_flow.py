"""The first flow end to end: real flights, a dataset out of one file, the command, the loader beside it."""

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from typer.testing import CliRunner

from data_platform.assets.keys import Stage
from data_platform.build import build_defs
from data_platform.catalog import Catalog, load_catalog
from data_platform.cli.main import app
from data_platform.clients import clickhouse
from data_platform.jobs.backfill import plan_backfill, run_backfill
from data_platform.jobs.instance import open_instance
from data_platform.local.cloud import Cloud
from data_platform.local.sample.load import load_sample
from tests.flow import dataset_entry, day, open_flow

pytestmark = pytest.mark.scenario
COMMAND = [sys.executable, "-m", "data_platform.cli.main"]
FIRST = date(2013, 2, 1)


@pytest.fixture(scope="module")
def sample(cloud: Cloud) -> Iterator[Cloud]:
    load_sample(cloud.settings, parts=["flights"])
    with mock.patch.dict("os.environ", cloud.process_env, clear=True):
        yield cloud


def command(cloud: Cloud, *arguments: str, environment: dict[str, str] | None = None) -> Any:
    done = subprocess.run(
        [*COMMAND, *arguments], env={**cloud.process_env, **(environment or {})},
        capture_output=True, text=True, timeout=170, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def flights(cloud: Cloud, last: date) -> tuple[int, int]:
    """Rows of the days up to `last`, and rows that differ from one another."""
    with clickhouse.connect(cloud.settings) as client:
        rows = client.query(
            "SELECT count(), uniqExact(flight_date, carrier, flight, origin, dest, sched_dep_time) FROM market.flights "
            f"WHERE _ds BETWEEN '{FIRST}' AND '{last}'"
        ).result_rows
    ((found, different),) = rows
    return found, different


@pytest.mark.parametrize(
    ("last", "days", "rows"),
    [(date(2013, 2, 3), 3, 2_422), pytest.param(date(2013, 3, 2), 30, 26_674, marks=pytest.mark.load)],
)
def test_days_of_flights_are_exact_whoever_brings_them(sample: Cloud, last: date, days: int, rows: int) -> None:
    """Backfill, then the loader over the events of the same objects, then the backfill again."""
    cloud = sample
    backfill = ("backfill", "market/flights", "--from", str(FIRST), "--to", str(last), "--json")
    told = command(cloud, *backfill)
    assert told["success"] is True
    assert [stage["rows"] for stage in told["stages"]] == [rows] * 3
    assert [stage["partitions"] for stage in told["stages"]] == [days] * 3
    assert flights(cloud, last) == (rows, rows)
    loader = ("loader", "--domain", "market", "--until-empty", "--timeout", "90")
    done = subprocess.run(
        [*COMMAND, *loader], env=cloud.process_env, capture_output=True, text=True, timeout=170, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert flights(cloud, last) == (rows, rows)
    again = CliRunner().invoke(app, list(backfill))  # in this process: a third one would only start once more
    assert again.exit_code == 0, again.output
    assert flights(cloud, last) == (rows, rows)


def test_a_dataset_is_one_file(cloud: Cloud, tmp_path: Path) -> None:
    """A YAML file and `provision`: the new dataset has its layers, its job and its table, and runs through."""
    import yaml

    with open_flow(cloud, tmp_path, "items") as flow:
        (tmp_path / "datasets" / flow.domain / "extra.yaml").write_text(
            yaml.safe_dump(dataset_entry(flow.domain, "extra"), sort_keys=False)
        )
        flow.catalog = load_catalog(tmp_path)
        flow.fill("extra", {day(0): 11, day(1): 12})
        for arguments in (["provision"], ["catalog", "check"]):
            done = subprocess.run(
                [*COMMAND, *arguments], env={**cloud.process_env, **flow.env}, capture_output=True, text=True,
                timeout=120, check=False,
            )  # fmt: skip
            assert done.returncode == 0, done.stdout + done.stderr
        told = command(
            cloud, "backfill", f"{flow.domain}/extra", "--from", str(day(0)), "--to", str(day(1)), "--json",
            environment=flow.env,
        )  # fmt: skip
        assert [stage["rows"] for stage in told["stages"]] == [23] * 3
        assert flow.counts("extra") == {str(day(0)): 11, str(day(1)): 12}


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["market/flihgts", "--from", "2013-01-01", "--to", "2013-01-02"], 1, "market/flights"),
        (["market/flights", "--from", "1.1.2013", "--to", "2013-01-01"], 2, "--from"),
    ],
)
def test_a_mistake_is_answered_with_what_to_do(sample: Cloud, arguments: list[str], code: int, words: str) -> None:
    done = subprocess.run(
        [*COMMAND, "backfill", *arguments],
        env=sample.process_env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == code
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_dry_run_does_nothing(sample: Cloud) -> None:
    told = command(
        sample, "backfill", "market/weather", "--from", "2013-06-01", "--to", "2013-06-03", "--dry-run", "--json"
    )
    assert told["remaining"] == ["2013-06-01", "2013-06-02", "2013-06-03"]
    assert (told["partitions"], told["runs"]) == (9, 1)
    assert set(told["estimated_bytes"]) == {"unload", "curated", "clickhouse"}
    with clickhouse.connect(sample.settings) as client:
        query = "SELECT count() FROM market.weather WHERE _ds BETWEEN '2013-06-01' AND '2013-06-03'"
        assert client.query(query).first_row == (0,)


def test_weather_ends_a_day_before_the_year(sample: Cloud) -> None:
    catalog: Catalog = load_catalog(sample.settings.catalog)
    with open_instance(sample.settings) as instance:
        definitions = build_defs(sample.settings, catalog=catalog)
        plan = plan_backfill(catalog, instance, "market/weather", first=date(2013, 12, 30), last=date(2013, 12, 30))
        result = run_backfill(definitions, catalog, instance, plan)
    assert result.success, result.reason
    assert Stage.CLICKHOUSE in plan.stages
