"""The sample shops' tables on both engines with one command each: equal, and a difference fails its check."""

import io
import json
from collections.abc import Iterator

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from data_platform.analytics.metrics import METRICS
from data_platform.cli.metrics import app
from data_platform.clients import aws, clickhouse
from data_platform.local.cloud import Cloud
from data_platform.local.sample.otel import log_objects
from data_platform.local.sample.shop import SHOPS

pytestmark = [pytest.mark.scenario, pytest.mark.load]
DAYS = 3


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    with Cloud(tmp_path_factory.mktemp("engines")) as cloud:
        yield cloud.up()


def exported(cloud: Cloud) -> dict[tuple[str, str], list[tuple[object, ...]]]:
    """The rows under the summary prefix, by service and metric, without execution_date."""
    s3 = aws.s3(cloud.settings)
    found: dict[tuple[str, str], list[tuple[object, ...]]] = {}
    for shop in SHOPS:
        for metric in METRICS:
            key = f"summary/{shop.service}/{metric}/{metric}.parquet"
            body = s3.get_object(Bucket=cloud.settings.curated_bucket, Key=key)["Body"].read()
            table = pq.read_table(io.BytesIO(body)).drop_columns(["execution_date"])
            columns = {name: table.column(name).to_pylist() for name in table.column_names}
            found[shop.service, metric] = sorted(zip(*columns.values(), strict=True))
    return found


@pytest.mark.timeout(900)
def test_both_engines_give_the_same_tables_and_tell_when_they_do_not(
    own: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in own.process_env.items():
        monkeypatch.setenv(name, value)
    s3 = aws.s3(own.settings)
    for each in log_objects(days=DAYS):
        s3.put_object(Bucket=own.settings.raw_bucket, Key=each.key, Body=each.body)

    def rebuild(*arguments: str) -> tuple[int, dict[str, object]]:
        result = CliRunner().invoke(app, ["rebuild", "--json", *arguments])
        return result.exit_code, json.loads(result.stdout)

    code, _ = rebuild("--engine", "clickhouse")
    assert code == 0
    on_clickhouse = exported(own)
    monkeypatch.setenv("DATA_PLATFORM_METRICS_ENGINE", "athena")
    code, summary = rebuild()
    assert (code, summary["status"], summary["loaded_days"]) == (0, "SUCCESS", 0)
    assert len(summary["tables"]) == len(SHOPS) * len(METRICS)  # type: ignore[arg-type]
    assert int(str(summary["bytes_scanned"])) > 0
    assert float(str(summary["estimated_cost_usd"])) > 0
    assert exported(own) == on_clickhouse
    with clickhouse.connect(own.settings) as client:
        client.command(
            "ALTER TABLE analytics.theshop_brand_mau_summary UPDATE mau_30 = mau_30 + 1 WHERE 1",
            settings={"mutations_sync": 2},
        )
    code, summary = rebuild()
    assert code == 1
    failed = summary["failed_checks"]
    assert isinstance(failed, list)
    assert len(failed) == 1
    assert "theshop_brand/mau: equals_other_engine" in failed[0]
