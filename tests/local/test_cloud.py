"""The embedded cloud as an object: needs, ports, what survives kill -9 of an engine, what a crash leaves behind."""

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from data_platform.clients import aws
from data_platform.errors import PlatformError
from data_platform.local.cloud import AlreadyRunningError, Cloud, with_needs
from data_platform.local.orphans import marked_processes

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """A whole cloud that these tests may break, not provisioned."""
    with Cloud(tmp_path_factory.mktemp("own")) as embedded:
        yield embedded.up(provision=False)


def killed_while_at_work(cloud: Cloud, engine: str, work: Callable[[int], None]) -> set[int]:
    """Call `work` with 0, 1, ... until the engine is killed in the middle; returns what was acknowledged."""
    acknowledged: set[int] = set()
    enough = threading.Event()
    error: list[BaseException] = []

    def run() -> None:
        try:
            for number in range(100_000):
                work(number)
                acknowledged.add(number)
                if len(acknowledged) == 20:
                    enough.set()
        except BaseException as caught:  # noqa: BLE001 - whatever the driver raises when its server is gone
            error.append(caught)
            enough.set()

    thread = threading.Thread(target=run)
    thread.start()
    assert enough.wait(20)
    cloud.kill(engine)
    assert cloud.running()[engine] is False
    thread.join(60)
    assert error, "the engine was killed before the work was done"
    assert len(acknowledged) >= 20, error
    cloud.restart(engine)
    return acknowledged


def test_s3_objects_that_were_acknowledged_survive_kill_9(own: Cloud) -> None:
    s3 = aws.s3(own.settings)
    s3.create_bucket(Bucket="survivors")

    def put(number: int) -> None:
        s3.put_object(Bucket="survivors", Key=f"k/{number}", Body=f"{number}".encode() * 1000)

    acknowledged = killed_while_at_work(own, "aws", put)
    for number in acknowledged:
        body = s3.get_object(Bucket="survivors", Key=f"k/{number}")["Body"].read()
        assert body == f"{number}".encode() * 1000


def test_rows_that_postgresql_and_the_warehouse_acknowledged_survive_kill_9(own: Cloud) -> None:
    import psycopg

    url = own.env["POSTGRES_URL"].replace("+psycopg", "")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE survivors (number int PRIMARY KEY)")
        acknowledged = killed_while_at_work(
            own, "warehouse", lambda number: connection.execute("INSERT INTO survivors VALUES (%s)", [number]) and None
        )
    with psycopg.connect(url) as connection:
        found = {row[0] for row in connection.execute("SELECT number FROM survivors")}
    assert acknowledged <= found
    assert len(found - acknowledged) <= 1, "at most the insert that was cut off"


def test_blocks_that_clickhouse_acknowledged_survive_kill_9(own: Cloud) -> None:
    import clickhouse_connect

    env = own.env

    def connect() -> clickhouse_connect.driver.Client:
        return clickhouse_connect.get_client(
            host=env["CLICKHOUSE_HOST"],
            port=int(env["CLICKHOUSE_PORT"]),
            username=env["CLICKHOUSE_USER"],
            password=env["CLICKHOUSE_PASSWORD"],
        )

    client = connect()
    client.command("CREATE TABLE default.survivors (number Int64) ENGINE = MergeTree ORDER BY number")
    acknowledged = killed_while_at_work(
        own, "clickhouse", lambda number: client.insert("default.survivors", [[number]], ["number"]) and None
    )
    found = {row[0] for row in connect().query("SELECT number FROM default.survivors").result_rows}
    assert acknowledged <= found


def test_ports_stay_the_same_over_kill_restart_and_the_next_up(own: Cloud, tmp_path: Path) -> None:
    before = own.env
    own.kill("kafka")
    own.restart("kafka")
    assert own.env == before
    with Cloud(tmp_path) as first:
        address = first.up(engines=["kafka"], provision=False).env["KAFKA_BOOTSTRAP_SERVERS"]
    with Cloud(tmp_path) as second:
        assert second.up(engines=["kafka"], provision=False).env["KAFKA_BOOTSTRAP_SERVERS"] == address


def test_restarting_aws_makes_its_queues_again(cloud: Cloud) -> None:
    sqs = aws.sqs(cloud.settings)
    queues = sorted(sqs.list_queues()["QueueUrls"])
    assert queues
    cloud.kill("aws")
    cloud.restart("aws")
    assert sorted(sqs.list_queues()["QueueUrls"]) == queues


def test_settings_lead_to_the_cloud_whatever_the_shell_says(own: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDSHIFT_HOST", "production.example")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "production")
    monkeypatch.setenv("DATA_PLATFORM_CLICKHOUSE_CLUSTER", "production")
    monkeypatch.setenv("DATA_PLATFORM_LOG_LEVEL", "DEBUG")
    settings = own.settings
    assert (settings.redshift_host, settings.aws_session_token, settings.clickhouse_cluster) == (
        "127.0.0.1",
        None,
        None,
    )
    assert settings.log_level == "DEBUG", "no engine's setting: the user's choice"
    assert "AWS_SESSION_TOKEN" not in own.process_env
    assert own.process_env["REDSHIFT_HOST"] == "127.0.0.1"


def test_an_engine_brings_what_it_needs_and_an_unknown_name_is_refused() -> None:
    assert with_needs(["warehouse"]) == ("aws", "warehouse")
    with pytest.raises(PlatformError, match="no such engine: oracle"):
        with_needs(["oracle", "kafka"])


def test_one_folder_has_one_host(own: Cloud) -> None:
    with pytest.raises(AlreadyRunningError, match="another process runs the embedded cloud"):
        Cloud(own.home).up(engines=["kafka"], provision=False)
    assert all(own.running().values()), "the attempt must not end what runs"


def test_when_an_engine_fails_to_start_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "cloud").mkdir()
    (tmp_path / "cloud" / "warehouse").write_text("a file where a folder belongs")
    embedded = Cloud(tmp_path)
    with pytest.raises((PlatformError, OSError)):
        embedded.up(engines=["warehouse", "kafka"], provision=False)
    assert marked_processes(tmp_path / "cloud") == []
    assert not embedded.state.locked()
    assert embedded.state.env() == {}


def test_engines_of_a_killed_host_end_and_the_next_up_recovers(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from data_platform.local.cloud import Cloud\n"
        "Cloud(Path(sys.argv[1])).up(provision=False); print('up', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True) as host:
        assert host.stdout is not None
        assert host.stdout.readline() == "up\n"
        ports = json.loads((tmp_path / "cloud" / "ports.json").read_text())
        engines = marked_processes(tmp_path / "cloud")
        assert len(engines) >= 4
        host.send_signal(signal.SIGKILL)
    with Cloud(tmp_path) as recovered:  # at once: whatever still ends must be out of the way first
        recovered.up(provision=False)
        _, alive = psutil.wait_procs(engines, timeout=0)
        assert alive == []
        assert json.loads((tmp_path / "cloud" / "ports.json").read_text()) == ports
        assert all(recovered.running().values())


def test_without_a_next_up_the_engines_of_a_killed_host_end_by_themselves(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from data_platform.local.cloud import Cloud\n"
        "Cloud(Path(sys.argv[1])).up(engines=['kafka', 'warehouse'], provision=False)\n"
        "print('up', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True) as host:
        assert host.stdout is not None
        host.stdout.readline()
        host.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 15
    while marked_processes(tmp_path / "cloud") and time.monotonic() < deadline:
        time.sleep(0.2)
    assert marked_processes(tmp_path / "cloud") == []
