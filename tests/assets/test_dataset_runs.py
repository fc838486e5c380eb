"""A range of days as one Dagster run: its events, their metadata, what a day that fails costs."""

import json
from typing import Any

import dagster as dg
import pytest

from data_platform.assets.keys import Stage, stage_key, table_key
from tests.flow import day
from tests.flow_runs import FlowRuns

pytestmark = pytest.mark.integration
ALL = (Stage.UNLOAD, Stage.CURATED, Stage.CLICKHOUSE)


def value(event: dg.AssetMaterialization, name: str) -> Any:
    return event.metadata[name].value


def test_a_range_is_one_run_with_one_event_per_day_and_layer(runs: FlowRuns) -> None:
    flow = runs.flow
    flow.fill("items", {day(n): 100 + n for n in range(5)})
    result = runs.backfill("items", day(0), day(4))
    assert result.success, result.reason
    days = [str(day(n)) for n in range(5)]
    for stage in ALL:
        events = runs.events(result.run_id, stage, "items")
        assert sorted(events) == days
        for number, when in enumerate(days):
            event = events[when]
            assert value(event, "dagster/partition_row_count") == 100 + number
            assert value(event, "duration_s") > 0
            assert event.tags is not None
            assert event.tags["dagster/data_version"] == value(event, "version")
            if stage is not Stage.CLICKHOUSE:
                assert value(event, "bytes") > 1024
    assert flow.counts("items") == {when: 100 + n for n, when in enumerate(days)}
    assert sorted((each.stage, each.day, each.rows) for each in runs.told) == sorted(
        (stage, when, 100 + n) for stage in ALL for n, when in enumerate(days)
    )
    assert flow.staging_tables() == []


def test_an_event_says_where_what_and_of_what(runs: FlowRuns) -> None:
    flow = runs.flow
    flow.fill("items", {day(10): 10})
    run_id = runs.backfill("items", day(10)).run_id
    unload, curated, loaded = (runs.events(run_id, stage, "items")[str(day(10))] for stage in ALL)
    assert (
        value(unload, "dagster/uri")
        == f"s3://{flow.settings.unload_bucket}/unload-results/{flow.domain}.items.{day(10)}/1/"
    )
    assert f"FROM {flow.domain}.items" in value(unload, "sql")
    assert value(unload, "attempt") == 1
    assert value(curated, "dagster/uri").endswith(f"{flow.domain}/items/ds={day(10)}/_manifest.json")
    query = value(unload, "query_id")
    assert value(unload, "read") == {"source": [f"{flow.domain}.items"], "version": f"as of query {query}", "rows": 10}
    assert value(curated, "read") == {"source": value(unload, "dagster/uri"), "version": "attempt 1", "rows": 10}
    assert value(loaded, "read") == {"source": f"curated/{flow.domain}/items", "version": "generation 1", "rows": 10}
    assert (value(curated, "generation"), value(loaded, "generation"), value(loaded, "objects")) == (1, 1, 1)
    lineage = value(curated, "dagster/column_lineage")
    assert lineage.deps_by_column["name"] == [dg.TableColumnDep(stage_key(Stage.UNLOAD, flow["items"]), "name")]


def test_columns_of_sql_are_traced_through_joins_and_expressions(runs: FlowRuns) -> None:
    flow = runs.flow
    flow.sql(f"CREATE SCHEMA IF NOT EXISTS {flow.domain}")
    flow.sql(f"CREATE TABLE {flow.domain}.sales (day date, id bigint, price decimal(9,2), quantity int)")
    flow.sql(f"CREATE TABLE {flow.domain}.names (id bigint, name varchar(10))")
    flow.sql(f"INSERT INTO {flow.domain}.sales VALUES ('{day(0)}', 1, 2.50, 3), ('{day(0)}', 2, 1.00, 1)")
    flow.sql(f"INSERT INTO {flow.domain}.names VALUES (1, 'a'), (2, 'b')")
    result = runs.backfill("revenue", day(0))
    assert result.success, result.reason
    event = runs.events(result.run_id, Stage.UNLOAD, "revenue")[str(day(0))]
    sales, names = table_key(f"{flow.domain}.sales"), table_key(f"{flow.domain}.names")
    lineage = value(event, "dagster/column_lineage").deps_by_column
    assert {name: set(deps) for name, deps in lineage.items()} == {
        "day": {dg.TableColumnDep(sales, "day")},
        "id": {dg.TableColumnDep(sales, "id")},
        "name": {dg.TableColumnDep(names, "name")},
        "amount": {dg.TableColumnDep(sales, "price"), dg.TableColumnDep(sales, "quantity")},
    }
    assert flow.table("revenue", "sum(amount), arraySort(groupArray(name))") == {str(day(0)): (8.5, ["A", "B"])}


