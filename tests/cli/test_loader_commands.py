"""`loader status | history | pause | resume`, `dlq list | show | replay | drop`, `trace`: for people and programs."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from typer.testing import CliRunner, Result

from data_platform.catalog.keys import CuratedKey
from data_platform.cli import output
from data_platform.cli.main import app
from data_platform.errors import PlatformError
from data_platform.loading import agent as agent_module
from data_platform.loading.agent import Agent
from data_platform.local.cloud import Cloud
from tests.flow import day
from tests.flow_runs import FlowRuns, flow_runs
from tests.loading.conftest import parquet

pytestmark = pytest.mark.integration
SCHEMA = pa.schema(
    [
        pa.field("day", pa.date32(), nullable=False),
        pa.field("id", pa.int64(), nullable=False),
        pa.field("name", pa.string()),
        pa.field("amount", pa.decimal128(18, 2), nullable=False),
    ]
)
FOREIGN = 40
runner = CliRunner()


@pytest.fixture(scope="module")
def platform(cloud: Cloud, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlowRuns]:
    """One day from the warehouse, one object of a foreign producer, one of no format at all; an agent has loaded."""
    with flow_runs(cloud, tmp_path_factory.mktemp("catalog"), "items") as runs, pytest.MonkeyPatch.context() as patch:
        for name, value in (runs.flow.env | {"DATA_PLATFORM_LOADER_METRICS_PORT": "0"}).items():
            patch.setenv(name, value)
        patch.setattr(output.out, "width", 400)
        patch.setattr(agent_module, "DRAIN_POLL_S", 0.3)
        runs.flow.fill("items", {day(0): 50})
        assert runs.backfill("items", day(0), day(0)).success
        put(runs, "foreign.parquet", parquet(items(FOREIGN)))
        put(runs, "table.parquet", b"day,id,name,amount\n" * 200)
        drain(runs)
        yield runs


def items(count: int) -> pa.Table:
    return pa.table(
        {
            "day": [day(1)] * count,
            "id": list(range(count)),
            "name": [f"item {number}" for number in range(count)],
            "amount": [Decimal(number) for number in range(count)],
        },
        schema=SCHEMA,
    )


def put(runs: FlowRuns, file: str, body: bytes) -> str:
    key = CuratedKey(runs.flow.domain, "items", day(1), file).key
    runs.flow.s3.put_object(Bucket=runs.flow.settings.curated_bucket, Key=key, Body=body)
    return key


def drain(runs: FlowRuns) -> None:
    agent = Agent(runs.flow.settings, runs.flow.catalog, [runs.flow.domain])
    agent.start()
    try:
        assert agent.until_empty(60)
    finally:
        agent.stop()


def call(*words: str) -> Result:
    return runner.invoke(app, list(words), catch_exceptions=True)


def told(*words: str) -> Any:
    """What a command tells programs."""
    result = call(*words, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_status_shows_queues_and_the_last_hour(platform: FlowRuns) -> None:
    domain = platform.flow.domain
    (row,) = told("loader", "status")
    assert row["domain"] == domain
    assert (row["state"], row["waiting"], row["in_flight"], row["agent"]) == ("running", 0, 0, "none on this host")
    assert row["loaded"] >= 2
    assert row["rows"] >= 50 + FOREIGN
    assert row["p95_latency_s"] is not None
    assert domain in call("loader", "status").stdout


def test_a_pause_is_seen_in_the_status_until_it_ends(platform: FlowRuns) -> None:
    domain = platform.flow.domain
    assert told("loader", "pause", domain, "--reason", "disk change")["state"] == "paused"
    assert told("loader", "status")[0]["state"] == "paused"
    assert f"{domain} is running" in call("loader", "resume", domain).stdout
    assert told("loader", "status")[0]["state"] == "running"


def test_history_tells_what_became_of_every_version(platform: FlowRuns) -> None:
    dataset = f"{platform.flow.domain}/items"
    rows = told("loader", "history", dataset)
    by_file = {row["key"].rpartition("/")[2]: row for row in rows}
    foreign = by_file["foreign.parquet"]
    assert (foreign["state"], foreign["rows"], foreign["attempts"], foreign["plan"]) == (
        "loaded",
        FOREIGN,
        0,
        "one block",
    )
    assert foreign["latency_s"] > 0
    assert foreign["query_id"]
    assert (by_file["table.parquet"]["state"], by_file["table.parquet"]["code"]) == ("failed", "E002")
    assert told("loader", "history", dataset, "--state", "failed", "--ds", str(day(1))) == [by_file["table.parquet"]]
    assert told("loader", "history", dataset, "--key", "foreign", "--limit", "1") == [foreign]
    assert isinstance(call("loader", "history", dataset, "--state", "lost").exception, PlatformError)
    assert call("loader", "history", dataset, "--ds", "yesterday").exit_code == 2


def test_history_shows_keys_and_reasons_whole_in_a_narrow_terminal(
    platform: FlowRuns, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output.out, "width", 80)
    dataset = f"{platform.flow.domain}/items"
    shown = call("loader", "history", dataset).stdout.splitlines()
    for row in told("loader", "history", dataset):
        assert f"    {row['key']}" in shown
        assert any(row["version"] in line for line in shown)
        assert not row["reason"] or f"    {row['code']} {row['reason']}" in shown
    assert any(line.startswith(f"    {FOREIGN} rows, ") and line.endswith("one block") for line in shown)


def test_trace_goes_from_a_row_to_the_sql_that_made_it(platform: FlowRuns) -> None:
    (traced,) = told("trace", f"{platform.flow.domain}/items", "--where", f"_ds={day(0)}", "--where", "id=7")
    assert traced["load"]["state"] == "loaded"
    assert traced["s3"]["current"] == "this version"
    assert traced["curated"]["rows"] == 50
    assert traced["curated"]["kind"] == "unload"
    assert traced["unload"]["rows"] == 50
    assert "UNLOAD" in traced["sql"]["text"].upper()


def test_trace_of_a_foreign_object_ends_at_it(platform: FlowRuns) -> None:
    table = f"{platform.flow.domain}/items"
    (traced,) = told("trace", table, "--where", f"_ds={day(1)}", "--where", "id=7")
    assert traced["object"].startswith(f"s3://{platform.flow.settings.curated_bucket}/{platform.flow.domain}/items/")
    assert "foreign" in traced["curated"]["producer"]
    assert "unload" not in traced
    assert "foreign.parquet" in call("trace", traced["object"]).stdout
    for wrong in (["--where", "id=-1"], ["--where", "colour=red"], ["--where", "id"]):
        assert isinstance(call("trace", table, *wrong).exception, PlatformError)


def test_dead_letters_are_listed_shown_replayed_and_dropped(platform: FlowRuns) -> None:
    key = CuratedKey(platform.flow.domain, "items", day(1), "table.parquet").key
    (letter,) = told("dlq", "list")
    assert (letter["code"], letter["key"], letter["attempts"]) == ("E002", key, 1)
    assert letter["next_step"].startswith("reprocess the file: its rows are missing")
    shown = told("dlq", "show", letter["id"][:8])
    assert json.loads(shown["message"])["key"] == key
    assert shown["first_at"] <= shown["last_at"]
    assert key in call("dlq", "show", letter["id"][:8]).stdout
    assert "E002" in call("dlq", "list").stdout
    soon = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%S")
    assert told("dlq", "list", "--code", "E003") == []
    assert told("dlq", "list", "--since", soon) == []
    assert [each["id"] for each in told("dlq", "list", "--until", soon, "--code", "E002")] == [letter["id"]]
    assert isinstance(call("dlq", "list", "--domain", "none").exception, PlatformError)
    assert isinstance(call("dlq", "replay").exception, PlatformError)  # which?
    assert isinstance(call("dlq", "show", "none").exception, PlatformError)
    # Replayed unmended it dies again, its attempts counted anew.
    assert told("dlq", "replay", "--id", letter["id"][:8]) == {"replayed": 1}
    assert told("dlq", "list") == []
    drain(platform)
    (again,) = told("dlq", "list")
    assert (again["key"], again["code"], again["attempts"]) == (key, "E002", 1)
    assert again["id"] != letter["id"]
    # Mended under the same key it is loaded by its own event; the letter's is older and changes nothing.
    put(platform, "table.parquet", parquet(items(FOREIGN)))
    assert "replayed 1 dead letter" in call("dlq", "replay", "--all").stdout
    stray = f"{platform.flow.domain}/items/other.parquet"  # of no day
    platform.flow.s3.put_object(Bucket=platform.flow.settings.curated_bucket, Key=stray, Body=b"x" * 2000)
    drain(platform)
    assert platform.flow.counts("items")[str(day(1))] == 2 * FOREIGN
    (malformed,) = told("dlq", "list")
    assert malformed["code"] == "E001"
    refused = runner.invoke(app, ["dlq", "drop", "--id", malformed["id"]], input="n\n")
    assert refused.exit_code == 1
    assert len(told("dlq", "list")) == 1
    assert told("dlq", "drop", "--all", "--yes") == {"dropped": 1}
    assert told("dlq", "list") == []
