"""The Kafka engine over its real protocol: topics, a port that stays, faults that strike what was asked for."""

import shutil
import socket
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from data_platform.errors import ConfigurationError
from data_platform.local.kafka import mock
from data_platform.local.kafka.server import PLATFORM_TOPICS
from data_platform.local.process import EngineProcess

pytestmark = pytest.mark.integration
QUIET = {"log_level": 0}


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    engine = EngineProcess.with_free_ports("kafka", tmp_path_factory.mktemp("kafka")).start()
    yield engine
    engine.stop()


@pytest.fixture
def servers(kafka: EngineProcess) -> Iterator[str]:
    yield kafka.env["KAFKA_BOOTSTRAP_SERVERS"]
    kafka.faults.clear()


@pytest.fixture
def topic(servers: str) -> str:
    name = f"t-{uuid.uuid4().hex[:8]}"
    admin = AdminClient({"bootstrap.servers": servers, **QUIET})  # kept: the answer dies with it
    admin.create_topics([NewTopic(name, 1)])[name].result(5)
    return name


@pytest.fixture
def client_id() -> str:
    """A name of this test's own, so that its faults strike no other test's requests."""
    return f"c-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def send(servers: str, topic: str, client_id: str) -> Callable[..., list[tuple[KafkaError | None, int]]]:
    """Produce values to `topic` one by one; returns (error, offset) of each delivery report."""

    def run(*values: str, timeout_ms: int = 10_000) -> list[tuple[KafkaError | None, int]]:
        reports: list[tuple[KafkaError | None, int]] = []
        config = {"bootstrap.servers": servers, "client.id": client_id, "enable.idempotence": True, **QUIET}
        producer = Producer({**config, "delivery.timeout.ms": timeout_ms, "request.timeout.ms": min(timeout_ms, 1000)})
        for value in values:
            producer.produce(topic, value, on_delivery=lambda error, record: reports.append((error, record.offset())))
            producer.flush(15)
        return reports

    return run


def partitions(servers: str) -> dict[str, int]:
    metadata = AdminClient({"bootstrap.servers": servers, **QUIET}).list_topics(timeout=5)
    return {name: len(topic.partitions) for name, topic in metadata.topics.items()}


def test_the_topics_of_the_platform_are_there_with_three_partitions(servers: str) -> None:
    assert dict.fromkeys(PLATFORM_TOPICS, 3).items() <= partitions(servers).items()


def test_clients_are_led_back_to_the_fixed_port(kafka: EngineProcess, servers: str) -> None:
    brokers = AdminClient({"bootstrap.servers": servers, **QUIET}).list_topics(timeout=5).brokers
    assert [f"{broker.host}:{broker.port}" for broker in brokers.values()] == [servers]
    assert servers.endswith(f":{kafka.ports['kafka']}")


def test_topics_are_created_by_the_admin_client(servers: str) -> None:
    admin = AdminClient({"bootstrap.servers": servers, **QUIET})
    name = f"made-{uuid.uuid4().hex[:8]}"
    futures = admin.create_topics([NewTopic(name, 5, config={"retention.ms": "1000"}), NewTopic(PLATFORM_TOPICS[0], 9)])
    assert futures[name].result(5) is None
    with pytest.raises(KafkaException) as caught:
        futures[PLATFORM_TOPICS[0]].result(5)
    assert caught.value.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS
    assert partitions(servers)[name] == 5
    assert partitions(servers)[PLATFORM_TOPICS[0]] == 3


def test_a_topic_that_is_only_checked_is_not_made(servers: str) -> None:
    name = f"checked-{uuid.uuid4().hex[:8]}"
    admin = AdminClient({"bootstrap.servers": servers, **QUIET})
    assert admin.create_topics([NewTopic(name, 2)], validate_only=True)[name].result(5) is None
    with pytest.raises(KafkaException):
        admin.create_topics([NewTopic(name, 0)])[name].result(5)
    assert name not in partitions(servers)


def test_an_option_replaces_the_topics(tmp_path: Path) -> None:
    engine = EngineProcess.with_free_ports("kafka", tmp_path, {"topics": {"orders": 6}}).start()
    try:
        assert partitions(engine.env["KAFKA_BOOTSTRAP_SERVERS"]) == {"orders": 6}
    finally:
        engine.stop()


def test_a_broker_error_is_retried_by_the_producer_and_counted(kafka: EngineProcess, send, client_id: str) -> None:
    fault = kafka.faults.arm(
        "kafka.error", match={"api": "Produce", "client_id": client_id}, times=2, code="NOT_LEADER_FOR_PARTITION"
    )
    assert send("a", "b") == [(None, 0), (None, 1)]
    assert kafka.faults.struck(fault) == 2


