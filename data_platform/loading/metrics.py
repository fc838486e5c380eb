"""What an agent measures: counts, latencies and stage times by domain; as Prometheus text, as CloudWatch data.

Counting is here; sending and serving are publish.py's.
"""

import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 600.0)
PREFIX = "data_platform_load"


@dataclass
class Histogram:
    """Counts by upper bound in seconds, as Prometheus has them."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS_S) + 1))
    total: float = 0.0

    def observe(self, seconds: float) -> None:
        """Count one duration."""
        number = next((n for n, bound in enumerate(BUCKETS_S) if seconds <= bound), len(BUCKETS_S))
        self.counts[number] += 1
        self.total += seconds


@dataclass
class Window:
    """What happened in a domain since the last time it was sent to CloudWatch."""

    loaded: int = 0
    failed: int = 0
    latencies: list[float] = field(default_factory=list[float])


@dataclass(frozen=True)
class Depth:
    """Messages of a domain: waiting, in flight, dead letters."""

    waiting: int
    in_flight: int
    dead: int


class Metrics:
    """Counters of one agent; thread-safe."""

    def __init__(self, domains: list[str]) -> None:
        self._lock = threading.Lock()
        self._outcomes: dict[tuple[str, str], int] = defaultdict(int)
        self._failures: dict[tuple[str, str], int] = defaultdict(int)
        self._rows: dict[str, int] = defaultdict(int)
        self._bytes: dict[str, int] = defaultdict(int)
        self._latency: dict[str, Histogram] = {domain: Histogram() for domain in domains}
        self._stages: dict[tuple[str, str], Histogram] = defaultdict(Histogram)
        self._windows: dict[str, Window] = {domain: Window() for domain in domains}
        self._depths: dict[str, Depth] = {}
        self._states: dict[str, str] = dict.fromkeys(domains, "running")

    def finished(self, domain: str, outcome: str, *, rows: int, size: int, latency_s: float | None) -> None:
        """One event is done; `latency_s` from the object's creation to its rows, where it was loaded now."""
        with self._lock:
            self._outcomes[domain, outcome] += 1
            self._windows[domain].loaded += 1
            if latency_s is not None:
                self._rows[domain] += rows
                self._bytes[domain] += size
                self._latency[domain].observe(latency_s)
                self._windows[domain].latencies.append(latency_s)

    def failed(self, domain: str, code: str) -> None:
        """One attempt failed."""
        with self._lock:
            self._failures[domain, code] += 1
            self._windows[domain].failed += 1

    def stage(self, domain: str, name: str, seconds: float) -> None:
        """One stage of one group took so long."""
        with self._lock:
            self._stages[domain, name].observe(seconds)

    def depth(self, domain: str, depth: Depth) -> None:
        """What SQS said last."""
        with self._lock:
            self._depths[domain] = depth

    def state(self, domain: str, state: str) -> None:
        """Running, paused, parked, or waiting for an engine."""
        with self._lock:
            self._states[domain] = state

    def windows(self) -> dict[str, tuple[Window, Depth | None, str]]:
        """What happened since the last call, by domain, with the depth and the state of now."""
        with self._lock:
            taken = {
                domain: (window, self._depths.get(domain), self._states[domain])
                for domain, window in self._windows.items()
            }
            self._windows = {domain: Window() for domain in taken}
            return taken

    def status(self) -> dict[str, dict[str, object]]:
        """By domain, for a person."""
        with self._lock:
            return {
                domain: {
                    "state": state,
                    "waiting": self._depths[domain].waiting if domain in self._depths else None,
                    "in_flight": self._depths[domain].in_flight if domain in self._depths else None,
                    "dead_letters": self._depths[domain].dead if domain in self._depths else None,
                    "finished": sum(n for (name, _), n in self._outcomes.items() if name == domain),
                    "failed": sum(n for (name, _), n in self._failures.items() if name == domain),
                    "rows": self._rows[domain],
                    "mean_latency_s": _mean(self._latency[domain]),
                }
                for domain, state in self._states.items()
            }

    def prometheus(self) -> str:
        """The text format, version 0.0.4."""
        with self._lock:
            return "\n".join(self._lines()) + "\n"

    def _lines(self) -> Iterator[str]:
        yield f"# TYPE {PREFIX}_events_total counter"
        for (domain, outcome), count in sorted(self._outcomes.items()):
            yield f'{PREFIX}_events_total{{domain="{domain}",outcome="{outcome}"}} {count}'
        yield f"# TYPE {PREFIX}_failures_total counter"
        for (domain, code), count in sorted(self._failures.items()):
            yield f'{PREFIX}_failures_total{{domain="{domain}",code="{code}"}} {count}'
        for name, values in (("rows", self._rows), ("bytes", self._bytes)):
            yield f"# TYPE {PREFIX}_{name}_total counter"
            for domain, count in sorted(values.items()):
                yield f'{PREFIX}_{name}_total{{domain="{domain}"}} {count}'
        for name in ("waiting", "in_flight", "dead"):
            yield f"# TYPE {PREFIX}_queue_{name} gauge"
            for domain, depth in sorted(self._depths.items()):
                yield f'{PREFIX}_queue_{name}{{domain="{domain}"}} {getattr(depth, name)}'
        yield f"# TYPE {PREFIX}_running gauge"
        for domain, state in sorted(self._states.items()):
            yield f'{PREFIX}_running{{domain="{domain}"}} {int(state == "running")}'
        yield f"# TYPE {PREFIX}_processing_latency_seconds histogram"
        for domain, histogram in sorted(self._latency.items()):
            yield from _histogram_lines(f"{PREFIX}_processing_latency_seconds", f'domain="{domain}"', histogram)
        yield f"# TYPE {PREFIX}_stage_seconds histogram"
        for (domain, stage), histogram in sorted(self._stages.items()):
            yield from _histogram_lines(f"{PREFIX}_stage_seconds", f'domain="{domain}",stage="{stage}"', histogram)


