"""The loader agent: receivers, workers that load groups, and what keeps both honest.

Belongs here: the threads and what they hand to each other. Does not: what a message is (receiving.py), what a group's
events become (work.py), how they get into ClickHouse (loader.py).
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence

from data_platform.catalog import Catalog
from data_platform.clients import aws
from data_platform.errors import Fault, PlatformError
from data_platform.loading.backlog import Backlog, Group
from data_platform.loading.breaker import Breaker
from data_platform.loading.domains import DomainState, read_domains
from data_platform.loading.errors import System, is_mistake
from data_platform.loading.examine import clickhouse_up, s3_up
from data_platform.loading.lock import LINGER_S, worker_name
from data_platform.loading.metrics import Metrics
from data_platform.loading.parking import Parking
from data_platform.loading.publish import MetricsServer, push
from data_platform.loading.queues import DomainQueue
from data_platform.loading.receiving import DEEP_QUEUE, IDLE_S, Receiver
from data_platform.loading.running import running
from data_platform.loading.selftest import check_deduplication
from data_platform.loading.statement import query_prefix
from data_platform.loading.tally import Loaded, Tally
from data_platform.loading.warehouse import Warehouse, open_warehouse
from data_platform.loading.work import Work
from data_platform.settings import Settings

__all__ = ["Agent", "Loaded", "Tally", "Warehouse", "open_warehouse"]

log = logging.getLogger(__name__)

DRAIN_POLL_S = 2  # `--until-empty` asks twice, this far apart
HOUSEKEEPING_S = 5.0
PUSH_S = 60.0
FEWEST_WORKERS, MOST_WORKERS = 5, 20
LONGEST_HOLD_S = 1800.0
UNSEEN_BEATS = 2  # beats without the query in the process list before its messages are let go


class Agent:
    """Loads what the queues of `domains` announce until it is stopped.

    `workers` is the most loads at once; at first there are five, if it allows as many. `on_loaded` is told of every
    finished object, from worker threads; what it raises is logged and stops nothing. `metrics_port`: None serves none.
    """

    def __init__(
        self,
        settings: Settings,
        catalog: Catalog,
        domains: Sequence[str],
        *,
        workers: int = MOST_WORKERS,
        on_loaded: Callable[[Loaded], None] | None = None,
        metrics_port: int | None = None,
    ) -> None:
        self._settings = settings
        self._domains = list(domains)
        self._most = workers
        self._wanted = min(workers, FEWEST_WORKERS)
        self._name = worker_name()
        self._stop = threading.Event()
        self._finished = threading.Event()
        self._broken = threading.Event()
        self._port = metrics_port
        self._server: MetricsServer | None = None
        self._threads: list[threading.Thread] = []
        self._workers: list[threading.Thread] = []
        self._queues: dict[str, DomainQueue] = {}
        self._catalog = catalog
        self._on_loaded = on_loaded
        self._backlog = Backlog({name: catalog.domains[name].priority for name in self._domains})
        self._paused: set[str] = set()
        self.metrics = Metrics(self._domains)
        self.tally = Tally()

    def start(self) -> None:
        """Test the server, resolve the queues, start receiving.

        Raises ConfigurationError where ClickHouse ignores tokens, the clients' errors when something is not there.
        """
        self._warehouse = open_warehouse(self._settings, self._name, linger_s=LINGER_S)
        check_deduplication(self._warehouse.client, self._settings)
        sqs = aws.sqs(self._settings)
        for domain in self._domains:
            self._queues[domain] = DomainQueue.open(sqs, self._settings, domain)
        bucket = self._settings.curated_bucket
        self._breakers = {
            System.CLICKHOUSE: Breaker("ClickHouse", lambda: clickhouse_up(self._warehouse)),
            System.S3: Breaker("S3", lambda: s3_up(self._warehouse.s3, bucket, f"{self._domains[0]}/")),
        }
        self._parking = Parking(self._domains, self._name)
        self._work = Work(
            self._settings,
            self._catalog,
            self._warehouse,
            self._queues,
            self._breakers,
            self._parking,
            self.metrics,
            self.tally,
            self._stop,
            self._on_loaded,
        )
        self._receiver = Receiver(self._work, self._backlog, self._paused)
        if self._port is not None:
            self._server = MetricsServer(self.metrics, self._port)
        for domain in self._domains:
            self._spawn(f"receive-{domain}", self._receiver.run, domain)
        self._spawn("heartbeat", self._beat)
        self._spawn("housekeeping", self._keep_house)
        self._scale()

    def stop(self) -> None:
        """Receive no more, finish what is being loaded, give back what waits, return when all is done."""
        self._stop.set()
        for message in self._backlog.empty():
            self._work.hide(message.domain, [message.receipt], 0)
        for thread in self._workers:
            thread.join()
        self._finished.set()
        for thread in self._threads:
            thread.join()
        if self._server is not None:
            self._server.close()
        if self._queues:
            push(aws.cloudwatch(self._settings), self._settings, self.metrics)
            self._warehouse.close()

    def check(self) -> None:
        """Raise PlatformError when a part of the agent has ended by a bug; its traceback is in the log."""
        if self._broken.is_set():
            raise PlatformError(
                "a part of the loader ended by a mistake in its code; nothing is lost, its messages come back",
                hint="start it again; if it ends again, the traceback in its log is what the platform's team needs",
            )

    def until_empty(self, timeout_s: float) -> bool:
        """Wait until the queues are empty (waiting and in flight, anybody's) in two polls; False after the time-out."""
        deadline = time.monotonic() + timeout_s
        empty_polls = 0
        while time.monotonic() < deadline:
            self.check()
            empty_polls = empty_polls + 1 if self._nothing_left() else 0
            if empty_polls == 2:
                return True
            self._stop.wait(DRAIN_POLL_S)
        return False

    @property
    def metrics_port(self) -> int | None:
        """Where the metrics are served, None when they are not."""
        return None if self._server is None else self._server.port

    def _nothing_left(self) -> bool:
        try:
            depths = [queue.depth() for queue in self._queues.values()]
        except Exception as error:
            if not self._receiver.passes(error, "asking for the depth of the queues"):
                raise
            return False
        return all(depth.waiting + depth.in_flight == 0 for depth in depths)

    def _spawn(self, name: str, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=self._vital, args=(target, *arguments), name=name, daemon=True)
        thread.start()
        self._threads.append(thread)

    def _vital(self, target: Callable[..., None], *arguments: object) -> None:
        """Run what the agent cannot do without: an error in it is a bug, and the process had better be started anew."""
        try:
            target(*arguments)
        except Exception:
            log.exception("%s ended, the loader cannot go on", threading.current_thread().name)
            self._broken.set()

    # Working

    def _scale(self) -> None:
        self._workers = [thread for thread in self._workers if thread.is_alive()]
        while len(self._workers) < self._wanted and not self._stop.is_set():
            thread = threading.Thread(target=self._labour, name=f"load-{len(self._workers)}", daemon=True)
            thread.start()
            self._workers.append(thread)

    def _labour(self) -> None:
        while not self._stop.is_set():
            group = self._backlog.take(self._wanted, IDLE_S)
            if group is None:
                continue
            try:
                self._work.load(group)
            finally:
                self._backlog.done(group)

    # Keeping

    def _beat(self) -> None:
        """Keep messages in hand hidden, as long as they are held for a reason: in line, or their query really runs."""
        period = min(queue.visibility_s for queue in self._queues.values()) / 3
        while not self._finished.wait(period):
            kept = self._backlog.waiting_messages()
            for group in self._backlog.groups():
                if self._alive(group):
                    kept |= {item.message for item in group.items if item.message.open and not item.message.kept}
            oldest = time.monotonic() - LONGEST_HOLD_S
            for domain, queue in self._queues.items():
                receipts = [m.receipt for m in kept if m.domain == domain and m.received_at > oldest]
                self._work.hide(domain, receipts, queue.visibility_s)

    def _alive(self, group: Group) -> bool:
        """Whether the server works on the group's query; any other stage has time-outs of its own."""
        if group.stage != "insert":
            group.unseen_beats = 0
            return True
        try:
            seen = bool(running(self._warehouse.client, self._settings, query_prefix(group.partition)))
        except Exception as error:
            if is_mistake(error):
                raise
            seen = False  # ClickHouse away: nothing of ours runs there
        group.unseen_beats = 0 if seen else group.unseen_beats + 1
        return group.unseen_beats < UNSEEN_BEATS

    def _keep_house(self) -> None:
        """Depths, pauses, the number of workers, CloudWatch."""
        cloudwatch = aws.cloudwatch(self._settings)
        pushed = time.monotonic()
        while True:
            self._look_around()
            if time.monotonic() - pushed >= PUSH_S:
                push(cloudwatch, self._settings, self.metrics)
                pushed = time.monotonic()
            if self._finished.wait(HOUSEKEEPING_S):
                self._share_states()
                return

    def _share_states(self) -> None:
        """Learn which domains are paused, tell which are parked."""
        try:
            records = read_domains(self._warehouse.client)
            paused = {name for name, record in records.items() if record.state is DomainState.PAUSED}
            self._paused &= paused
            self._paused |= paused & set(self._domains)
            for domain in self._paused:
                self.metrics.state(domain, "paused")
            self._parking.publish(self._warehouse.client, records)
        except Exception as error:
            if is_mistake(error):
                raise
            log.info("the domains' states were not shared, in %.0f s again: %s", HOUSEKEEPING_S, error)

    def _look_around(self) -> None:
        self._share_states()
        deepest = 0
        for domain, queue in self._queues.items():
            try:
                depth = queue.depth()
            except Exception as error:
                if aws.classify(error) is Fault.UNKNOWN:
                    raise
                continue
            self._work.depths[domain] = depth.waiting
            self.metrics.depth(domain, depth)
            deepest = max(deepest, depth.waiting)
        extra = max(0, deepest - DEEP_QUEUE) // 10
        self._wanted = min(self._most, max(min(self._most, FEWEST_WORKERS), FEWEST_WORKERS + extra))
        self._scale()
