"""The loader agent: long polls of the domains' queues, loads, deletes; what failed for good goes to the dead letters.

One thread a domain receives and hands single objects to that domain's workers. Threads share the clients' pools.
"""

import json
import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from data_platform.catalog import Catalog
from data_platform.catalog.keys import dlq_name, queue_name
from data_platform.catalog.models import Dataset
from data_platform.clients import aws, clickhouse
from data_platform.errors import Fault
from data_platform.loading.errors import Code, LoadError
from data_platform.loading.loader import LoadResult, Outcome, load_object
from data_platform.loading.lock import worker_name
from data_platform.loading.message import ObjectEvent, parse_message
from data_platform.loading.warehouse import Warehouse, open_warehouse
from data_platform.settings import Settings

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

log = logging.getLogger(__name__)

LONG_POLL_S = 20
DRAIN_POLL_S = 2  # `--until-empty` asks twice, this far apart
DEFER_S = 3  # a file whose manifest is about to be put


@dataclass(frozen=True)
class Loaded:
    """One finished object, as it is reported."""

    event: ObjectEvent
    result: LoadResult
    finished_at: datetime

    @property
    def latency_s(self) -> float:
        """Seconds from the object's creation to its rows being visible."""
        return max(0.0, (self.finished_at - self.result.version.event_at).total_seconds())


@dataclass
class Tally:
    """What an agent has done so far."""

    objects: int = 0
    rows: int = 0
    outcomes: dict[str, int] = field(default_factory=dict[str, int])
    failed: int = 0
    dead_lettered: int = 0


