"""Kafka topics of the catalogue and of the unload notices. Existing topics are left as they are."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from data_platform.catalog import Catalog
from data_platform.catalog.models import Topic
from data_platform.clients import kafka
from data_platform.errors import PlatformError
from data_platform.provisioning.report import Recorder
from data_platform.settings import Settings

if TYPE_CHECKING:
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient

TIMEOUT_S = 10.0
DAY_MS = 24 * 3600 * 1000


def wanted_topics(settings: Settings, catalog: Catalog) -> Mapping[str, Topic]:
    """Topics by name. A notice topic of the settings that is not in the catalogue comes with its dead-letter topic."""
    topics = dict(catalog.topics)
    for name in (settings.kafka_unload_topic, f"{settings.kafka_unload_topic}.dlq"):
        topics.setdefault(name, Topic(name=name))
    return topics


def provision_topics(settings: Settings, catalog: Catalog, recorder: Recorder) -> None:
    """Make the topics that are missing. Raises PlatformError naming the topic and the broker's reason."""
    from confluent_kafka import KafkaException

    admin = kafka.admin(settings)
    try:
        existing = admin.list_topics(timeout=TIMEOUT_S).topics
    except KafkaException as error:
        raise _failed("topics cannot be listed", settings, error) from None
    for name, topic in wanted_topics(settings, catalog).items():
        if name not in existing:
            recorder.change("topic", name, "create", lambda topic=topic: _create(admin, topic, settings))
        elif len(existing[name].partitions) != topic.partitions:
            # Adding partitions moves keys to other partitions and so breaks their order: a person decides.
            recorder.skip(f"topic {name}", f"has {len(existing[name].partitions)} partitions, not {topic.partitions}")


def _create(admin: "AdminClient", topic: Topic, settings: Settings) -> None:
    from confluent_kafka import KafkaError, KafkaException
    from confluent_kafka.cimpl import NewTopic

    replication = settings.kafka_replication
    request = NewTopic(
        topic.name,
        num_partitions=topic.partitions,
        replication_factor=replication,
        config={
            "retention.ms": str(topic.retention_days * DAY_MS),
            # With three copies one broker may be down while acks=all still means that two have it.
            "min.insync.replicas": str(max(1, replication - 1)),
        },
    )
    try:
        admin.create_topics([request], operation_timeout=TIMEOUT_S)[topic.name].result(TIMEOUT_S)
    except KafkaException as error:
        if error.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS:
            return  # another provisioning run made it in between
        raise _failed(f"topic {topic.name} cannot be made", settings, error) from None


def _failed(what: str, settings: Settings, error: "KafkaException") -> PlatformError:
    from confluent_kafka import KafkaError

    cause = error.args[0]
    hint = "check KAFKA_BOOTSTRAP_SERVERS, DATA_PLATFORM_KAFKA_SECURITY_PROTOCOL and the SASL user"
    if cause.code() in {KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED}:
        hint = "allow Create and Describe on the topic (or the cluster) to the SASL user"
    elif cause.code() == KafkaError.INVALID_REPLICATION_FACTOR:
        hint = "DATA_PLATFORM_KAFKA_REPLICATION is larger than the number of brokers"
    return PlatformError(
        f"Kafka {settings.kafka_bootstrap_servers}: {what}: {cause.str()}", hint=hint, fault=kafka.classify(error)
    )
