"""`data-platform unload` and `api token` as a person uses them, against the running API."""

import gzip
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from data_platform.local.cloud import Cloud

QUERY = "select id, name from market.api_rows"
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(cloud: Cloud, client: Any) -> Run:
    environment = {
        **cloud.process_env, "DATA_PLATFORM_API_URL": client.url, "DATA_PLATFORM_API_TOKEN": client.token
    }  # fmt: skip

    def call(*arguments: str, **changes: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "data_platform.cli.main", *arguments]
        return subprocess.run(
            command, env=environment | changes, capture_output=True, text=True, timeout=60, check=False
        )

    return call


def test_submit_waits_downloads_and_checks_the_size(run: Run, tmp_path: Path) -> None:
    name = f"cli-{uuid4().hex[:8]}"
    done = run("unload", "submit", QUERY, "--id", name, "--to", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    assert f"{name}: DONE, 1,000 rows" in done.stdout
    lines = gzip.decompress((tmp_path / "out" / f"{name}.csv.gz").read_bytes()).decode().splitlines()
    assert len(lines) == 1001
    assert [path.name for path in (tmp_path / "out").iterdir()] == [f"{name}.csv.gz"]
    status = json.loads(run("unload", "status", name, "--json").stdout)
    assert (status["requestId"], status["status"]) == (name, "DONE")
    listed = json.loads(run("unload", "list", "--json").stdout)
    assert [each["requestId"] for each in listed] == [name]
    [file] = json.loads(run("unload", "file", name, "--json").stdout)
    assert file["rows"] == 1000
    cancelled = run("unload", "cancel", name)
    assert (cancelled.returncode, "409" in cancelled.stderr) == (1, True)


def test_failures_end_with_1_and_a_reason_without_traceback(run: Run) -> None:
    for arguments, words in (
        (("submit", "select * from market.nope", "--wait"), 'relation "market.nope" does not exist'),
        (("submit", "drop table market.api_rows"), "only a SELECT"),
        (("status", "never-heard-of"), "404"),
        (("retry", "never-heard-of"), "404"),
    ):
        ended = run("unload", *arguments)
        assert ended.returncode == 1, arguments
        assert words in ended.stderr
        assert "Traceback" not in ended.stderr
    assert run("unload", "submit").returncode == 2
    nowhere = run("unload", "list", DATA_PLATFORM_API_URL="http://127.0.0.1:9")
    assert (nowhere.returncode, "cannot be reached" in nowhere.stderr) == (1, True)


def test_token_is_alone_on_the_last_line_and_can_be_revoked(run: Run, client: Any) -> None:
    from dataclasses import replace

    name = f"made-{uuid4().hex[:8]}"
    made = run("api", "token", "create", name, "--schema", "sales")
    token = made.stdout.splitlines()[-1]
    assert (made.returncode, token.startswith("dpu_"), " " in token) == (0, True, False)
    assert replace(client, token=token).get("/api/unload").status == 200
    assert run("api", "token", "create", name).returncode == 1
    listed = {each["name"]: each for each in json.loads(run("api", "token", "list", "--json").stdout)}
    assert listed[name]["schemas"] == "sales"
    assert token not in str(listed)
    assert run("api", "token", "revoke", name).returncode == 0
    assert run("api", "token", "revoke", name).returncode == 1
