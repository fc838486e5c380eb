"""A CSV dropped on S3 until its rows are in PostgreSQL: event, queue, sensor tick, run, assets, checks; and by hand."""

import json
import time
import uuid
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

import dagster as dg
import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from data_platform.assets.user_statistics import (
    FILES,
    FILES_KEY,
    TABLE_KEY,
    user_statistics_assets,
    user_statistics_checks,
)
from data_platform.catalog.models import UserStatistics
from data_platform.cli.main import app
from data_platform.clients import aws
from data_platform.local.cloud import Cloud
from data_platform.local.sample.load import load_sample
from data_platform.local.sample.users import CSV_NAME
from data_platform.resources.settings import SettingsResource
from data_platform.sensors.user_statistics import user_statistics_job, user_statistics_sensor
from data_platform.settings import Settings
from tests.statistics.bench import Bench, emptied, make_bench

pytestmark = pytest.mark.scenario
IN_THE_TEST: dict[str, Settings] = {}


class TestSettings(SettingsResource):
    """Settings of the test instead of those of the environment."""

    __test__ = False

    def load(self) -> Settings:
        """The settings of the test under way."""
        return IN_THE_TEST["settings"]


@pytest.fixture(scope="module")
def module_bench(cloud: Cloud) -> Iterator[Bench]:
    """One database for the tests of this module."""
    yield from make_bench(cloud, f"s_{uuid.uuid4().hex}")


@pytest.fixture
def bench(module_bench: Bench, cloud: Cloud) -> Iterator[Bench]:
    """The module's database and an empty queue."""
    IN_THE_TEST["settings"] = module_bench.settings
    for queue in ("queue", "dlq"):
        drain(cloud.settings, queue)
    yield emptied(module_bench)
    visibility(cloud.settings, 60)
    IN_THE_TEST.clear()


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    """A Dagster of the test's own."""
    with dg.instance_for_test() as own:
        yield own


@pytest.fixture(scope="module")
def definitions(cloud: Cloud) -> dg.Definitions:
    """The batch's share of the code location, with the test's settings."""
    job = user_statistics_job()
    return dg.Definitions(
        assets=user_statistics_assets(UserStatistics()),
        asset_checks=user_statistics_checks(),
        jobs=[job],
        sensors=[user_statistics_sensor(job, dg.DefaultSensorStatus.STOPPED)],
        resources={"platform": TestSettings()},
        executor=dg.in_process_executor,
    )


def queue_url(settings: Settings, kind: str) -> str:
    return aws.sqs(settings).get_queue_url(QueueName=f"{settings.env}-user-statistics-{kind}")["QueueUrl"]


def drain(settings: Settings, kind: str) -> list[dict[str, Any]]:
    """Receive and delete all there is."""
    sqs, url, found = aws.sqs(settings), queue_url(settings, kind), list[dict[str, Any]]()
    while messages := sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=0).get("Messages", []):
        found += messages  # pyright: ignore[reportArgumentType]
        for message in messages:
            sqs.delete_message(QueueUrl=url, ReceiptHandle=message.get("ReceiptHandle", ""))
    return found


def on_queue(settings: Settings) -> int:
    names: Any = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    found = aws.sqs(settings).get_queue_attributes(QueueUrl=queue_url(settings, "queue"), AttributeNames=names)
    return sum(int(value) for value in found["Attributes"].values())


def visibility(settings: Settings, seconds: int) -> None:
    """How long a message that was received stays hidden."""
    attributes: Any = {"VisibilityTimeout": str(seconds)}
    aws.sqs(settings).set_queue_attributes(QueueUrl=queue_url(settings, "queue"), Attributes=attributes)


def tick(definitions: dg.Definitions, instance: dg.DagsterInstance) -> dg.SensorResult:
    sensor = definitions.resolve_sensor_def("user_statistics_drops")
    context = dg.build_sensor_context(instance, definitions=definitions, resources={"platform": TestSettings()})
    result = sensor(context)
    assert isinstance(result, dg.SensorResult)
    return result


def run(definitions: dg.Definitions, instance: dg.DagsterInstance, result: dg.SensorResult) -> Any:
    """What the daemon does with a tick's result: add the partition, run the job."""
    (request,) = result.run_requests or ()
    for wanted in result.dynamic_partitions_requests or ():
        instance.add_dynamic_partitions(FILES.name or "", list(wanted.partition_keys))
    return definitions.resolve_job_def("user_statistics").execute_in_process(
        instance=instance,
        partition_key=request.partition_key,
        tags=dict(request.tags),
        raise_on_error=False,
    )


