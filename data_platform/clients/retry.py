"""The one retry helper (tenacity inside): which faults are tried again, how often, with which waits."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from data_platform.errors import Fault

T = TypeVar("T")
RETRIED = frozenset({Fault.TRANSIENT, Fault.THROTTLED})


def retrying(
    call: Callable[[], T],
    classify: Callable[[BaseException], Fault],
    *,
    attempts: int = 3,
    base_s: float = 0.5,
    cap_s: float = 20.0,
    waits: Sequence[float] | None = None,
    on_retry: Callable[[BaseException, int], None] | None = None,
) -> T:
    """Call until it succeeds, at most `attempts` times, only after faults worth it; the last error is raised as it is.

    Waits are exponential with full jitter between `base_s` and `cap_s` seconds, or exactly `waits`.
    `on_retry(error, attempt)` is told before each wait.
    """
    from tenacity import (
        RetryCallState,
        Retrying,
        retry_if_exception,
        stop_after_attempt,
        wait_random_exponential,
    )
    from tenacity.wait import wait_chain, wait_fixed

    def before_sleep(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome is not None else None
        if on_retry is not None and error is not None:
            on_retry(error, state.attempt_number)

    wait = (
        wait_chain(*(wait_fixed(seconds) for seconds in waits))
        if waits
        else wait_random_exponential(multiplier=base_s, max=cap_s)
    )
    return Retrying(
        retry=retry_if_exception(lambda error: classify(error) in RETRIED),
        stop=stop_after_attempt(attempts),
        wait=wait,
        before_sleep=before_sleep,
        reraise=True,
    )(call)