def test_a_day_that_fails_costs_only_itself_and_the_run_says_which_and_why(runs: FlowRuns) -> None:
    flow = runs.flow
    flow.fill("items", {day(n): 50 for n in range(20, 25)})
    flow.sql(f"UPDATE {flow.domain}.items SET id = NULL WHERE day = '{day(22)}' AND id <= 2")
    result = runs.backfill("items", day(20), day(24))
    assert not result.success
    assert result.reason is not None
    assert "1 of 5 days failed" in result.reason
    assert f"{day(22)}: {flow.domain}/items ds={day(22)}: column id: 2 nulls" in result.reason
    whole = [str(day(n)) for n in (20, 21, 23, 24)]
    assert sorted(runs.events(result.run_id, Stage.CLICKHOUSE, "items")) == whole
    assert sorted(runs.events(result.run_id, Stage.UNLOAD, "items")) == sorted([*whole, str(day(22))])
    run = runs.instance.get_run_by_id(result.run_id)
    assert run is not None
    assert run.status is dg.DagsterRunStatus.FAILURE
    (failure,) = runs.instance.all_logs(result.run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
    data = failure.get_dagster_event().step_failure_data
    assert data.user_failure_data is not None
    assert set(data.user_failure_data.metadata) == {str(day(22))}
    flow.sql(f"UPDATE {flow.domain}.items SET id = 1 WHERE id IS NULL")
    again = runs.plan("items", day(20), day(24))
    assert again.remaining == (str(day(22)),)
    assert runs.run(again).success
    assert flow.counts("items")[str(day(22))] == 50


def test_a_snapshot_is_one_event_without_a_partition(runs: FlowRuns) -> None:
    flow = runs.flow
    flow.fill("plans", {day(0): 7})
    result = runs.backfill("plans")
    assert result.success, result.reason
    for stage in ALL:
        ((partition, event),) = runs.events(result.run_id, stage, "plans").items()
        assert partition is None
        assert value(event, "dagster/row_count") == 7
    flow.fill("plans", {day(0): 9}, first_id=100)
    assert runs.backfill("plans").success
    query = f"SELECT count(), min(id) FROM {flow.domain}.plans"
    assert flow.clickhouse.query(query).result_rows == [(9, 101)]


def test_layers_can_be_run_one_by_one(runs: FlowRuns) -> None:
    flow = runs.flow
    flow.fill("items", {day(40): 5})
    assert runs.backfill("items", day(40), stages=[Stage.UNLOAD]).success
    assert flow.curated("items", day(40)) == []
    assert runs.backfill("items", day(40), stages=[Stage.CURATED]).success
    assert str(day(40)) not in flow.counts("items")
    assert runs.backfill("items", day(40), stages=[Stage.CLICKHOUSE]).success
    assert flow.counts("items")[str(day(40))] == 5


def test_a_layer_without_the_one_before_it_says_what_to_do(runs: FlowRuns) -> None:
    result = runs.backfill("items", day(41), stages=[Stage.CURATED])
    assert not result.success
    assert result.reason is not None
    assert "was never unloaded" in result.reason
    assert f"materialise unload/{runs.flow.domain}/items" in result.reason


def test_a_day_that_became_empty_ends_empty(runs: FlowRuns) -> None:
    flow = runs.flow
    flow.fill("items", {day(50): 30, day(51): 30})
    assert runs.backfill("items", day(50), day(51)).success
    flow.sql(f"DELETE FROM {flow.domain}.items WHERE day = '{day(50)}'")
    assert runs.backfill("items", day(50), day(51)).success
    counts = flow.counts("items")
    assert str(day(50)) not in counts
    assert counts[str(day(51))] == 30
    assert flow.curated("items", day(50)) == ["_manifest.json"]


def test_what_passes_by_itself_is_tried_again_within_the_run(runs: FlowRuns) -> None:
    flow = runs.flow
    flow.fill("items", {day(60): 20})
    refused = flow.cloud.faults("clickhouse").arm(
        "clickhouse.error", match={"sql": f"*{flow.domain}*REPLACE PARTITION*"}, code=210, status=503, message="busy"
    )
    lost = flow.cloud.faults("aws").arm(
        "s3.error", match={"key": f"{flow.domain}/items/*.parquet", "method": "PUT"}, status=500
    )
    result = runs.backfill("items", day(60))
    assert flow.cloud.faults("clickhouse").struck(refused) == 1
    assert flow.cloud.faults("aws").struck(lost) == 1
    assert result.success, result.reason
    assert flow.counts("items")[str(day(60))] == 20
    assert flow.staging_tables() == []


def test_metadata_is_readable_by_other_programs(runs: FlowRuns) -> None:
    flow = runs.flow
    flow.fill("items", {day(70): 1})
    run_id = runs.backfill("items", day(70)).run_id
    for stage in ALL:
        event = runs.events(run_id, stage, "items")[str(day(70))]
        plain = {name: str(entry.value) for name, entry in event.metadata.items()}
        assert json.loads(json.dumps(plain)) == plain