def test_a_permanent_broker_error_reaches_the_delivery_report(kafka: EngineProcess, send, client_id: str) -> None:
    fault = kafka.faults.arm(
        "kafka.error", match={"api": "Produce", "client_id": client_id}, code=KafkaError.TOPIC_AUTHORIZATION_FAILED
    )
    [(error, _offset)] = send("a")
    assert error is not None
    assert error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED
    assert kafka.faults.struck(fault) == 1


def test_a_lost_answer_leaves_the_record_in_the_log_and_it_is_sent_again(
    kafka: EngineProcess, send, client_id: str
) -> None:
    fault = kafka.faults.arm("kafka.drop_response", match={"api": "Produce", "client_id": client_id})
    [(error, offset)] = send("a")
    assert kafka.faults.struck(fault) == 1
    # The mock broker does not drop the repetition, as a real one would: consumers here see what they must cope with.
    assert (error, offset) == (None, 1)


def test_a_lost_request_is_sent_again_and_stored_once(kafka: EngineProcess, send, client_id: str) -> None:
    fault = kafka.faults.arm("kafka.disconnect", match={"api": "Produce", "client_id": client_id})
    assert send("a") == [(None, 0)]
    assert kafka.faults.struck(fault) == 1


def test_a_slow_broker_makes_the_delivery_time_out(kafka: EngineProcess, send, client_id: str) -> None:
    fault = kafka.faults.arm("kafka.delay", match={"api": "Produce", "client_id": client_id}, times=None, seconds=5)
    [(error, _offset)] = send("a", timeout_ms=1500)
    assert error is not None
    assert error.code() == KafkaError._MSG_TIMED_OUT
    assert kafka.faults.struck(fault) >= 1


def test_a_broker_that_is_down_refuses_everybody_until_it_is_up(kafka: EngineProcess, servers: str, send) -> None:
    fault = kafka.faults.arm("kafka.broker_down", times=None)
    with pytest.raises(KafkaException):
        AdminClient({"bootstrap.servers": servers, **QUIET}).list_topics(timeout=1)
    assert kafka.faults.struck(fault) >= 1
    kafka.faults.disarm(fault)
    assert send("a") == [(None, 0)]


@pytest.mark.parametrize("code", [None, 0, "NO_SUCH_ERROR", -195])
def test_an_error_code_that_no_broker_sends_is_refused(kafka: EngineProcess, code: int | str | None) -> None:
    with pytest.raises(ValueError, match="needs code="):
        kafka.faults.arm("kafka.error", code=code)


def test_bytes_that_are_no_request_close_their_connection_only(kafka: EngineProcess, servers: str) -> None:
    host, port = servers.split(":")
    for hostile in (b"GET / HTTP/1.1\r\n\r\n", b"\x00\x00\x00\x02\x00\x12", b"\xff\xff\xff\xff"):
        with socket.create_connection((host, int(port)), timeout=5) as connection:
            connection.sendall(hostile)
            assert connection.recv(1) == b""
    assert partitions(servers)


def test_after_kill_and_start_clients_find_it_on_the_same_port_and_it_has_forgotten(tmp_path: Path) -> None:
    engine = EngineProcess.with_free_ports("kafka", tmp_path).start()
    try:
        servers = engine.env["KAFKA_BOOTSTRAP_SERVERS"]
        reports: list[tuple[object, int]] = []
        producer = Producer({"bootstrap.servers": servers, "reconnect.backoff.max.ms": 200, **QUIET})
        for _ in range(2):
            producer.produce("user-events", b"x", partition=0, on_delivery=lambda e, m: reports.append((e, m.offset())))
            producer.flush(10)
            engine.kill()
            engine.start()
        assert reports == [(None, 0), (None, 0)]
    finally:
        engine.stop()


def test_a_library_without_the_mock_cluster_ends_in_a_message_that_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mock, "_candidates", lambda: iter(["/nowhere/librdkafka.so.1", "libc.so.6"]))
    with pytest.raises(ConfigurationError, match=r"libc\.so\.6: does not export") as caught:
        mock.load_library()
    assert "pip install" in str(caught.value)


@pytest.mark.skipif(shutil.which("kcat") is None, reason="not run: kcat is not on PATH (apt-get install kcat)")
def test_kcat_produces_and_consumes(servers: str, topic: str) -> None:
    subprocess.run(["kcat", "-b", servers, "-t", topic, "-P"], input=b"one\ntwo\n", check=True, timeout=20)
    read = subprocess.run(
        ["kcat", "-b", servers, "-t", topic, "-C", "-e", "-q"], capture_output=True, check=True, timeout=20
    )
    assert read.stdout == b"one\ntwo\n"
