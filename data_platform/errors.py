"""The failure taxonomy every package shares. Classifiers of one engine's errors live beside its client.

A failure is typed so that three different retry mechanisms (ours, Dagster's op retries, the run-retries daemon) agree:
only what is transient or throttled is ever tried again; an unknown outcome is looked at before anything is repeated.
"""

from enum import StrEnum

# Whom a mistake of ours is reported to: nobody else is named for the platform as a whole.
PLATFORM_TEAM = "the team that runs the platform (it is * in DATA_PLATFORM_ALERT_ROUTES)"
# What a step ends with where its reader's means end; who is that team reads something else (alerts/message.py).
TELL_THE_TEAM = f"give the run's link to {PLATFORM_TEAM}"
RUN_AGAIN = "Run it again, which is safe"  # a message puts the command behind it


class Fault(StrEnum):
    """What a caller may do about a failure."""

    TRANSIENT = "transient"  # the same call may succeed: retry where it happened, with back-off
    THROTTLED = "throttled"  # the other side asked us to slow down: wait, then retry
    PERMANENT = "permanent"  # the same call fails again: stop every retry mechanism
    CONFIGURATION = "configuration"  # a person must change a setting, a grant or a table: park, burn nothing
    UNKNOWN = "unknown"  # it may have happened: look before acting


class PlatformError(Exception):
    """A failure with a reason a person can act on; the command line prints it without a traceback.

    `hint` says what to do next; `fault` says what a machine may do.
    """

    fault: Fault = Fault.PERMANENT

    def __init__(self, message: str, *, hint: str | None = None, fault: Fault | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        if fault is not None:
            self.fault = fault

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}\n  -> {self.hint}"


class ConfigurationError(PlatformError):
    """A setting, a grant or a table is missing or wrong; nothing was tried."""

    fault = Fault.CONFIGURATION


class TransientError(PlatformError):
    """A connection, time-out or server-side hiccup; the same call may succeed."""

    fault = Fault.TRANSIENT


class ThrottledError(PlatformError):
    """The other side asked for fewer calls."""

    fault = Fault.THROTTLED


class UnknownOutcomeError(PlatformError):
    """The call may have taken effect; the store has to be read before it is repeated."""

    fault = Fault.UNKNOWN
