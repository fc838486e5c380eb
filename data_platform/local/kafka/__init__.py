"""The `kafka` engine of the embedded cloud: one broker, in memory, on one fixed port.

librdkafka's own mock cluster is the broker; the front before it keeps the port, creates topics and strikes with faults.
"""

from data_platform.local.kafka.server import KafkaEngine

ENGINE = KafkaEngine

__all__ = ["ENGINE", "KafkaEngine"]
