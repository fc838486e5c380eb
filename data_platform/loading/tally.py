"""What an agent has done so far: its counts, one finished object as it is reported, the clock of a group's stages."""

import time
from dataclasses import dataclass, field
from datetime import datetime

from data_platform.loading.backlog import Group
from data_platform.loading.message import ObjectEvent
from data_platform.loading.metrics import Metrics
from data_platform.loading.results import LoadResult


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


class StageClock:
    """Tells the group's stage to the heartbeat and its duration to the metrics."""

    def __init__(self, group: Group, metrics: Metrics) -> None:
        self._group = group
        self._metrics = metrics
        self._since = time.monotonic()

    def enter(self, stage: str) -> None:
        """The group is at `stage` now; empty: at none."""
        now = time.monotonic()
        if self._group.stage:
            self._metrics.stage(self._group.domain, self._group.stage, now - self._since)
        self._group.stage = stage
        self._since = now
