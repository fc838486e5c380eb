"""The days of a run, a few at a time: while one waits for the warehouse another is sorted or loaded.

What belongs here: the order of work. What a layer does is stages.py's, what Dagster is told datasets.py's.
"""

import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Generic, TypeVar

from data_platform.assets.keys import Stage

# A day takes up to 460 MB while it is sorted, one session of Redshift and one query of ClickHouse. Two hide most of
# the waiting: 60 days of 900 rows took 17.5 s one by one and 11 s by twos, on 2 cores that the engines share.
DAYS_AT_ONCE = 2


Event = TypeVar("Event")
Emit = Callable[[Event], None]


@dataclass(frozen=True)
class Told(Generic[Event]):
    """Something a layer of a day has to tell, while the day goes on."""

    event: Event


@dataclass(frozen=True)
class DayDone:
    """A day has ended, in its layer `stage`, with the error that ended it, if any."""

    day: str
    stage: Stage
    error: Exception | None


def run_days(
    work: Callable[[Stage, str, Emit[Event]], None], stages: Sequence[Stage], days: Sequence[str], *, name: str
) -> Generator[Told[Event] | DayDone]:
    """Take each day through `stages` in order by `work(stage, day, emit)`; yields here what is emitted there.

    A day that fails ends alone. When the caller stops, layers that are running are finished and no more are begun.
    """
    done: SimpleQueue[Told[Event] | DayDone | BaseException] = SimpleQueue()
    stopped = threading.Event()
    reached = dict.fromkeys(days, stages[0])

    def run_day(day: str) -> None:
        for stage in stages:
            if stopped.is_set():
                return
            reached[day] = stage
            work(stage, day, lambda event: done.put(Told(event)))

    def ended(day: str, future: Future[None]) -> None:
        error = None if future.cancelled() else future.exception()
        done.put(DayDone(day, reached[day], error) if error is None or isinstance(error, Exception) else error)

    with ThreadPoolExecutor(DAYS_AT_ONCE, thread_name_prefix=name) as pool:
        try:
            for day in days:
                pool.submit(run_day, day).add_done_callback(lambda future, day=day: ended(day, future))
            left = len(days)
            while left:
                step = done.get()
                if isinstance(step, BaseException):
                    raise step
                left -= isinstance(step, DayDone)
                yield step
        finally:
            stopped.set()
            pool.shutdown(cancel_futures=True)
