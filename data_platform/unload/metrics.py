"""What the service tells CloudWatch: ends and durations of its own requests, ages in the ledger, the listener's lag.

Ends are counted by the process that wrote them, so that sums over processes are right; ages and the lag are everybody's
and every process tells them: their alarms take the maximum. Metrics never stop a request.
"""

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from data_platform.clients import aws, kafka
from data_platform.clients.classify import classify
from data_platform.errors import Fault
from data_platform.settings import Settings

if TYPE_CHECKING:
    from mypy_boto3_cloudwatch import CloudWatchClient
    from sqlalchemy import Engine

    from data_platform.ledger.unload_gauges import UnloadGauges
    from data_platform.ledger.unload_requests import UnloadRequest

log = logging.getLogger(__name__)

NAMESPACE = "DataPlatform/Unload"  # dimension Environment
EVERY_S = 60.0


@dataclass
class Window:
    """What has ended since the last time it was sent: by state, and the durations of what is DONE, in seconds."""

    ended: dict[str, int] = field(default_factory=lambda: {"DONE": 0, "FAILED": 0, "CANCELLED": 0})
    durations: list[float] = field(default_factory=list[float])

    def followed_by(self, later: "Window") -> "Window":
        """Both as one."""
        states = self.ended.keys() | later.ended.keys()
        ended = {state: self.ended.get(state, 0) + later.ended.get(state, 0) for state in states}
        return Window(ended, [*self.durations, *later.durations])


class UnloadMetrics:
    """A thread that tells CloudWatch once a minute; without a region nobody is told."""

    def __init__(self, settings: Settings, ledger: "Engine") -> None:
        self._settings = settings
        self._ledger = ledger
        self._cloudwatch: CloudWatchClient | None = None
        self._window = Window()
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="unload-metrics", daemon=True)

    def start(self) -> None:
        """Begin."""
        if self._settings.aws_region is not None:
            self._thread.start()

    def stop(self) -> None:
        """Tell no more."""
        self._ending.set()
        if self._thread.is_alive():
            self._thread.join(3)

    def ended(self, request: "UnloadRequest") -> None:
        """A request came to its end in this process."""
        with self._lock:
            self._window.ended[request.status.value] = self._window.ended.get(request.status.value, 0) + 1
            if request.status.value == "DONE" and request.completed_at is not None:
                begun = request.started_at or request.created_at
                self._window.durations.append((request.completed_at - begun).total_seconds())

    def push(self) -> int:
        """Send what happened since the last push; returns the data points.

        Raises what ledger and AWS raise; what was not sent is in the next push.
        """
        from data_platform.ledger.unload_gauges import gauges

        with self._ledger.connect() as connection:
            ages = gauges(connection, self._settings.kafka_unload_topic)
        lag = self._lag()
        with self._lock:
            window, self._window = self._window, Window()
        data: Any = cloudwatch_data(self._settings.env, window, ages, lag)
        try:
            self._client().put_metric_data(Namespace=NAMESPACE, MetricData=data)
        except Exception:
            with self._lock:
                self._window = window.followed_by(self._window)
            raise
        return len(data)

    def _client(self) -> "CloudWatchClient":
        """One for all pushes: each new one reads its service's model again, some megabytes."""
        if self._cloudwatch is None:
            self._cloudwatch = aws.cloudwatch(self._settings)
        return self._cloudwatch

    def _lag(self) -> int | None:
        if self._settings.kafka_bootstrap_servers is None:
            return None
        from confluent_kafka import KafkaException

        try:
            return kafka.lag(self._settings, self._settings.unload_listener_group, self._settings.kafka_unload_topic)
        except KafkaException as error:
            log.info("the lag of the listener cannot be read: %s", error)
            return None

    def _run(self) -> None:
        self._client()
        while not self._ending.wait(EVERY_S):
            try:
                self.push()
            except Exception as error:
                # A bug is told with its traceback; the thread goes on, for without data the alarms stay silent.
                bug = error if classify(error) is Fault.UNKNOWN else None
                log.warning("metrics were not sent to CloudWatch: %s", type(error).__name__, exc_info=bug)


def cloudwatch_data(env: str, window: Window, ages: "UnloadGauges", lag: int | None) -> list[dict[str, object]]:
    """The metrics as PutMetricData takes them."""
    data = [
        _point(env, f"{status.title()}Requests", "Count", Value=float(count)) for status, count in window.ended.items()
    ]
    if window.durations:
        data.append(_point(env, "UnloadDuration", "Seconds", StatisticValues=_statistics(window.durations)))
    data += [
        _point(env, "OldestRunning", "Seconds", Value=ages.oldest_running_s),
        _point(env, "OldestPending", "Seconds", Value=ages.oldest_pending_s),
        _point(env, "OutboxAge", "Seconds", Value=ages.outbox_age_s),
    ]
    if lag is not None:
        data.append(_point(env, "ListenerLag", "Count", Value=float(lag)))
    return data


def _point(env: str, name: str, unit: str, **value: object) -> dict[str, object]:
    return {"MetricName": name, "Dimensions": [{"Name": "Environment", "Value": env}], "Unit": unit, **value}


def _statistics(values: Sequence[float]) -> dict[str, float]:
    return {
        "SampleCount": float(len(values)),
        "Sum": sum(values),
        "Minimum": min(values),
        "Maximum": max(values),
    }
