"""`data-platform settings`, as a process: what is printed, what is masked, how a mistake ends."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit


def run(*arguments: str, home: Path, **variables: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "data_platform.cli.main", "settings", *arguments],
        env={"DATA_PLATFORM_HOME": str(home), "COLUMNS": "160", **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_json_tells_value_and_origin_and_hides_secrets(tmp_path: Path) -> None:
    result = run("--json", home=tmp_path, REDSHIFT_PASSWORD="hunter2", REDSHIFT_PORT="5440")
    assert result.returncode == 0, result.stderr
    rows = {row["variable"]: row for row in json.loads(result.stdout)}
    assert (rows["REDSHIFT_PASSWORD"]["value"], rows["REDSHIFT_PASSWORD"]["origin"]) == ("***", "environment")
    assert (rows["REDSHIFT_PORT"]["value"], rows["CLICKHOUSE_PORT"]["value"]) == (5440, 8443)
    assert "hunter2" not in result.stdout + result.stderr


def test_the_table_prints_values_as_the_environment_spells_them(tmp_path: Path) -> None:
    result = run(home=tmp_path, DATA_PLATFORM_REDSHIFT_SSL="false")
    assert result.returncode == 0, result.stderr
    assert "5439" in result.stdout
    assert "false" in result.stdout


def test_a_mistake_ends_with_1_and_one_sentence(tmp_path: Path) -> None:
    result = run(home=tmp_path, REDSHIFT_PORT="many")
    assert result.returncode == 1
    assert "REDSHIFT_PORT" in result.stderr
    assert "many" not in result.stderr
    assert "Traceback" not in result.stderr


def test_a_wrong_option_ends_with_2(tmp_path: Path) -> None:
    assert run("--no-such-option", home=tmp_path).returncode == 2
