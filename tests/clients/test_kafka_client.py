"""Kafka's client module on the embedded broker: what is sent arrives, what is committed stays, errors have a class."""

import time
import uuid
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka.admin import NewTopic

from data_platform.clients import kafka
from data_platform.errors import ConfigurationError, Fault
from data_platform.local.cloud import Cloud
from data_platform.local.process import free_port
from data_platform.settings import Settings


@pytest.fixture
def topic(settings: Settings) -> str:
    name = f"client-{uuid.uuid4().hex[:8]}"
    admin = kafka.admin(settings)
    admin.create_topics([NewTopic(name, 1)])[name].result(5)
    return name


def produce(settings: Settings, topic: str, *values: str) -> list[KafkaError | None]:
    errors: list[KafkaError | None] = []
    producer = kafka.producer(settings)
    for value in values:
        producer.produce(
            topic, value, key="k", headers={"type": b"test"}, on_delivery=lambda error, _record: errors.append(error)
        )
    assert producer.flush(15) == 0
    return errors


def read(consumer: Any, count: int, timeout_s: float = 10) -> list[Any]:
    records: list[Any] = []
    deadline = time.monotonic() + timeout_s
    while len(records) < count and time.monotonic() < deadline:
        records += consumer.consume(count - len(records), 0.2)
    return records


def test_records_arrive_in_order_with_key_and_headers(settings: Settings, topic: str) -> None:
    assert produce(settings, topic, "a", "b") == [None, None]
    consumer = kafka.consumer(settings, topic, topic)
    try:
        records = read(consumer, 2)
    finally:
        consumer.close()
    assert [(r.key(), r.value(), r.headers()) for r in records] == [
        (b"k", b"a", [("type", b"test")]),
        (b"k", b"b", [("type", b"test")]),
    ]


def test_a_group_goes_on_after_its_last_commit_and_repeats_what_was_not_committed(
    settings: Settings, topic: str
) -> None:
    produce(settings, topic, "a", "b", "c")
    first = kafka.consumer(settings, topic, topic)
    records = read(first, 3)
    first.commit(message=records[0], asynchronous=False)
    first.close()
    second = kafka.consumer(settings, topic, topic)
    try:
        assert [record.value() for record in read(second, 2)] == [b"b", b"c"]
    finally:
        second.close()


def test_a_broker_error_is_ridden_out_by_the_producer(cloud: Cloud, settings: Settings, topic: str) -> None:
    fault = cloud.faults("kafka").arm("kafka.error", match={"api": "Produce"}, times=2, code="REQUEST_TIMED_OUT")
    assert produce(settings, topic, "a") == [None]
    assert cloud.faults("kafka").struck(fault) == 2


def test_a_commit_that_the_broker_refuses_is_classified(cloud: Cloud, settings: Settings, topic: str) -> None:
    produce(settings, topic, "a")
    consumer = kafka.consumer(settings, topic, topic)
    try:
        [record] = read(consumer, 1)
        fault = cloud.faults("kafka").arm(
            "kafka.error", match={"api": "OffsetCommit"}, code="GROUP_AUTHORIZATION_FAILED"
        )
        with pytest.raises(KafkaException) as caught:
            consumer.commit(message=record, asynchronous=False)
    finally:
        consumer.close()
    assert cloud.faults("kafka").struck(fault) == 1
    assert kafka.classify(caught.value) is Fault.CONFIGURATION


def test_ping_counts_brokers_and_an_unreachable_one_is_transient(settings: Settings) -> None:
    assert kafka.ping(settings) == 1
    nobody = settings.model_copy(update={"kafka_bootstrap_servers": f"127.0.0.1:{free_port()}"})
    with pytest.raises(KafkaException) as caught:
        kafka.ping(nobody, timeout_s=0.5)
    assert kafka.classify(caught.value) is Fault.TRANSIENT


@pytest.mark.unit
def test_without_servers_the_message_names_the_variable() -> None:
    with pytest.raises(ConfigurationError, match="KAFKA_BOOTSTRAP_SERVERS"):
        kafka.producer(Settings())


@pytest.mark.unit
def test_security_settings_reach_every_client() -> None:
    secure = Settings(
        kafka_bootstrap_servers="broker:9096",
        kafka_security_protocol="SASL_SSL",
        kafka_sasl_mechanism="SCRAM-SHA-512",
        kafka_username="platform",
        kafka_password="secret",
    )
    config = kafka.client_config(secure)
    assert {name: config[name] for name in config if name.startswith(("sasl", "security"))} == {
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": "platform",
        "sasl.password": "secret",
    }


@pytest.mark.unit
@pytest.mark.parametrize(
    ("code", "fault"),
    [
        (KafkaError._TRANSPORT, Fault.TRANSIENT),
        (KafkaError.NOT_LEADER_FOR_PARTITION, Fault.TRANSIENT),
        (KafkaError.NOT_COORDINATOR, Fault.TRANSIENT),
        (KafkaError.THROTTLING_QUOTA_EXCEEDED, Fault.THROTTLED),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, Fault.CONFIGURATION),
        (KafkaError.SASL_AUTHENTICATION_FAILED, Fault.CONFIGURATION),
        (KafkaError.UNKNOWN_TOPIC_OR_PART, Fault.CONFIGURATION),
        (KafkaError._MSG_TIMED_OUT, Fault.UNKNOWN),
        (KafkaError.MSG_SIZE_TOO_LARGE, Fault.PERMANENT),
    ],
)
def test_errors_have_the_class_a_caller_can_act_on(code: int, fault: Fault) -> None:
    assert kafka.classify(KafkaError(code)) is fault
    assert kafka.classify(KafkaException(KafkaError(code))) is fault


@pytest.mark.unit
def test_every_name_in_the_table_is_a_code_of_librdkafka() -> None:
    codes = {value for name, value in vars(KafkaError).items() if name.isupper() and isinstance(value, int)}
    assert set(kafka._BY_NAME) <= {KafkaError(code).name() for code in codes}


@pytest.mark.unit
def test_what_librdkafka_calls_retriable_is_transient_and_fatal_is_unknown() -> None:
    assert kafka.classify(KafkaError(KafkaError.INVALID_MSG, retriable=True)) is Fault.TRANSIENT
    assert kafka.classify(KafkaError(KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER, fatal=True)) is Fault.UNKNOWN
    assert kafka.classify(ValueError("no Kafka error")) is Fault.UNKNOWN


@pytest.mark.unit
def test_a_full_local_queue_asks_to_slow_down() -> None:
    producer = Producer(
        {"bootstrap.servers": f"127.0.0.1:{free_port()}", "queue.buffering.max.messages": 1, "log_level": 0}
    )
    producer.produce("t", b"1")
    with pytest.raises(BufferError) as caught:
        producer.produce("t", b"2")
    producer.purge()
    assert kafka.classify(caught.value) is Fault.THROTTLED
