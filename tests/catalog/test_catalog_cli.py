"""`data-platform catalog ...` as a person and a program see it."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from data_platform.cli.catalog import app
from data_platform.errors import Fault, PlatformError
from data_platform.local.faults import FaultClient
from data_platform.local.process import EngineProcess

SHIPPED = Path(__file__).resolve().parents[2] / "catalog"
runner = CliRunner()


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    (tmp_path / "datasets/market").mkdir(parents=True)
    (tmp_path / "domains.yaml").write_text("[]\n")
    (tmp_path / "services.yaml").write_text("- name: a\n  time_zone: Mars\n")
    (tmp_path / "topics.yaml").write_text("- nam: x\n")
    (tmp_path / "datasets/market/a.yaml").write_text("name: a\ndomain: market\n")
    return tmp_path


@pytest.mark.unit
def test_check_says_what_it_found() -> None:
    result = runner.invoke(app, ["check", str(SHIPPED)])
    assert result.exit_code == 0
    assert "6 datasets, 4 domains, 2 services, 7 topics; no mistakes" in result.stdout


@pytest.mark.unit
def test_check_ends_with_1_and_prints_every_mistake_on_a_line_of_its_own(broken: Path) -> None:
    result = runner.invoke(app, ["check", str(broken)])
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert "topics.yaml: [0].nam: unknown key; did you mean 'name'?" in lines
    assert "services.yaml: [0].time_zone: unknown time zone 'Mars'" in lines
    assert "datasets/market/a.yaml: columns: is missing" in lines
    assert f"error: {len(lines)} mistakes in 3 files" in result.stderr


@pytest.mark.unit
def test_check_gives_the_mistakes_to_programs(broken: Path) -> None:
    result = runner.invoke(app, ["check", str(broken), "--json"])
    assert result.exit_code == 1
    problems = json.loads(result.stdout)["problems"]
    assert {"file": "topics.yaml", "path": "[0].name", "reason": "is missing"} in problems


@pytest.mark.unit
def test_list_and_show_are_for_people_and_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA_PLATFORM_CATALOG", str(SHIPPED))
    assert "market/flights" in runner.invoke(app, ["list"]).stdout
    rows = json.loads(runner.invoke(app, ["list", "--json"]).stdout)
    assert {row["dataset"]: row["mode"] for row in rows}["product/planes"] == "snapshot"
    assert "CREATE TABLE IF NOT EXISTS `market`.`flights`" in runner.invoke(app, ["show", "market/flights"]).stdout
    shown = json.loads(runner.invoke(app, ["show", "market/flights", "--json"]).stdout)
    assert shown["columns"][0] == {
        "column": "flight_date",
        "clickhouse": "Date",
        "parquet": "date32[day]",
        "redshift": "DATE",
        "description": "Local day of the scheduled departure; the partition's day.",
    }
    unknown = runner.invoke(app, ["show", "market/flight"])
    assert isinstance(unknown.exception, PlatformError)


@pytest.mark.unit
def test_schema_prints_the_published_one() -> None:
    assert runner.invoke(app, ["schema"]).stdout == (SHIPPED / "schema/dataset.schema.json").read_text()


@pytest.fixture
def environment(clickhouse_engine: EngineProcess, clickhouse: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    for name, value in {**clickhouse_engine.env, "DATA_PLATFORM_CATALOG": str(SHIPPED)}.items():
        monkeypatch.setenv(name, value)
    return clickhouse


@pytest.mark.integration
def test_diff_shows_apply_makes_and_then_nothing_is_left(environment: Any) -> None:
    planned = json.loads(runner.invoke(app, ["diff", "--json"]).stdout)
    assert {change["kind"] for change in planned} == {"create"}
    assert json.loads(runner.invoke(app, ["apply", "--dry-run", "--json"]).stdout) == planned
    assert environment.command("EXISTS DATABASE market") == 0
    applied = json.loads(runner.invoke(app, ["apply", "--json"]).stdout)
    assert [change["target"] for change in applied] == [change["target"] for change in planned]
    assert all(change["applied"] for change in applied)
    assert "as the catalogue says" in runner.invoke(app, ["diff"]).stdout
    assert json.loads(runner.invoke(app, ["apply", "--json"]).stdout) == []


@pytest.mark.integration
def test_apply_ends_with_an_error_when_something_was_refused_and_makes_the_rest(environment: Any) -> None:
    environment.command("CREATE DATABASE market")
    environment.command("CREATE TABLE market.weather (a Int32) ENGINE = MergeTree ORDER BY a")
    result = runner.invoke(app, ["apply"])
    assert isinstance(result.exception, PlatformError)
    assert "refused" in result.exception.message
    assert environment.command("EXISTS TABLE market.flights") == 1
    assert environment.query("SELECT name FROM system.columns WHERE table = 'weather'").result_rows == [("a",)]


@pytest.mark.integration
@pytest.mark.security
def test_what_the_server_forbids_is_an_error_without_a_traceback(environment: Any, faults: FaultClient) -> None:
    message = "Code: 497. DB::Exception: reader: Not enough privileges. (ACCESS_DENIED)"
    fault = faults.arm("clickhouse.error", match={"sql": "CREATE DATABASE*"}, code=497, status=500, message=message)
    result = runner.invoke(app, ["apply"])
    assert faults.struck(fault) == 1
    assert isinstance(result.exception, PlatformError)
    assert result.exception.fault is Fault.CONFIGURATION
    assert "Not enough privileges" in result.exception.message
