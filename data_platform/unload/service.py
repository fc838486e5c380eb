"""Everything that finishes requests, as threads of one process: workers, reconciler, outbox relay, listener, notices,
metrics.

The API process runs it; many processes may, on the same ledger.
"""

import logging
import threading
from typing import TYPE_CHECKING

from data_platform.clients import aws, kafka
from data_platform.settings import Settings
from data_platform.unload.events import RELAY_BATCH, relay
from data_platform.unload.listener import Listener
from data_platform.unload.manifest_events import ManifestEvents
from data_platform.unload.metrics import UnloadMetrics
from data_platform.unload.notices import Notices
from data_platform.unload.reconcile import Reconciler
from data_platform.unload.workers import Workers

if TYPE_CHECKING:
    from confluent_kafka import Producer
    from sqlalchemy import Engine

    from data_platform.ledger.unload_requests import UnloadRequest

log = logging.getLogger(__name__)

RELAY_EVERY_S = 0.5
RELAY_PAUSE_S = 5.0
DELIVERY_TIMEOUT_S = 15.0  # below the 30 s a round waits, so that a lost broker is told and not waited for


class UnloadService:
    """Start it, wake it when a request is accepted, stop it within the grace and a few seconds."""

    def __init__(self, settings: Settings, ledger: "Engine", *, workers: int = 2) -> None:
        self._settings = settings
        self._ledger = ledger
        s3 = aws.s3(settings)
        self._notices = Notices(settings)
        self._metrics = UnloadMetrics(settings, ledger)
        self.workers = Workers(settings, ledger, s3, count=workers, on_final=self._ended)
        self._reconciler = Reconciler(settings, ledger, s3, on_final=self._ended)
        self._manifests = ManifestEvents(settings, self._reconciler.told)
        self._ending = threading.Event()
        self._listening = threading.Event()
        self._listener: Listener | None = None
        self._relay: threading.Thread | None = None
        if settings.kafka_bootstrap_servers is not None:
            self._listener = Listener(settings, ledger, s3, on_ready=self._listening.set, on_final=self._ended)
            self._relay = threading.Thread(target=self._publish, name="unload-relay", daemon=True)
        else:
            log.warning("KAFKA_BOOTSTRAP_SERVERS is not set: notices wait in the outbox")

    def start(self) -> None:
        """Start all parts."""
        self._notices.start()
        self.workers.start()
        self._reconciler.start()
        self._manifests.start()
        self._metrics.start()
        if self._listener is not None and self._relay is not None:
            self._listener.start()
            self._relay.start()

    def wake(self) -> None:
        """A request was accepted."""
        self.workers.wake()

    def stop(self, grace_s: float = 6.0) -> None:
        """End all parts; queries that do not end within the grace are cancelled and their requests handed back."""
        self._ending.set()
        self._manifests.stop()
        self.workers.stop(grace_s)
        self._reconciler.stop()
        if self._listener is not None:
            self._listener.stop()
        if self._relay is not None:
            self._relay.join(3)
        self._metrics.stop()
        self._notices.stop()

    def _ended(self, request: "UnloadRequest") -> None:
        """A request came to its end in this process."""
        self._metrics.ended(request)
        self._notices.tell(request)

    def _publish(self) -> None:
        producer: Producer | None = None
        while not self._ending.is_set():
            try:
                producer = producer or kafka.producer(self._settings, delivery_timeout_s=DELIVERY_TIMEOUT_S)
                if relay(self._ledger, producer) < RELAY_BATCH:
                    self._ending.wait(RELAY_EVERY_S)
            except Exception as error:  # noqa: BLE001 - broker or database are away: what waits follows later
                log.warning("notices wait: %s", type(error).__name__)
                # A producer that lost its sequence never recovers; a new one may say things twice, with the same id.
                producer = None
                self._ending.wait(RELAY_PAUSE_S)
