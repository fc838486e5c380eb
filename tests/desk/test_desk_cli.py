"""`lineage` and `dataset preview` as a person calls them."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data_platform.quality.preview import preview_rows


def run(*arguments: str, home: Path, **variables: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "data_platform.cli.main", *arguments],
        env={"DATA_PLATFORM_HOME": str(home), "PATH": os.environ["PATH"], "COLUMNS": "200", **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=90,
    )


@pytest.mark.unit
def test_a_summary_is_led_back_to_the_raw_logs_without_any_engine(tmp_path: Path) -> None:
    result = run("lineage", "summaries/theshop_brand/dau", "--json", home=tmp_path)
    assert result.returncode == 0, result.stderr
    up = {step["key"]: step["depth"] for step in json.loads(result.stdout)["up"]}
    assert up["clickhouse/analytics/events"] == 1
    assert up["raw/otel_logs"] == 3
    assert result.stderr == "", "no warning of a library reaches a person"


@pytest.mark.unit
def test_columns_are_led_from_the_table_to_the_warehouse(tmp_path: Path) -> None:
    found = json.loads(run("lineage", "market/flights", "--json", home=tmp_path).stdout)
    assert found["asked"]["columns"]["carrier"] == ["curated/market/flights.carrier"]
    unload = next(step for step in found["up"] if step["key"] == "unload/market/flights")
    assert unload["columns"]["carrier"] == ["redshift/market/flights.carrier"]
    down = json.loads(run("lineage", "clickhouse/analytics/events", "--json", home=tmp_path).stdout)["down"]
    assert "summaries/theshop_brand/dau" in {step["key"] for step in down}


@pytest.mark.unit
def test_an_unknown_key_ends_with_1_and_names_its_neighbours(tmp_path: Path) -> None:
    result = run("lineage", "market/flight", home=tmp_path)
    assert result.returncode == 1
    assert "did you mean clickhouse/market/flights" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.integration
def test_preview_shows_the_first_rows_of_the_newest_partition(desk: Callable[..., Any]) -> None:
    orders = desk("orders_seen")
    orders.put("2024-01-01", (9, 9))
    orders.put("2024-01-02", (3, 30), (1, 10), (2, None))
    assert orders.run("2024-01-01", "2024-01-02").success
    found = preview_rows(orders.settings, orders.dataset, None, limit=2)
    assert (str(found.day), found.total, found.columns) == ("2024-01-02", 3, ("day", "id", "amount"))
    assert [row[1:] for row in found.rows] == [(1, 10), (2, None)]