def test_a_drop_becomes_rows_assets_and_checks(
    bench: Bench, cloud: Cloud, definitions: dg.Definitions, instance: dg.DagsterInstance
) -> None:
    bench.write("DELETE FROM users")
    settings = bench.settings
    load_sample(settings, ["users", "csv"])
    assert bench.rows("SELECT count(*) FROM users WHERE user_id LIKE 'U00%'") == [(100,)]
    assert bench.table() == {}
    touch(bench)
    wait_for(lambda: on_queue(settings) >= 1)
    visibility(settings, 1)
    first = tick(definitions, instance)
    (request,) = first.run_requests or ()
    assert len(request.run_key or "") == 64
    assert on_queue(settings) >= 1  # nothing is acknowledged in the tick that received it
    result = run(definitions, instance, first)
    assert result.success
    assert len(bench.table()) == 100
    assert on_queue(settings) >= 1
    (check,) = [e for e in result.get_asset_check_evaluations() if e.check_name == "table_matches_file"]
    assert check.passed
    assert check.metadata["rows_compared"].value == 100
    assert {e.check_name for e in result.get_asset_check_evaluations() if e.passed} == {
        "conservation", "table_matches_file", "foreign_keys",
    }  # fmt: skip
    (event,) = result.asset_materializations_for_node("user_statistics__files")[-1:]
    assert event.metadata["inserted"].value == 100
    read: Any = event.metadata["read"].value
    assert (read["rows"], unquote(request.partition_key or "").endswith(f"@{read['version']}")) == (100, True)
    table = instance.get_latest_materialization_event(TABLE_KEY)
    assert table is not None
    assert table.asset_materialization is not None
    assert table.asset_materialization.metadata["dagster/row_count"].value == 100
    assert instance.get_materialized_partitions(FILES_KEY) == {request.partition_key}
    wait_for(lambda: tick_deletes(definitions, instance, settings))


def tick_deletes(definitions: dg.Definitions, instance: dg.DagsterInstance, settings: Settings) -> bool:
    """A later tick that starts nothing; whether the queue is empty after it."""
    assert not tick(definitions, instance).run_requests
    return on_queue(settings) == 0


def test_the_code_location_has_assets_checks_job_and_sensor(cloud: Cloud) -> None:
    from data_platform.build import build_defs

    whole = build_defs(cloud.settings)
    graph = whole.resolve_asset_graph()
    assert {FILES_KEY, TABLE_KEY} <= graph.get_all_asset_keys()
    assert {key.name for key in graph.asset_check_keys if key.asset_key in {FILES_KEY, TABLE_KEY}} == {
        "conservation", "table_matches_file", "foreign_keys",
    }  # fmt: skip
    sensor = whole.resolve_sensor_def("user_statistics_drops")
    assert sensor.job_name == "user_statistics"
    assert sensor.default_status is dg.DefaultSensorStatus.STOPPED  # the settings let nothing start by itself
    assert whole.resolve_job_def("user_statistics").tags["dagster/max_runtime"] == "900"


def touch(bench: Bench) -> None:
    """Put the sample's file once more, so that its event is on the queue whatever was there before."""
    key = f"incoming/{CSV_NAME}"
    bucket = bench.settings.raw_bucket
    drain(bench.settings, "queue")
    body = bench.s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    bench.s3.put_object(Bucket=bucket, Key=key, Body=body)


def test_a_refused_file_fails_its_run_and_leaves_the_queue(
    bench: Bench, definitions: dg.Definitions, instance: dg.DagsterInstance
) -> None:
    bench.drop("user_id,login_count,post_count\nU00001,x,1\nU00002,1,1\n")
    wait_for(lambda: on_queue(bench.settings) >= 1)
    visibility(bench.settings, 1)
    result = run(definitions, instance, tick(definitions, instance))
    assert not result.success
    failure = result.get_step_failure_events()[0].event_specific_data
    assert "1 of 2 lines are bad (50.0 %), more than the 10 %" in str(failure)
    assert bench.table() == {}
    wait_for(lambda: tick_deletes(definitions, instance, bench.settings))


def test_a_failed_run_is_tried_three_times_under_other_keys_then_given_up(
    bench: Bench, definitions: dg.Definitions, instance: dg.DagsterInstance
) -> None:
    file = bench.drop("user_id,login_count,post_count\nU00001,1,1\n")
    wait_for(lambda: on_queue(bench.settings) >= 1)
    visibility(bench.settings, 1)
    bench.write("ALTER TABLE user_statistics RENAME TO away")
    keys: list[str] = []
    try:
        for _ in range(3):
            wait_for(lambda: (keep := tick(definitions, instance)).run_requests and not keys.append(note(keep)))
            assert not run_last(definitions, instance).success
    finally:
        bench.write("ALTER TABLE away RENAME TO user_statistics")
    assert len(set(keys)) == 3
    assert keys[0] == file.file_id
    wait_for(lambda: not tick(definitions, instance).run_requests and on_queue(bench.settings) == 0)
    (dead,) = drain(bench.settings, "dlq")
    assert file.key in dead["Body"]