class Agent:
    """Loads what the queues of `domains` announce until it is stopped.

    `on_loaded` is told of every finished object, from worker threads; what it raises is logged and stops nothing.
    """

    def __init__(
        self,
        settings: Settings,
        catalog: Catalog,
        domains: Sequence[str],
        *,
        workers: int = 2,
        on_loaded: Callable[[Loaded], None] | None = None,
    ) -> None:
        self._settings = settings
        self._catalog = catalog
        self._domains = list(domains)
        self._workers = workers
        self._on_loaded = on_loaded
        self._name = worker_name()
        self._stop = threading.Event()
        self._sqs: SQSClient = aws.sqs(settings)
        self._urls: dict[str, str] = {}
        self._threads: list[threading.Thread] = []
        self._local = threading.local()
        self._tally_lock = threading.Lock()
        self.tally = Tally()

    def start(self) -> None:
        """Resolve the queues and start receiving. Raises the client's error when a queue does not exist."""
        for domain in self._domains:
            for name in (queue_name(self._settings.env, domain), dlq_name(self._settings.env, domain)):
                self._urls[name] = self._sqs.get_queue_url(QueueName=name)["QueueUrl"]
        for domain in self._domains:
            thread = threading.Thread(target=self._receive, args=(domain,), name=f"load-{domain}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """Finish what is being loaded, receive no more, return when all is done."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def until_empty(self, timeout_s: float) -> bool:
        """Wait until the queues are empty (waiting and in flight, anybody's) in two polls; False after the time-out."""
        deadline = time.monotonic() + timeout_s
        empty_polls = 0
        while time.monotonic() < deadline:
            empty_polls = empty_polls + 1 if self._depth() == 0 else 0
            if empty_polls == 2:
                return True
            self._stop.wait(DRAIN_POLL_S)
        return False

    def _depth(self) -> int:
        names = ("ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible",
                 "ApproximateNumberOfMessagesDelayed")  # fmt: skip
        depth = 0
        for domain in self._domains:
            url = self._urls[queue_name(self._settings.env, domain)]
            attributes = self._sqs.get_queue_attributes(QueueUrl=url, AttributeNames=list(names))["Attributes"]
            depth += sum(int(attributes.get(name, 0)) for name in names)
        return depth

    def _receive(self, domain: str) -> None:
        url = self._urls[queue_name(self._settings.env, domain)]
        batch = self._catalog.domains[domain].batch.max
        with ThreadPoolExecutor(self._workers, thread_name_prefix=f"load-{domain}") as pool:
            while not self._stop.is_set():
                try:
                    answer = self._sqs.receive_message(
                        QueueUrl=url,
                        MaxNumberOfMessages=batch,
                        WaitTimeSeconds=1 if self._stop.is_set() else min(LONG_POLL_S, 5),
                        AttributeNames=["SentTimestamp", "ApproximateReceiveCount"],
                    )
                except Exception as error:
                    if aws.classify(error) not in {Fault.TRANSIENT, Fault.THROTTLED}:
                        log.exception("receiving from %s failed for good; the domain stops", url)
                        raise
                    log.warning("receiving from %s failed, trying again: %s", url, error)
                    self._stop.wait(DEFER_S)
                    continue
                messages = answer.get("Messages", [])
                # One receive is finished before the next: what is held is at most one batch a domain.
                list(pool.map(lambda message: self._handle(domain, url, message), messages))

    def _handle(self, domain: str, url: str, message: Any) -> None:
        """Load the objects of one message and delete it; what is wrong for good goes to the dead letters first."""
        receipt = message["ReceiptHandle"]
        sent_at = datetime.fromtimestamp(int(message["Attributes"]["SentTimestamp"]) / 1000, UTC)
        try:
            results = [self._load(event) for event in parse_message(message["Body"], sent_at=sent_at)]
        except LoadError as error:
            if error.fault is Fault.PERMANENT:
                self._dead_letter(domain, message, error)
                self._sqs.delete_message(QueueUrl=url, ReceiptHandle=receipt)
            else:
                self._count_failed()
                log.warning("%s: %s; the message comes back", error.code, error.message)
        except Exception as error:
            # Nothing is known of the message being wrong: it stays in the queue and comes back after its visibility.
            self._count_failed()
            fault = getattr(error, "fault", None) or clickhouse.classify(error)
            log.warning("a load failed (%s), the message comes back: %s", fault, error, exc_info=fault is Fault.UNKNOWN)
        else:
            if all(result.final for result in results):
                self._sqs.delete_message(QueueUrl=url, ReceiptHandle=receipt)
            else:
                self._sqs.change_message_visibility(QueueUrl=url, ReceiptHandle=receipt, VisibilityTimeout=DEFER_S)

    def _load(self, event: ObjectEvent) -> LoadResult:
        dataset = self._dataset(event)
        result = load_object(self._warehouse(), dataset, event)
        with self._tally_lock:
            self.tally.objects += result.final
            self.tally.rows += result.rows if result.outcome in {Outcome.LOADED, Outcome.REPLACED} else 0
            self.tally.outcomes[result.outcome.value] = self.tally.outcomes.get(result.outcome.value, 0) + 1
        log.info("%s: %s, %d rows in %.0f ms", event.key, result.outcome, result.rows, result.seconds * 1000)
        if self._on_loaded is not None and result.final:
            self._on_loaded(Loaded(event, result, datetime.now(UTC)))
        return result

    def _dataset(self, event: ObjectEvent) -> Dataset:
        dataset = self._catalog.datasets.get(event.key.dataset)
        if dataset is None:
            raise LoadError(Code.EVENT_SCHEMA, f"the catalogue has no dataset {event.key.dataset}")
        if event.version.bucket != self._settings.curated_bucket:
            raise LoadError(Code.EVENT_SCHEMA, f"bucket {event.version.bucket} is not {self._settings.curated_bucket}")
        return dataset

    def _warehouse(self) -> Warehouse:
        """One set of handles a thread: a ClickHouse client serves one query at a time."""
        warehouse = getattr(self._local, "warehouse", None)
        if warehouse is None:
            warehouse = self._local.warehouse = open_warehouse(self._settings, f"{self._name}-{threading.get_ident()}")
        return warehouse

    def _dead_letter(self, domain: str, message: Any, error: LoadError) -> None:
        """Keep the original message with what is known of it: code, reason, attempts, first and last time."""
        now = datetime.now(UTC)
        first = datetime.fromtimestamp(int(message["Attributes"]["SentTimestamp"]) / 1000, UTC)
        body = {
            "code": error.code.value,
            "reason": error.message,
            "attempts": 1,
            "first_at": first.isoformat(),
            "last_at": now.isoformat(),
            "message": message["Body"],
        }
        self._sqs.send_message(
            QueueUrl=self._urls[dlq_name(self._settings.env, domain)],
            MessageBody=json.dumps(body, ensure_ascii=False),
            MessageAttributes={"code": {"DataType": "String", "StringValue": error.code.value}},
        )
        with self._tally_lock:
            self.tally.dead_lettered += 1
        log.error("%s: %s; dead letter", error.code, error.message)

    def _count_failed(self) -> None:
        with self._tally_lock:
            self.tally.failed += 1
