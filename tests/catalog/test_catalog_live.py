"""The catalogue against a real ClickHouse: made, compared, changed, refused."""

from datetime import date
from typing import Any

import pytest
from clickhouse_connect.driver.exceptions import Error

from data_platform.catalog import Catalog, ddl, live
from data_platform.catalog.models import Column, Dataset
from data_platform.catalog.table_changes import Change, Kind
from data_platform.local.faults import FaultClient

pytestmark = pytest.mark.integration


def changed(catalog: Catalog, key: str, **update: Any) -> Catalog:
    """The catalogue with one dataset changed."""
    dataset = catalog.datasets[key].model_copy(update=update)
    return Catalog({**catalog.datasets, key: dataset}, catalog.domains, catalog.services, catalog.topics)


def retyped(dataset: Dataset, name: str, **update: Any) -> tuple[Column, ...]:
    return tuple(c.model_copy(update=update) if c.name == name else c for c in dataset.columns)


def kinds(changes: list[Change]) -> list[tuple[str, str]]:
    return [(change.kind.value, change.target) for change in changes]


@pytest.fixture
def applied(clickhouse: Any, shipped: Catalog) -> Any:
    live.apply(shipped, clickhouse)
    return clickhouse


def insert_airline(client: Any, day: str, *names: str) -> None:
    rows = [
        [name[:2], name, date.fromisoformat(day), f"s3://b/customer/airlines/ds={day}/a.parquet@1"] for name in names
    ]
    client.insert("airlines_snapshots", rows, database="customer", column_names=["carrier", "name", "_ds", "_object"])


def test_an_empty_server_gets_everything_and_then_nothing_differs(clickhouse: Any, shipped: Catalog) -> None:
    first = live.diff(shipped, clickhouse)
    assert {change.kind for change in first} == {Kind.CREATE}
    assert live.apply(shipped, clickhouse) == first
    assert live.diff(shipped, clickhouse) == []
    assert live.apply(shipped, clickhouse) == []


def test_live_types_comments_and_order_are_the_catalogue_s(applied: Any, shipped: Catalog) -> None:
    for dataset in shipped.datasets.values():
        rows = applied.query(
            "SELECT name, type, comment FROM system.columns WHERE database = {d:String} AND table = {t:String}"
            " ORDER BY position",
            parameters={"d": dataset.domain, "t": dataset.storage_name},
        ).result_rows
        assert [tuple(row) for row in rows] == ddl.columns_of(dataset)


def test_diff_changes_nothing(clickhouse: Any, shipped: Catalog) -> None:
    live.diff(shipped, clickhouse)
    assert clickhouse.command("SELECT count() FROM system.databases WHERE name = 'market'") == 0


def test_a_nullable_column_is_added_where_the_catalogue_has_it_and_keeps_the_rows(
    applied: Any, shipped: Catalog
) -> None:
    insert_airline(applied, "2013-01-01", "AA American")
    airlines = shipped.datasets["customer/airlines"]
    code = Column(name="icao", type="String", nullable=True, description="Three-letter code.")
    wider = changed(shipped, airlines.key, columns=(airlines.columns[0], code, airlines.columns[1]))
    assert kinds(live.apply(wider, applied)) == [
        ("alter", "customer.airlines_snapshots.icao"),
        ("alter", "customer.airlines"),
    ]
    assert live.diff(wider, applied) == []
    assert applied.query("SELECT * FROM customer.airlines").column_names == (
        *("carrier", "icao", "name"),
        *("_ds", "_object"),
    )
    assert applied.query("SELECT carrier, icao, name FROM customer.airlines").result_rows == [
        ("AA", None, "AA American")
    ]


def test_a_column_that_needs_a_value_is_refused_once_rows_are_there(applied: Any, shipped: Catalog) -> None:
    airlines = shipped.datasets["customer/airlines"]
    fleet = Column(name="fleet", type="UInt32")
    wider = changed(shipped, airlines.key, columns=(*airlines.columns, fleet))
    insert_airline(applied, "2013-01-01", "AA American")
    (refusal,) = live.apply(wider, applied)
    assert (refusal.kind, refusal.statement) == (Kind.REFUSED, None)
    assert "1 rows are there" in refusal.detail
    applied.command("TRUNCATE TABLE customer.airlines_snapshots")
    live.apply(wider, applied)
    assert live.diff(wider, applied) == []


