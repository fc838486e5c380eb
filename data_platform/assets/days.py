"""The days of a run, a few at a time: while one waits for the warehouse another is sorted or loaded.

What belongs here: the order of work. What a layer does is stages.py's, what Dagster is told datasets.py's.
"""

import threading
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

from data_platform.assets.keys import Stage

# A layer of a day takes a session of Redshift, up to 460 MB while rows are sorted, or a query of ClickHouse: two of a
# kind at once. Four days under way keep all three layers busy.
DAYS_AT_ONCE = 4
LAYERS_AT_ONCE = 2
# What happened is told in portions: each is a transaction, and half a second of it is all that a killed run forgets.
TOLD_EVERY_S = 0.5


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
) -> Generator[list[Told[Event] | DayDone]]:
    """Take each day through `stages` in order by `work(stage, day, emit)`; yields here what is emitted there, in
    portions of TOLD_EVERY_S seconds.

    A day that fails ends alone. When the caller stops, layers that are running are finished and no more are begun.
    """
    done: SimpleQueue[Told[Event] | DayDone | BaseException] = SimpleQueue()
    stopped = threading.Event()
    reached = dict.fromkeys(days, stages[0])
    room = {stage: threading.Semaphore(LAYERS_AT_ONCE) for stage in stages}

    def run_day(day: str) -> None:
        for stage in stages:
            with room[stage]:
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
                portion = _portion(done, left)
                left -= sum(isinstance(step, DayDone) for step in portion)
                yield [step for step in portion if not isinstance(step, BaseException)]
                for step in portion:
                    if isinstance(step, BaseException):
                        raise step
        finally:
            stopped.set()
            pool.shutdown(cancel_futures=True)


def _portion(
    done: "SimpleQueue[Told[Event] | DayDone | BaseException]", left: int
) -> list[Told[Event] | DayDone | BaseException]:
    """What comes within TOLD_EVERY_S of the first step, or until the last of `left` days ends, or one does by a bug."""
    steps = [done.get()]
    deadline = time.monotonic() + TOLD_EVERY_S
    while not isinstance(steps[-1], BaseException) and sum(isinstance(step, DayDone) for step in steps) < left:
        try:
            steps.append(done.get(timeout=max(0.0, deadline - time.monotonic())))
        except Empty:
            break
    return steps
