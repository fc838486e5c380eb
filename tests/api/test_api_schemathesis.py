"""schemathesis reads the OpenAPI page of the running API and sends what a property-based test can think of."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

# What a schema cannot say is refused all the same: a statement is a SELECT over schemas of the caller, a cursor is one
# that was given, options exclude each other.
SAID_BY_NO_SCHEMA = "positive_data_acceptance"
SEED = 20130


def sent_by_schemathesis(api: Any, token: str, folder: Path, *arguments: str) -> str:
    """What it reports; the test fails with its report when anything was answered otherwise than promised."""
    command = [
        *(str(Path(sys.executable).with_name("schemathesis")), "run", f"{api.url}/openapi.json", "--no-color"),
        *("--checks", "all", "--exclude-checks", SAID_BY_NO_SCHEMA, "--continue-on-failure"),
        *("--request-timeout", "30", "--seed", str(SEED), "-H", f"Authorization: Bearer {token}", *arguments),
    ]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout[-8000:] + ran.stderr[-2000:]
    return ran.stdout


@pytest.mark.security
def test_a_few_of_everything_are_answered_as_promised(new_client: Any, api: Any, tmp_path: Path) -> None:
    token = new_client(requests_per_s=100_000.0, burst=100_000, max_open=100_000).token
    report = sent_by_schemathesis(api, token, tmp_path, "--phases", "examples,fuzzing", "--max-examples", "3")
    assert "Tested: 10" in report


@pytest.mark.load
@pytest.mark.timeout(1800)
def test_everything_it_can_think_of_is_answered_as_promised(new_client: Any, api: Any, tmp_path: Path) -> None:
    token = new_client(requests_per_s=100_000.0, burst=100_000, max_open=100_000).token
    report = sent_by_schemathesis(api, token, tmp_path, "--max-examples", "100")
    assert "Tested: 10" in report