def test_types_are_widened_and_values_stay(applied: Any, shipped: Catalog) -> None:
    airports = shipped.datasets["customer/airports"]
    applied.command(
        "INSERT INTO customer.airports_snapshots (faa, name, lat, lon, alt, tz, dst, tzone, _ds, _object)"
        " VALUES ('X', 'x', 1.5, 2.5, -54, -5, 'A', NULL, '2013-01-01', 'o')"
    )
    columns = retyped(airports, "alt", type="Int64", nullable=True)
    wider = changed(shipped, airports.key, columns=columns)
    live.apply(wider, applied)
    assert live.diff(wider, applied) == []
    assert applied.query("SELECT alt FROM customer.airports").result_rows == [(-54,)]


@pytest.mark.parametrize(
    ("column", "update"),
    [
        ("alt", {"type": "Int16"}),
        ("alt", {"type": "UInt64"}),
        ("tzone", {"nullable": False}),
        ("lat", {"type": "Float32"}),
        ("name", {"type": "Int32"}),
        ("faa", {"type": "LowCardinality(String)"}),  # of the sorting key
    ],
)
def test_whatever_could_lose_a_value_is_refused(
    applied: Any, shipped: Catalog, column: str, update: dict[str, Any]
) -> None:
    airports = shipped.datasets["customer/airports"]
    narrower = changed(shipped, airports.key, columns=retyped(airports, column, **update))
    before = applied.command("SHOW CREATE TABLE customer.airports_snapshots")
    (refusal,) = live.apply(narrower, applied)
    assert refusal.kind is Kind.REFUSED
    assert refusal.target == f"customer.airports_snapshots.{column}"
    assert applied.command("SHOW CREATE TABLE customer.airports_snapshots") == before


def test_an_extra_column_is_told_and_kept(applied: Any, shipped: Catalog) -> None:
    applied.command("ALTER TABLE market.weather ADD COLUMN moon Nullable(String)")
    assert kinds(live.apply(shipped, applied)) == [("extra", "market.weather.moon")]
    assert applied.command("SELECT count() FROM system.columns WHERE table = 'weather' AND name = 'moon'") == 1


def test_another_sorting_key_is_refused(applied: Any, shipped: Catalog) -> None:
    other = changed(shipped, "market/weather", order_by=("time_hour", "origin"))
    (refusal,) = live.apply(other, applied)
    assert "is sorted by (origin, time_hour), not by (time_hour, origin)" in refusal.detail


def test_another_partitioning_or_engine_is_refused(clickhouse: Any, shipped: Catalog) -> None:
    clickhouse.command("CREATE DATABASE market")
    clickhouse.command("CREATE TABLE market.weather (a Int32) ENGINE = Memory")
    clickhouse.command("CREATE TABLE market.flights (origin String, _ds Date) ENGINE = MergeTree ORDER BY origin")
    found = {(each.target, each.detail) for each in live.diff(shipped, clickhouse) if each.kind is Kind.REFUSED}
    assert {target for target, _ in found} == {"market.weather", "market.flights"}
    assert any("engine Memory" in detail for _, detail in found)
    assert any("partitioned by nothing" in detail for _, detail in found)


def test_a_table_in_the_place_of_a_view_is_refused(clickhouse: Any, shipped: Catalog) -> None:
    clickhouse.command("CREATE DATABASE customer")
    clickhouse.command("CREATE TABLE customer.airlines (a Int32) ENGINE = MergeTree ORDER BY a")
    refusals = [each for each in live.apply(shipped, clickhouse) if each.kind is Kind.REFUSED]
    assert [each.target for each in refusals] == ["customer.airlines"]


def test_comments_settings_and_retention_follow_the_catalogue(applied: Any, shipped: Catalog) -> None:
    applied.command("ALTER TABLE market.weather COMMENT COLUMN temp 'wrong'")
    applied.command("ALTER TABLE market.weather MODIFY COMMENT 'wrong'")
    applied.command("ALTER TABLE market.weather MODIFY SETTING non_replicated_deduplication_window = 0")
    kept = changed(shipped, "market/weather", retention_days=30)
    assert len(live.apply(kept, applied)) == 5
    assert live.diff(kept, applied) == []
    assert live.apply(changed(shipped, "market/weather", retention_days=60), applied)
    assert next(each.detail for each in live.diff(shipped, applied)) == "retention is 60 days, not for ever"
    live.apply(shipped, applied)
    assert live.diff(shipped, applied) == []


