"""The engine itself: a mock cluster with the platform's topics, and the front before it."""

from data_platform.local.engine import EngineContext
from data_platform.local.kafka.front import DEFAULT_PARTITIONS, HOST, KafkaFront
from data_platform.local.kafka.mock import MockCluster
from data_platform.local.kafka.protocol import JOIN_GROUP_VERSIONS, Api

PLATFORM_TOPICS = (
    "user-events",
    "archive-events",
    "contest-events",
    "news-events",
    "conversation-events",
    "unload-complete",
    "unload-complete.dlq",
)


class KafkaEngine:
    """One broker in memory: what it acknowledged is gone when its process ends."""

    NAME = "kafka"
    PORTS: tuple[str, ...] = ("kafka",)
    FAULT_KINDS: tuple[str, ...] = (
        "kafka.error",
        "kafka.delay",
        "kafka.disconnect",
        "kafka.drop_response",
        "kafka.broker_down",
    )
    NEEDS: tuple[str, ...] = ()

    def __init__(self) -> None:
        self._mock: MockCluster | None = None
        self._front: KafkaFront | None = None

    def start(self, context: EngineContext) -> dict[str, str]:
        """Serve on `context.ports["kafka"]`; `context.options["topics"]` (name -> partitions) replaces the default."""
        port = context.ports["kafka"]
        self._mock = MockCluster()
        self._mock.advertise(HOST, port)
        self._mock.limit_versions(Api.JOIN_GROUP, *JOIN_GROUP_VERSIONS)
        topics: dict[str, int] = context.options.get("topics") or dict.fromkeys(PLATFORM_TOPICS, DEFAULT_PARTITIONS)
        for name, partitions in topics.items():
            self._mock.create_topic(name, partitions)
        self._front = KafkaFront(self._mock, context.faults, port)
        self._front.start()
        return {"KAFKA_BOOTSTRAP_SERVERS": f"{HOST}:{port}", "DATA_PLATFORM_KAFKA_REPLICATION": "1"}

    def stop(self) -> None:
        """Close the front and the broker."""
        if self._front is not None:
            self._front.stop()
        if self._mock is not None:
            self._mock.close()
