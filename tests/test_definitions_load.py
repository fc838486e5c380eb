"""The code location in an interpreter of its own: nothing in the environment, no network, no time wasted."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
LOAD = """
import json, socket, sys

def forbidden(*args, **kwargs):
    raise AssertionError(f"the code location opened a connection: {args[1:]}")

socket.socket.connect = socket.socket.connect_ex = socket.create_connection = socket.getaddrinfo = forbidden
import data_platform.definitions as location
defs = location.defs()
repository = defs.get_repository_def()
assets = repository.asset_graph.get_all_asset_keys()
print(json.dumps({"assets": len(assets), "jobs": sorted(repository.job_names), "heavy": sorted(
    name for name in HEAVY if name in sys.modules)}))
"""
HEAVY = [
    "alembic", "boto3", "botocore", "chdb", "clickhouse_connect", "confluent_kafka", "dagster_postgres", "fastapi",
    "pandas", "psycopg", "pyarrow", "redshift_connector", "sqlalchemy.orm", "sqlglot", "data_platform.local",
]  # fmt: skip


def load(folder: Path, **environment: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", f"HEAVY = {HEAVY}\n{LOAD}"],
        env={"PYTHONPATH": str(ROOT), **environment},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.unit
def test_it_loads_with_an_empty_environment_and_no_network(tmp_path: Path) -> None:
    found = load(tmp_path)
    assert found["assets"] >= 20
    assert {"market_daily_flights", "market_daily_weather", "summaries"} <= set(found["jobs"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.unit
def test_no_engines_client_is_imported_to_load_it(tmp_path: Path) -> None:
    assert load(tmp_path)["heavy"] == []


@pytest.mark.unit
def test_a_wrong_catalogue_names_every_mistake(tmp_path: Path) -> None:
    (tmp_path / "domains.yaml").write_text("- name: Bad Name\n")
    done = subprocess.run(
        [sys.executable, "-c", "import data_platform.definitions as d; d.defs()"],
        env={"PYTHONPATH": str(ROOT), "DATA_PLATFORM_CATALOG": str(tmp_path)},
        cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert all(name in done.stderr for name in ("domains.yaml", "services.yaml", "topics.yaml"))


@pytest.mark.integration
@pytest.mark.parametrize("command", [("check", "defs"), ("list", "defs", "--json")])
def test_dagsters_own_commands_accept_it(tmp_path: Path, command: tuple[str, ...]) -> None:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {"HOME": str(tmp_path), "PATH": path, "PYTHONPATH": str(ROOT)}
    dg = Path(sys.executable).with_name("dg")
    done = subprocess.run(
        [dg, *command], env=environment, cwd=ROOT, capture_output=True, text=True, timeout=170, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    if "list" in command:
        assert all(f'"{layer}/market/flights"' in done.stdout for layer in ("unload", "curated", "clickhouse"))