def test_a_snapshot_s_table_shows_the_newest_day_only(applied: Any) -> None:
    insert_airline(applied, "2013-01-01", "AA American", "UA United")
    assert applied.command("SELECT count() FROM customer.airlines") == 2
    insert_airline(applied, "2013-01-03", "AA American Airlines")
    insert_airline(applied, "2013-01-02", "B6 JetBlue", "DL Delta", "WN Southwest")  # an older one, late
    assert applied.query("SELECT name, _ds FROM customer.airlines").result_rows == [
        ("AA American Airlines", date(2013, 1, 3))
    ]
    applied.command("ALTER TABLE customer.airlines_snapshots DROP PARTITION '2013-01-03'")
    assert applied.command("SELECT count() FROM customer.airlines") == 3


def test_the_same_token_inserts_once(applied: Any) -> None:
    """The deduplication window is off by default; without the setting a retried load would double its rows."""
    statement = "INSERT INTO customer.airlines_snapshots SELECT 'AA', 'American', toDate('2013-01-01'), 'o'"
    for _ in range(2):
        applied.command(statement, settings={"insert_deduplication_token": "t", "insert_deduplicate": 1})
    assert applied.command("SELECT count() FROM customer.airlines") == 1


def test_a_staging_twin_can_replace_a_partition(applied: Any, shipped: Catalog) -> None:
    airlines = shipped.datasets["customer/airlines"]
    insert_airline(applied, "2013-01-01", "AA American", "UA United")
    applied.command(ddl.staging_ddl(airlines, "airlines__staging"))
    applied.command("INSERT INTO customer.airlines__staging SELECT 'B6', 'JetBlue', toDate('2013-01-01'), 'o'")
    applied.command(
        "ALTER TABLE customer.airlines_snapshots REPLACE PARTITION '2013-01-01' FROM customer.airlines__staging"
    )
    assert applied.query("SELECT name FROM customer.airlines").result_rows == [("JetBlue",)]


def test_names_and_comments_are_data_and_not_sql(clickhouse: Any, shipped: Catalog) -> None:
    weather = shipped.datasets["market/weather"]
    text = "it's a \\ `quoted` -- comment; DROP TABLE x"
    hostile = changed(shipped, weather.key, description=text, columns=retyped(weather, "temp", description=text))
    live.apply(hostile, clickhouse)
    comments = clickhouse.query("SELECT comment FROM system.tables WHERE database = 'market' AND name = 'weather'")
    assert comments.result_rows == [(text,)]
    assert live.diff(hostile, clickhouse) == []


def test_an_apply_that_lost_its_connection_is_finished_by_the_next(
    clickhouse: Any, shipped: Catalog, faults: FaultClient
) -> None:
    """The statement was executed, its answer lost: nothing may stand in the way of trying again."""
    fault = faults.arm("clickhouse.drop_after", match={"sql": "CREATE TABLE*airports*"})
    with pytest.raises(Error):
        live.apply(shipped, clickhouse)
    assert faults.struck(fault) == 1
    left = kinds(live.diff(shipped, clickhouse))
    assert ("create", "customer.airports_snapshots") not in left
    assert ("create", "customer.airports") in left
    live.apply(shipped, clickhouse)
    assert live.diff(shipped, clickhouse) == []


def test_the_statements_for_a_cluster_are_sql_the_server_reads(clickhouse: Any, shipped: Catalog) -> None:
    """The embedded engine has no Keeper to execute them with; its parser is the server's."""
    kept = changed(shipped, "market/weather", retention_days=30)
    statements = [each.statement for each in live.diff(kept, clickhouse, cluster="{cluster}")]
    assert len(statements) == 13
    for statement in statements:
        answer = clickhouse.query("SELECT formatQuerySingleLine({sql:String})", parameters={"sql": statement})
        assert "ON CLUSTER" in answer.result_rows[0][0]
