"""OTLP logs -> curated events: decode JSON lines and protobuf, plain or gzip, in bounded memory; keep what is rejected.

What belongs here: bytes to Arrow batches. What does not: S3, days and partitions, the files that are written.
"""

from data_platform.curation.otlp.model import EventBatch, Reason, Reject, events_schema
from data_platform.curation.otlp.reader import read_events

__all__ = ["EventBatch", "Reason", "Reject", "events_schema", "read_events"]
