"""Checks as the run asks them: one evaluation a partition, breaches named, later layers stopped at a boundary."""

from collections.abc import Callable
from datetime import date
from typing import Any

import pytest

from data_platform.assets.checks import BoundaryError, StageChecks, check_specs
from data_platform.assets.days import DayDone, run_days
from data_platform.assets.keys import Stage
from data_platform.assets.stages import StageRunner
from data_platform.clients import clickhouse
from data_platform.quality.rules import rules_of, statement_of

RULES = [
    {"kind": "not_null", "columns": ["amount"]},
    {"kind": "unique", "columns": ["id"]},
    {"kind": "range", "column": "amount", "min": 0, "max": 100},
    {"kind": "row_drift", "tolerance": 0.5, "days": 5},
]
pytestmark = pytest.mark.integration


def test_a_range_run_evaluates_every_check_once_per_partition(desk: Callable[..., Any]) -> None:
    orders = desk("orders_ok", checks=RULES)
    for day in ("2024-01-01", "2024-01-02", "2024-01-03"):
        orders.put(day, (1, 10), (2, 20))
    result = orders.run("2024-01-01", "2024-01-03")
    assert result.success
    found = orders.checks(result.run_id)
    names = {spec.name for spec in check_specs(orders.dataset)}
    assert set(found) == {(name, f"2024-01-0{n}") for name in names for n in (1, 2, 3)}
    assert all(evaluation.passed for evaluation in found.values())
    assert found["rows_agree_with_curated", "2024-01-02"].metadata["clickhouse_rows"].value == 2


def test_breaches_are_counted_by_rule_and_shown_by_sql_that_finds_them(desk: Callable[..., Any]) -> None:
    orders = desk("orders_bad", checks=RULES)
    orders.put("2024-01-01", (1, None), (2, 101), (2, -1), (3, 50))
    result = orders.run("2024-01-01", "2024-01-01")
    assert result.success, "a breach of a rule is shown and alerted; the rows are where they belong"
    found = {name: evaluation for (name, _), evaluation in orders.checks(result.run_id).items()}
    breaching = {name: found[name].metadata["breaching_rows"].value for name in ("not_null", "unique", "range_amount")}
    assert breaching == {"not_null": 1, "unique": 1, "range_amount": 2}
    assert found["row_drift"].passed, "there is no history to differ from"
    with clickhouse.connect(orders.settings) as client:
        for name, count in breaching.items():
            assert not found[name].passed
            rows = client.query(found[name].metadata["show_them"].value).result_rows
            assert len(rows) == count, name
    assert "amount" not in str(found["unique"].metadata), "no value of a row leaves ClickHouse"


def test_drift_is_measured_against_the_median_of_the_days_before(desk: Callable[..., Any]) -> None:
    orders = desk("orders_drift", checks=RULES)
    for n in (1, 2, 3, 4):
        orders.put(f"2024-01-0{n}", *((i, 1) for i in range(10)))
    orders.put("2024-01-05", (1, 1), (2, 1))
    orders.put("2024-01-06")
    assert orders.run("2024-01-01", "2024-01-06").success
    checks = StageChecks(StageRunner(orders.settings, "t"), orders.dataset, _all(orders))
    fifth, sixth = (_asked(checks, date(2024, 1, n))["row_drift"] for n in (5, 6))
    assert (fifth.passed, fifth.metadata["median_rows"].value) == (False, 10.0)
    assert "80% off" in fifth.description
    assert (sixth.passed, sixth.metadata["rows"].value) == (False, 0), "an empty day is a drift, not a division by zero"
    assert fifth.severity.value == "WARN"