LAST: list[dg.SensorResult] = []


def note(result: dg.SensorResult) -> str:
    LAST.append(result)
    (request,) = result.run_requests or ()
    return request.run_key or ""


def run_last(definitions: dg.Definitions, instance: dg.DagsterInstance) -> Any:
    return run(definitions, instance, LAST.pop())


def test_a_message_that_names_no_file_ends_in_the_dead_letter_queue(
    bench: Bench, definitions: dg.Definitions, instance: dg.DagsterInstance
) -> None:
    visibility(bench.settings, 1)
    aws.sqs(bench.settings).send_message(QueueUrl=queue_url(bench.settings, "queue"), MessageBody="no JSON")
    assert not tick(definitions, instance).run_requests
    assert on_queue(bench.settings) == 1
    wait_for(lambda: tick_deletes(definitions, instance, bench.settings))
    assert [message["Body"] for message in drain(bench.settings, "dlq")] == ["no JSON"]


@pytest.fixture
def cli(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The command line with the bench's engines in its environment."""
    cloud_env = {
        "AWS_ENDPOINT_URL": bench.settings.aws_endpoint_url,
        "AWS_ACCESS_KEY_ID": "embedded",
        "AWS_SECRET_ACCESS_KEY": "embedded",
        "AWS_DEFAULT_REGION": bench.settings.aws_region,
        "POSTGRES_URL": bench.settings.postgres_url.get_secret_value(),  # pyright: ignore[reportOptionalMemberAccess]
    }
    for name, value in cloud_env.items():
        monkeypatch.setenv(name, str(value))

    def call(*arguments: str) -> Any:
        return CliRunner().invoke(app, ["statistics", *arguments])

    return call


def test_by_hand_dry_then_applied_then_told(bench: Bench, cli: Any) -> None:
    rows = "".join(f"U{n:05d},{n},{n}\n" for n in range(1, 31))
    file = bench.drop("user_id,login_count,post_count\n" + rows + "U99999,1,1\n", name="by-hand.csv")
    dry = cli("apply", file.url, "--dry-run", "--json")
    assert dry.exit_code == 0, dry.output
    found = json.loads(dry.stdout)
    assert (found["status"], found["records"], found["rejected"]) == ("DRY_RUN", 31, 1)
    assert found["rejects"][0]["class"] == "UserNotFoundError"
    assert bench.table() == {}
    assert bench.rows("SELECT count(*) FROM processing_metadata") == [(0,)]
    done = cli("apply", file.url, "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["inserted"] == 30
    again = json.loads(cli("apply", file.url, "--json").stdout)
    assert (again["status"], again["inserted"], again["updated"], again["unchanged"]) == ("ALREADY_DONE", 0, 0, 30)
    history = json.loads(cli("history", "--json").stdout)
    assert [(row["key"], row["status"], row["rejected"]) for row in history] == [("incoming/by-hand.csv", "DONE", 1)]
    audit = json.loads(cli("audit", "by-hand.csv", "--json").stdout)
    assert [row["event"] for row in audit] == ["PROCESSING_STARTED", "ROW_REJECTED", "PROCESSED_WITH_REJECTS"]
    reject = audit[1]
    assert (reject["line"], reject["column"], reject["value"]) == (32, "user_id", "U99999")
    assert "by-hand.csv" in cli("history").stdout


def test_by_hand_a_changed_table_is_put_right(bench: Bench, cli: Any) -> None:
    file = bench.drop("user_id,login_count,post_count\nU00001,1,1\nU00002,2,2\n")
    assert cli("apply", file.url).exit_code == 0
    bench.write("DELETE FROM user_statistics WHERE user_id = 'U00001'")
    again = json.loads(cli("apply", file.url, "--json").stdout)
    assert (again["status"], again["inserted"], again["unchanged"]) == ("DONE", 1, 1)
    assert bench.table() == {"U00001": (1, 1), "U00002": (2, 2)}


def wait_for(condition: Any, timeout: float = 30) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_every_row_has_its_user_whoever_wrote_it(bench: Bench) -> None:
    with pytest.raises(sa.exc.IntegrityError, match="fk_user_statistics_user_id"):
        bench.write("INSERT INTO user_statistics (user_id, login_count, post_count) VALUES ('U99999', 1, 1)")
