"""`data-platform provision`, as a process: what it prints, how it ends."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.integration


def run(*arguments: str, env: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "data_platform.cli.main", "provision", *arguments],
        env={"PATH": "/usr/bin:/bin", **env},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_what_a_dry_run_tells_is_made_once(cloud: Any) -> None:
    env = cloud.env | {"DATA_PLATFORM_ENV": "cmd", "DATA_PLATFORM_HOME": str(cloud.home)}
    planned = run("--dry-run", "--only", "aws", "--json", env=env)
    assert planned.returncode == 0, planned.stderr
    report = json.loads(planned.stdout)
    assert report["dry_run"]
    assert {"kind": "queue", "name": "cmd-market-load-queue", "action": "create"} in report["changes"]
    done = run("--only", "aws", env=env)
    assert done.returncode == 0, done.stderr
    assert "create queue cmd-market-load-queue" in done.stdout
    assert run("--only", "aws", env=env).stdout.strip() == "nothing to change"


def test_without_engines_all_parts_are_told_as_skipped(tmp_path: Path) -> None:
    result = run(env={"DATA_PLATFORM_HOME": str(tmp_path)})
    assert result.returncode == 0, result.stderr
    assert "kafka skipped: KAFKA_BOOTSTRAP_SERVERS not set" in result.stdout


def test_a_part_that_does_not_exist_is_wrong_usage(tmp_path: Path) -> None:
    result = run("--only", "s4", env={"DATA_PLATFORM_HOME": str(tmp_path)})
    assert result.returncode == 2
    assert "clickhouse" in result.stderr


def test_an_engine_that_is_down_ends_with_1_and_a_sentence(tmp_path: Path) -> None:
    env = {"DATA_PLATFORM_HOME": str(tmp_path), "POSTGRES_URL": "postgresql://u:geheim@127.0.0.1:1/d"}
    result = run("--only", "postgres", env=env)
    assert result.returncode == 1
    assert "PostgreSQL 127.0.0.1:1/d: Connection refused" in result.stderr
    assert "geheim" not in result.stdout + result.stderr
    assert "Traceback" not in result.stderr