def cloudwatch_data(env: str, windows: Mapping[str, tuple[Window, Depth | None, str]]) -> list[dict[str, object]]:
    """The five metrics as PutMetricData takes them. A parked domain counts as failing: nobody else would ring."""
    data: list[dict[str, object]] = []
    for domain, (window, depth, state) in windows.items():
        dimensions = [{"Name": "Environment", "Value": env}, {"Name": "Domain", "Value": domain}]

        def add(name: str, unit: str, dimensions: object = dimensions, **value: object) -> None:
            data.append({"MetricName": name, "Dimensions": dimensions, "Unit": unit, **value})

        if window.latencies:
            ordered = sorted(window.latencies)
            add(
                "ProcessingLatency",
                "Seconds",
                StatisticValues={
                    "SampleCount": len(ordered),
                    "Sum": sum(ordered),
                    "Minimum": ordered[0],
                    "Maximum": ordered[-1],
                },
            )
        ended = window.loaded + window.failed
        rate = 100.0 if state == "parked" else 100.0 * window.failed / ended if ended else None
        if rate is not None:
            add("ErrorRate", "Percent", Value=rate)
            add("SuccessRate", "Percent", Value=100.0 - rate)
        if depth is not None:
            add("QueueDepth", "Count", Value=depth.waiting)
            add("DLQCount", "Count", Value=depth.dead)
    return data


def _histogram_lines(name: str, labels: str, histogram: Histogram) -> Iterator[str]:
    running = 0
    for bound, count in zip((*map(str, BUCKETS_S), "+Inf"), histogram.counts, strict=True):
        running += count
        yield f'{name}_bucket{{{labels},le="{bound}"}} {running}'
    yield f"{name}_sum{{{labels}}} {histogram.total:.6f}"
    yield f"{name}_count{{{labels}}} {running}"


def _mean(histogram: Histogram) -> float | None:
    count = sum(histogram.counts)
    return round(histogram.total / count, 3) if count else None
