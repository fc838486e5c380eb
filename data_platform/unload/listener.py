"""The listener of unload notices: keeps the ledger right when an unload is finished by somebody else.

The offset is committed after the ledger. What it has seen it ignores; what it cannot use goes to the dead-letter topic
and blocks nothing; what cannot be decided now (database, warehouse or S3 are away) is read again.
"""

import logging
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, cast

from data_platform.clients import kafka, redshift
from data_platform.clients.classify import classify
from data_platform.clients.retry import RETRIED
from data_platform.errors import Fault
from data_platform.settings import Settings
from data_platform.unload import outcome, warehouse
from data_platform.unload.execution import UnloadResult, bucket_prefix, prove_target, target_of
from data_platform.unload.manifest import ProofError
from data_platform.unload.message import Notice, PoisonError, parse_notice
from data_platform.unload.statement import UnloadOptions
from data_platform.unload.workers import process_name

if TYPE_CHECKING:
    from confluent_kafka import Consumer, Message, Producer
    from mypy_boto3_s3 import S3Client
    from sqlalchemy import Engine

    from data_platform.ledger.unload_requests import UnloadRequest

log = logging.getLogger(__name__)

POLL_S = 0.5
PAUSE_S = 2.0
LEASE = timedelta(seconds=60)
CONNECTOR = "unload-notifier"


class UnknownRequestError(PoisonError):
    """The ledger has no such request."""


