"""Kafka: producers, consumers and admin clients of librdkafka, and the classifier of its errors.

Delivery is at least once: producers are idempotent within one session, consumers commit after the work is done.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from data_platform.errors import Fault
from data_platform.settings import Settings

if TYPE_CHECKING:
    from confluent_kafka import Consumer, KafkaError, Producer
    from confluent_kafka.admin import AdminClient

CLIENT_ID = "data-platform"
CONNECT_TIMEOUT_S = 10
REQUEST_TIMEOUT_S = 10
DELIVERY_TIMEOUT_S = 60.0  # rides over the restart of a broker; then the caller decides
LINGER_MS = 5
RECONNECT_MAX_MS = 2_000
LOG_LEVEL = 3  # syslog's "error": a closed idle connection is no news

Value = str | int | float | bool

# By librdkafka's name of the code; what is not here is transient when librdkafka calls it retriable, else permanent.
_BY_NAME: Mapping[str, Fault] = {
    **dict.fromkeys(("THROTTLING_QUOTA_EXCEEDED", "_QUEUE_FULL"), Fault.THROTTLED),
    # Not acknowledged in time: the record may be in the log all the same.
    **dict.fromkeys(("_MSG_TIMED_OUT", "_PURGE_INFLIGHT"), Fault.UNKNOWN),
    **dict.fromkeys(
        (
            *("_TRANSPORT", "_ALL_BROKERS_DOWN", "_TIMED_OUT", "_TIMED_OUT_QUEUE", "_WAIT_COORD", "NETWORK_EXCEPTION"),
            *("LEADER_NOT_AVAILABLE", "NOT_LEADER_FOR_PARTITION", "REQUEST_TIMED_OUT", "KAFKA_STORAGE_ERROR"),
            *("COORDINATOR_LOAD_IN_PROGRESS", "COORDINATOR_NOT_AVAILABLE", "NOT_COORDINATOR"),
            *("NOT_ENOUGH_REPLICAS", "NOT_ENOUGH_REPLICAS_AFTER_APPEND", "REBALANCE_IN_PROGRESS"),
        ),
        Fault.TRANSIENT,
    ),
    # Credentials, grants, names and limits that a person has to change.
    **dict.fromkeys(
        (
            *("_AUTHENTICATION", "_SSL", "_RESOLVE", "_INVALID_ARG", "_UNSUPPORTED_FEATURE", "UNSUPPORTED_VERSION"),
            *("SASL_AUTHENTICATION_FAILED", "UNSUPPORTED_SASL_MECHANISM", "TOPIC_AUTHORIZATION_FAILED"),
            *("GROUP_AUTHORIZATION_FAILED", "CLUSTER_AUTHORIZATION_FAILED", "POLICY_VIOLATION"),
            *("_UNKNOWN_TOPIC", "UNKNOWN_TOPIC_OR_PART", "INVALID_CONFIG", "INVALID_PARTITIONS"),
            "INVALID_REPLICATION_FACTOR",
        ),
        Fault.CONFIGURATION,
    ),
}


def client_config(settings: Settings) -> dict[str, Value]:
    """What every client needs: servers, security, time-outs. Raises ConfigurationError when no server is set."""
    settings.require("kafka_bootstrap_servers")
    password = settings.kafka_password
    config: dict[str, Value | None] = {
        "bootstrap.servers": settings.kafka_bootstrap_servers,
        "security.protocol": settings.kafka_security_protocol,
        "sasl.mechanism": settings.kafka_sasl_mechanism,
        "sasl.username": settings.kafka_username,
        "sasl.password": None if password is None else password.get_secret_value(),
        "client.id": CLIENT_ID,
        "socket.connection.setup.timeout.ms": CONNECT_TIMEOUT_S * 1000,
        "reconnect.backoff.max.ms": RECONNECT_MAX_MS,
        "log.connection.close": False,
        "log_level": LOG_LEVEL,
    }
    return {name: value for name, value in config.items() if value is not None}


def producer(settings: Settings, *, delivery_timeout_s: float = DELIVERY_TIMEOUT_S) -> "Producer":
    """An idempotent producer that waits for all in-sync copies; the delivery callback has come after the time-out.

    `delivery_timeout_s` must be more than the 10 s of one request. Raises ConfigurationError when no server is set.
    """
    from confluent_kafka import Producer

    return Producer(
        client_config(settings)
        | {
            "enable.idempotence": True,
            "acks": "all",
            "delivery.timeout.ms": int(delivery_timeout_s * 1000),
            "request.timeout.ms": REQUEST_TIMEOUT_S * 1000,
            "linger.ms": LINGER_MS,
        }
    )


def consumer(settings: Settings, group: str, *topics: str) -> "Consumer":
    """A member of consumer group `group`, subscribed to `topics`: from the earliest record, commits are the caller's.

    Close it, so that the group need not wait for its session to time out.
    """
    from confluent_kafka import Consumer

    member = Consumer(
        client_config(settings)
        | {
            "group.id": group,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            # A joining member takes single partitions; the others go on working meanwhile.
            "partition.assignment.strategy": "cooperative-sticky",
        }
    )
    if topics:
        member.subscribe(list(topics))
    return member


def admin(settings: Settings) -> "AdminClient":
    """An admin client: topics, groups, offsets."""
    from confluent_kafka.admin import AdminClient

    return AdminClient(client_config(settings))


def ping(settings: Settings, *, timeout_s: float = 5.0) -> int:
    """How many brokers the cluster has. Raises KafkaException (see `classify`) when none answers in time."""
    return len(admin(settings).list_topics(timeout=timeout_s).brokers)


def lag(settings: Settings, group: str, topic: str, *, timeout_s: float = REQUEST_TIMEOUT_S) -> int:
    """Records of `topic` that `group` has not committed yet, over all partitions.

    Raises KafkaException when the cluster does not answer or does not know the topic.
    """
    from confluent_kafka import KafkaException, TopicPartition

    member = consumer(settings, group)
    try:
        found = member.list_topics(topic, timeout=timeout_s).topics[topic]
        if found.error is not None:
            raise KafkaException(found.error)
        partitions = [TopicPartition(topic, number) for number in found.partitions]
        behind = 0
        for committed in member.committed(partitions, timeout=timeout_s):
            low, high = member.get_watermark_offsets(committed, timeout=timeout_s)
            # A group that never committed, or whose position was deleted, begins at the earliest record.
            behind += high - max(low, committed.offset)
        return behind
    finally:
        member.close()


def classify(error: "BaseException | KafkaError") -> Fault:
    """What may be done about a KafkaError (a delivery report's or a record's), or the exception around one."""
    from confluent_kafka import KafkaError, KafkaException

    if isinstance(error, BufferError):
        return Fault.THROTTLED  # the local queue is full: poll, then produce again
    cause = error.args[0] if isinstance(error, KafkaException) and error.args else error
    if not isinstance(cause, KafkaError):
        return Fault.UNKNOWN
    if cause.fatal():
        return Fault.UNKNOWN  # the producer lost its sequence: what was in flight may be in the log
    default = Fault.TRANSIENT if cause.retriable() else Fault.PERMANENT
    return _BY_NAME.get(cause.name(), default)