def test_a_newer_unload_stops_the_layers_behind_the_curated_one(desk: Callable[..., Any]) -> None:
    orders = desk("orders_stale")
    orders.put("2024-01-01", (1, 1))
    assert orders.run("2024-01-01", "2024-01-01").success
    orders.put("2024-01-01", (1, 1), (2, 2))
    assert orders.run("2024-01-01", "2024-01-01", Stage.UNLOAD).success
    checks = StageChecks(StageRunner(orders.settings, "t"), orders.dataset, _all(orders))
    begun: list[Stage] = []

    def work(stage: Stage, day: str, emit: Callable[[Any], None]) -> None:
        begun.append(stage)
        checks.ask(stage, date.fromisoformat(day), emit, made=None)

    ended = list(run_days(work, list(Stage), ["2024-01-01"], name="t"))[-1][-1]
    assert isinstance(ended, DayDone)
    assert isinstance(ended.error, BoundaryError)
    assert "newest unload is attempt 2 with 2 rows" in str(ended.error)
    assert begun == [Stage.UNLOAD, Stage.CURATED]
    checks.runner.close()


def test_rows_that_vanished_from_clickhouse_are_named_by_object(desk: Callable[..., Any]) -> None:
    orders = desk("orders_lost")
    orders.put("2024-01-01", (1, 1), (2, 2))
    assert orders.run("2024-01-01", "2024-01-01").success
    with clickhouse.connect(orders.settings) as client:
        client.command("ALTER TABLE market.orders_lost DELETE WHERE id = 2 SETTINGS mutations_sync = 1")
    checks = StageChecks(StageRunner(orders.settings, "t"), orders.dataset, _all(orders))
    with pytest.raises(
        BoundaryError,
        match=r"2 rows in the curated manifest, 1 in the ClickHouse table market\.orders_lost and 2 by the",
    ):
        checks.ask(Stage.CLICKHOUSE, date(2024, 1, 1), lambda _: None, made=None)
    checks.runner.close()
    assert orders.run("2024-01-01", "2024-01-01", Stage.CLICKHOUSE).success, "materialising it again mends it"
    assert orders.loaded("2024-01-01") == 2


def test_a_missing_file_of_an_unload_is_a_breach(desk: Callable[..., Any]) -> None:
    orders = desk("orders_gone")
    orders.put("2024-01-01", (1, 1))
    assert orders.run("2024-01-01", "2024-01-01", Stage.UNLOAD).success
    runner = StageRunner(orders.settings, "t")
    listed = runner.s3.list_objects_v2(
        Bucket=orders.settings.unload_bucket, Prefix="unload-results/market.orders_gone.2024-01-01/"
    )
    for item in listed["Contents"]:
        if item["Key"].endswith(".parquet"):
            runner.s3.delete_object(Bucket=orders.settings.unload_bucket, Key=item["Key"])
    with pytest.raises(BoundaryError, match=r"Unload the day again .*: data-platform backfill market/orders_gone"):
        StageChecks(runner, orders.dataset, _all(orders)).ask(Stage.UNLOAD, date(2024, 1, 1), lambda _: None, made=None)
    runner.close()


@pytest.mark.unit
def test_rules_of_the_same_kind_have_names_of_their_own() -> None:
    from tests.desk.conftest import dataset_of

    dataset = dataset_of("o", checks=[*RULES, RULES[0], RULES[2]])
    names = [rule.name for rule in rules_of(dataset)]
    assert names == ["not_null", "unique", "range_amount", "row_drift", "not_null_2", "range_amount_2"]


@pytest.mark.unit
def test_one_statement_asks_all_rules() -> None:
    from tests.desk.conftest import dataset_of

    dataset = dataset_of("o", checks=RULES)
    sql = statement_of(dataset, rules_of(dataset))
    assert sql.count("`_ds` = {ds:Date}") == 2, "the partition itself and the keys of `unique`; drift reads days before"
    assert "`amount` > 100" in sql


def _all(orders: Any) -> Any:
    return frozenset(spec.key for spec in check_specs(orders.dataset))


def _asked(checks: StageChecks, ds: date) -> dict[str, Any]:
    found: dict[str, Any] = {}
    checks.ask(Stage.CLICKHOUSE, ds, lambda evaluation: found.update({evaluation.check_name: evaluation}), made=None)
    return found