class Listener:
    """One member of the consumer group, in a thread."""

    def __init__(
        self,
        settings: Settings,
        ledger: "Engine",
        s3: "S3Client",
        *,
        on_ready: Callable[[], None],
        on_final: "Callable[[UnloadRequest], None] | None" = None,
    ) -> None:
        self.owner = f"listener/{process_name()}"
        self._settings = settings
        self._ledger = ledger
        self._s3 = s3
        self._on_ready = on_ready
        self._on_final = on_final
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="unload-listen", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End after the message at hand."""
        self._ending.set()
        if self._thread.is_alive():
            self._thread.join(10)

    def handle(self, value: bytes | None) -> str:
        """What it means for the ledger: `seen`, `done`, `failed`, `cancelled`.

        Raises PoisonError, or what the engines raise.
        """
        notice = parse_notice(value)
        from data_platform.ledger import outbox, unload_requests
        from data_platform.ledger.unload_requests import FINAL

        with self._ledger.connect() as connection:
            if notice.event_id is not None and outbox.exists(connection, notice.event_id):
                return "seen"  # written by this platform, with the change it tells of
            request = unload_requests.get(connection, notice.request_id)
        if request is None:
            raise UnknownRequestError(f"there is no request {notice.request_id}")
        if request.status in FINAL:
            return "seen"
        return self._apply(notice)

    def _apply(self, notice: Notice) -> str:
        """Another system has finished a request that waits here. One that a worker runs ends by that worker."""
        from data_platform.ledger import unload_claims

        with self._ledger.begin() as connection:
            claim = unload_claims.claim(
                connection,
                self.owner,
                LEASE,
                bucket_prefix(self._settings),
                request_id=notice.request_id,
                external=True,
            )
        if claim is None:
            return "seen"
        if notice.status == "CANCELLED":
            self._final(outcome.cancelled(self._settings, self._ledger, claim))
            return "cancelled"
        if notice.status != "DONE":
            failure = outcome.Failure("REPORTED", f"reported as {notice.status} by another system", passing=False)
            self._final(outcome.failed(self._settings, self._ledger, claim, failure))
            return "failed"
        try:
            result = self._proven(claim.request_id, claim.attempt, dict(claim.request.options))
        except ProofError as error:
            # It stays to be done here: a claim without proof changes nothing.
            outcome.handed_back(self._ledger, claim)
            raise PoisonError(f"reported as DONE without proof: {error.message}") from None
        except Exception:
            outcome.handed_back(self._ledger, claim)
            raise
        self._final(outcome.done(self._settings, self._ledger, claim, result))
        return "done"

    def _final(self, request: "UnloadRequest | None") -> None:
        if request is not None and self._on_final is not None:
            self._on_final(request)

    def _proven(self, request_id: str, attempt: int, options: dict[str, object]) -> UnloadResult:
        """The newest result under the request's prefix, proven by the warehouse's own count."""
        header = UnloadOptions.model_validate(options).header
        with redshift.connect(self._settings) as session:
            for number in range(attempt, -1, -1):
                target = target_of(self._settings, request_id, number)
                statement = warehouse.statement_of(session, target.url)
                if statement is not None and statement.completed:
                    rows = statement.rows or 0
                    files = prove_target(self._s3, target, count=rows, header=header)
                    size = sum(file.bytes for file in files)
                    return UnloadResult(target, files, rows, size, 0.0, statement.query_id)
        raise ProofError(f"the warehouse knows of no finished unload of {request_id}")

    # -- the loop -----------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        topic = self._settings.kafka_unload_topic
        consumer = kafka.consumer(self._settings, self._settings.unload_listener_group, topic)
        dead_letters = kafka.producer(self._settings)
        self._on_ready()
        try:
            while not self._ending.is_set():
                message = consumer.poll(POLL_S)
                if message is None:
                    continue
                if message.error() is not None:
                    log.info("the topic cannot be read now: %s", message.error())
                    self._ending.wait(POLL_S)
                    continue
                self._one(consumer, dead_letters, message)
        finally:
            consumer.close()

    def _one(self, consumer: "Consumer", dead_letters: "Producer", message: "Message") -> None:
        """Handle one message until it is decided, then commit its offset."""
        from confluent_kafka import KafkaException

        while not self._ending.is_set():
            try:
                self._decide(dead_letters, message)
                consumer.commit(message=message, asynchronous=False)
            except KafkaException as error:
                log.warning("a notice is handled again: %s", error)
                return  # the group has moved on: whoever has the partition now reads it again
            except Exception as error:  # noqa: BLE001 - engines that are away come back; the partition waits for them
                log.warning("a notice cannot be decided now: %s", type(error).__name__)
                self._ending.wait(PAUSE_S)
                continue
            return

    def _decide(self, dead_letters: "Producer", message: "Message") -> None:
        value = message.value()
        raw = value.encode() if isinstance(value, str) else value
        try:
            self.handle(raw)
        except PoisonError as error:
            log.warning("notice %s of partition %s is a dead letter: %s", message.offset(), message.partition(), error)
            self._bury(dead_letters, message, error)
        except Exception as error:
            if classify(error) in RETRIED | {Fault.UNKNOWN, Fault.CONFIGURATION}:
                raise
            self._bury(dead_letters, message, error)

    def _bury(self, dead_letters: "Producer", message: "Message", error: Exception) -> None:
        """To the dead-letter topic, as it came, with the headers Kafka Connect gives; waits until the broker has it."""
        headers = dict(cast("list[tuple[str, bytes | None]]", message.headers() or []))
        headers |= error_headers(str(message.topic()), message.partition(), message.offset(), error)
        dead_letters.produce(
            f"{self._settings.kafka_unload_topic}.dlq",
            key=message.key(),
            value=message.value(),
            headers=list(headers.items()),
        )
        if dead_letters.flush(30):
            raise ConnectionError("the dead-letter topic took nothing")


def error_headers(topic: str, partition: int | None, offset: int | None, error: Exception) -> dict[str, bytes]:
    """Where a dead letter came from and why, in Kafka Connect's names."""
    kind = f"{type(error).__module__}.{type(error).__qualname__}"
    facts = {
        "topic": topic,
        "partition": partition,
        "offset": offset,
        "connector.name": CONNECTOR,
        "task.id": 0,
        "stage": "VALUE_CONVERTER" if type(error) is PoisonError else "TASK_PUT",
        "class.name": "data_platform.unload.listener.Listener",
        "exception.class.name": kind,
        "exception.message": str(error)[:500],
        "exception.stacktrace": f"{kind}: {str(error)[:500]}",
    }
    return {f"__connect.errors.{name}": str(value).encode() for name, value in facts.items()}
