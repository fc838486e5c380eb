"""One more service is one line of the catalogue; one more metric is one SQL file and one entry. Nothing else."""

import shutil
from datetime import UTC, date, datetime
from pathlib import Path

import dagster as dg
import pytest

from data_platform.analytics import sql_files
from data_platform.analytics.blocks import refresh_blocks
from data_platform.analytics.charts import chart
from data_platform.analytics.checks import check_summary
from data_platform.analytics.export import export_summary
from data_platform.analytics.metrics import METRICS, Changes, Metric
from data_platform.analytics.summaries import rebuild_summaries
from data_platform.assets.summaries import summary_assets
from data_platform.build import build_defs
from data_platform.catalog import load_catalog
from data_platform.catalog.models import Service
from data_platform.clients import aws
from data_platform.settings import Settings
from tests.analytics.conftest import Desk
from tests.analytics.reference import Event

CATALOG = Path(__file__).resolve().parents[2] / "catalog"
RUN = date(2024, 9, 1)
# The one SQL file of the test's metric.
BUYERS = """
SELECT service, day AS activity_date, toUInt64(sum(users)) AS buyers, {execution_date:Date} AS execution_date
FROM analytics_blocks.event_days
WHERE service IN {services:Array(String)} AND day IN {days:Array(Date)} AND event_name = 'buy'
GROUP BY service, day
"""


@pytest.mark.unit
def test_a_service_is_one_line_of_the_catalogue(tmp_path: Path) -> None:
    folder = shutil.copytree(CATALOG, tmp_path / "catalog")
    with (folder / "services.yaml").open("a", encoding="utf-8") as file:
        file.write("- name: theshop-books\n")
    settings = Settings(dagster_home=tmp_path, catalog=folder)
    definitions = build_defs(settings, catalog=load_catalog(folder))
    graph = definitions.resolve_asset_graph()
    mine = {key for key in graph.get_all_asset_keys() if key.path[:2] == ["summaries", "theshop_books"]}
    assert {key.path[2] for key in mine} == set(METRICS)
    assert {key.asset_key for key in graph.asset_check_keys} >= mine
    assert mine <= set(definitions.resolve_job_def("summaries").asset_layer.executable_asset_keys)
    tables = {graph.get(key).metadata["dagster/table_name"] for key in mine}
    assert tables == {f"analytics.theshop_books_{metric}_summary" for metric in METRICS}


@pytest.fixture
def buyers(monkeypatch: pytest.MonkeyPatch) -> str:
    def affected(changes: Changes) -> set[date]:
        return set(changes.events)

    shipped = sql_files.source
    monkeypatch.setitem(METRICS, "buyers", Metric("buyers", "Users who bought.", affected))
    monkeypatch.setattr(sql_files, "source", lambda path: BUYERS if path == "metrics/buyers" else shipped(path))
    return "buyers"


@pytest.mark.integration
def test_a_metric_is_one_sql_file_and_one_entry(desk: Desk, buyers: str) -> None:
    service = Service(name="with-buyers")
    first = int(datetime(2017, 3, 1, 12, tzinfo=UTC).timestamp()) * 10**9
    wanted = [
        (day, user, name) for day, users in enumerate((3, 1, 2)) for user in range(users) for name in ("buy", "look")
    ]
    events = [
        Event(first + day * 86_400 * 10**9 + user, name, f"u{user}", None, None, "o", number)
        for number, (day, user, name) in enumerate(wanted)
    ]
    desk.put(service.name, events)
    refresh_blocks(desk.client, desk.locks, [service])
    summaries = rebuild_summaries(desk.client, desk.locks, service, list(METRICS), RUN)
    assert [summary.metric for summary in summaries] == list(METRICS)
    assert desk.table(service, buyers) == [(date(2017, 3, 1), 3), (date(2017, 3, 2), 1), (date(2017, 3, 3), 2)]
    assert [check for check in check_summary(desk.client, service, buyers, RUN) if not check.passed] == []
    assert "data:image/svg+xml" in chart(desk.client, service, buyers)
    url, size = export_summary(desk.client, aws.s3(desk.settings), desk.settings.curated_bucket, service, buyers)
    assert url.endswith("summary/with-buyers/buyers/buyers.parquet")
    assert size > 0


@pytest.mark.unit
def test_the_asset_of_a_new_metric_follows_from_its_entry(buyers: str) -> None:
    assets = summary_assets(Service(name="theshop-brand"))
    key = dg.AssetKey(["summaries", "theshop_brand", buyers])
    assert key in assets.keys
    spec = assets.specs_by_key[key]
    assert spec.metadata["dagster/table_name"] == "analytics.theshop_brand_buyers_summary"
    assert {check.name for check in assets.check_specs if check.asset_key == key} == {"not_empty", "not_stale"}
