"""One line of a diagnosis, and the small decisions all checks share. Pure."""

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

PROVISION = "data-platform provision"
SKEW_WARNING_S = 30
SKEW_FAILED_S = 300  # S3 refuses signatures that are older than 15 minutes; leases and tokens break long before


class Status(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True)
class Finding:
    """What was looked at, what was found, and what to do about it."""

    subject: str
    status: Status
    detail: str
    hint: str | None = None


def ok(subject: str, detail: str) -> Finding:
    """Nothing to do."""
    return Finding(subject, Status.OK, detail)


def warning(subject: str, detail: str, hint: str | None = None) -> Finding:
    """It works, but somebody should look at it."""
    return Finding(subject, Status.WARNING, detail, hint)


def failed(subject: str, detail: str, hint: str | None = None) -> Finding:
    """Something will not work."""
    return Finding(subject, Status.FAILED, detail, hint)


def version_finding(subject: str, found: str, least: tuple[int, ...]) -> Finding:
    """Whether a version like `24.8.1.2` or `16.3 (Debian)` is at least `least`."""
    digits = found.split(maxsplit=1)[0].split(".")
    numbers = tuple(int(part) for part in digits[: len(least)] if part.isdigit())
    wanted = ".".join(map(str, least))
    if not numbers:
        return warning(subject, f"version {found!r} cannot be read; at least {wanted} is needed")
    if numbers < least:
        return failed(subject, f"version {found} is older than {wanted}", f"upgrade the server to {wanted} or newer")
    return ok(subject, f"version {found}")


def skew_finding(subject: str, theirs: datetime, ours: datetime | None = None) -> Finding:
    """How far the clock of `subject` is from this machine's."""
    seconds = abs((theirs - (ours or datetime.now(UTC))).total_seconds())
    detail = f"clock differs by {seconds:.0f} s from this machine's"
    if seconds > SKEW_FAILED_S:
        return failed(subject, detail, "let both machines take their time from NTP")
    if seconds > SKEW_WARNING_S:
        return warning(subject, detail, "let both machines take their time from NTP")
    return ok(subject, detail)
