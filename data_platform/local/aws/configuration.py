"""Queues (without their messages), rules, secrets and alarms come back after a restart: in AWS they never leave.

One pickle per service, written when a call that is no data call changed it, before that call's answer is sent.
"""

import contextlib
import pickle
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication

from moto.athena.models import athena_backends
from moto.cloudwatch.models import cloudwatch_backends
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.events.models import events_backends
from moto.glue.models import glue_backends
from moto.secretsmanager.models import secretsmanager_backends
from moto.sqs.exceptions import SQSException
from moto.sqs.models import sqs_backends

from data_platform.local.aws.requests import Environ, facts_of
from data_platform.local.aws.store import StateStore

REGION = "us-east-1"
# Calls that leave the configuration as it is: those that read, and those that carry data.
READING = ("Get", "List", "Describe", "Head", "Receive", "Send", "DeleteMessage", "ChangeMessage", "Purge")
CARRYING = {"PutEvents", "PutMetricData"}
QUEUE_ATTRIBUTES = (
    *("DelaySeconds", "MaximumMessageSize", "MessageRetentionPeriod", "Policy", "ReceiveMessageWaitTimeSeconds"),
    *("VisibilityTimeout", "SqsManagedSseEnabled", "KmsMasterKeyId", "KmsDataKeyReusePeriodSeconds"),
    *("FifoQueue", "ContentBasedDeduplication", "DeduplicationScope", "FifoThroughputLimit"),
)


@dataclass(frozen=True)
class Section:
    """The configuration of one service as plain values, and the way back."""

    dump: Callable[[], Any]
    load: Callable[[Any], None]


def _dump_queues() -> list[dict[str, Any]]:
    queues: list[dict[str, Any]] = []
    for queue in sqs_backends[DEFAULT_ACCOUNT_ID][REGION].queues.values():
        known = queue.attributes
        attributes = {name: known[name] for name in QUEUE_ATTRIBUTES if known.get(name) is not None}
        queues.append(
            {
                "name": queue.name,
                "attributes": attributes,
                "redrive": known.get("RedrivePolicy"),
                "tags": dict(queue.tags),
                "created": queue.created_timestamp,
            }
        )
    return queues


def _load_queues(queues: list[dict[str, Any]]) -> None:
    backend = sqs_backends[DEFAULT_ACCOUNT_ID][REGION]
    for described in queues:
        queue = backend.create_queue(described["name"], described["tags"], **described["attributes"])
        queue.created_timestamp = described["created"]
    for described in queues:  # after all queues are there: a dead-letter queue may have been made last
        if described["redrive"]:
            # Its dead-letter queue may have been deleted since: as on AWS, the policy stays and leads nowhere.
            with contextlib.suppress(SQSException):
                backend.set_queue_attributes(described["name"], {"RedrivePolicy": described["redrive"]})


def _fields(backend: Callable[[], Any], *names: str) -> Section:
    """A section that is some fields of moto's backend."""

    def load(values: dict[str, Any]) -> None:
        for name, value in values.items():
            setattr(backend(), name, value)

    return Section(lambda: {name: getattr(backend(), name) for name in names}, load)


SECTIONS = {
    "sqs": Section(_dump_queues, _load_queues),
    "events": _fields(lambda: events_backends[DEFAULT_ACCOUNT_ID][REGION], "event_buses", "tagger"),
    "secretsmanager": _fields(lambda: secretsmanager_backends[DEFAULT_ACCOUNT_ID][REGION], "secrets"),
    "glue": _fields(lambda: glue_backends[DEFAULT_ACCOUNT_ID][REGION], "databases"),
    "athena": _fields(lambda: athena_backends[DEFAULT_ACCOUNT_ID][REGION], "work_groups", "data_catalogs"),
    "monitoring": _fields(lambda: cloudwatch_backends[DEFAULT_ACCOUNT_ID][REGION], "alarms", "dashboards", "tagger"),
}


class DurableConfiguration:
    """Middleware: calls that configure a service are stored before their answer is sent."""

    def __init__(self, application: WSGIApplication, store: StateStore) -> None:
        self._application = application
        self._store = store
        self._locks = {service: threading.Lock() for service in SECTIONS}

    def load(self) -> None:
        """Fill moto's services with what was stored."""
        for service, section in SECTIONS.items():
            state = self._store.document(service)
            if state is not None:
                section.load(pickle.loads(state))  # noqa: S301 - written by this engine into its own state folder

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Handle one request."""
        facts = facts_of(environ)
        section = SECTIONS.get(facts.service)
        if section is None or facts.action.startswith(READING) or facts.action in CARRYING:
            return self._application(environ, start_response)
        with self._locks[facts.service]:
            answer = self._application(environ, start_response)
            self._store.put_document(facts.service, pickle.dumps(section.dump()))
            return answer
