"""Which SELECT a partition is, and when its source is ready."""

from datetime import date
from pathlib import Path
from typing import Any

import pytest

from data_platform.catalog.models import Dataset
from data_platform.errors import ConfigurationError
from data_platform.unload.datasets import partition_select, ready_sql, request_id
from tests.flow import dataset_entry, write_catalog

pytestmark = pytest.mark.unit
DAY = date(2024, 2, 29)


def one(folder: Path, **changes: Any) -> Dataset:
    return write_catalog(folder, "shop", [dataset_entry("shop", "items", **changes)]).dataset("shop/items")


def test_a_day_of_a_table_has_the_catalogues_columns_in_order(tmp_path: Path) -> None:
    dataset = one(tmp_path)
    assert partition_select(dataset, DAY) == (
        'SELECT "day", "id", "name", "amount"\nFROM shop.items\nWHERE "day" = DATE \'2024-02-29\''
    )
    assert request_id(dataset, DAY) == "shop.items.2024-02-29"


def test_a_snapshot_is_everything(tmp_path: Path) -> None:
    assert partition_select(one(tmp_path, mode="snapshot"), DAY).endswith("FROM shop.items")


def test_sql_is_a_relation_and_its_last_comment_ends_with_its_line(tmp_path: Path) -> None:
    sql = "SELECT day, id, name, amount FROM shop.raw -- all of them"
    select = partition_select(one(tmp_path, source={"sql": sql, "partition_column": "day"}), DAY)
    assert f"FROM (\n{sql}\n) AS source\nWHERE" in select


def test_readiness_names_the_day(tmp_path: Path) -> None:
    source = {"table": "shop.items", "partition_column": "day", "ready": "SELECT max(day) >= :day FROM shop.items"}
    assert ready_sql(one(tmp_path, source=source), DAY) == "SELECT max(day) >= DATE '2024-02-29' FROM shop.items"
    assert ready_sql(one(tmp_path), DAY) is None


def test_a_dataset_that_comes_from_elsewhere_is_refused(tmp_path: Path) -> None:
    dataset = Dataset.model_validate({**one(tmp_path).model_dump(), "source": {"kind": "otel_logs"}})
    with pytest.raises(ConfigurationError, match="and not from Redshift"):
        partition_select(dataset, DAY)
