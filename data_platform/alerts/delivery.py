"""Sending one alert over its owner's channels: Slack's incoming webhooks, e-mail through SES. Fails harmlessly.

A webhook takes about one message a second and is shut off by Slack when it gets many more, so each has a window of a
minute that all processes of this machine share (locked files below DATA_PLATFORM_HOME, where what was sent is kept).
"""

import fcntl
import hashlib
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum

from data_platform.alerts.message import Alert
from data_platform.alerts.routes import Route
from data_platform.clients import aws
from data_platform.settings import Settings

TIMEOUT_S = 5.0
WINDOW_S = 60.0
TOLD_S = 86_400.0
SLACK_LENGTH = 3_000  # a section of text holds no more


class Delivered(StrEnum):
    """What became of an alert on one channel."""

    SENT = "sent"
    HELD = "held"  # the channel's window is full: again later
    FAILED = "failed"


@dataclass(frozen=True)
class Delivery:
    """The outcome on one channel, with the reason where it was not sent; never the webhook's address."""

    channel: str
    delivered: Delivered
    reason: str = ""


def deliver(settings: Settings, route: Route, alert: Alert, *, now: Callable[[], float] = time.time) -> list[Delivery]:
    """Send `alert` over every channel of `route` unless it was sent within a day (then: no outcomes).

    Never raises for what the other side does. Sent on one channel counts as sent.
    """
    outcomes: list[Delivery] = []
    if told_lately(settings, alert, now=now()):
        return outcomes
    if route.slack is not None:
        outcomes.append(_slack(settings, route.slack.get_secret_value(), alert, now))
    if route.email and settings.alert_sender is not None:
        outcomes.append(_email(settings, settings.alert_sender, route.email, alert))
    if any(each.delivered is Delivered.SENT for each in outcomes):
        remember(settings, alert, now=now())
    return outcomes


def _slack(settings: Settings, webhook: str, alert: Alert, now: Callable[[], float]) -> Delivery:
    if not take_slot(settings, webhook, now=now()):
        return Delivery("slack", Delivered.HELD, f"{settings.alert_per_minute} messages went there in the last minute")
    text = f"*{_escaped(alert.title)}*\n{_escaped(alert.body)}"[:SLACK_LENGTH]
    request = urllib.request.Request(  # noqa: S310 - the scheme is checked when the routes are read
        webhook, data=json.dumps({"text": text}).encode(), headers={"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S):  # noqa: S310
            return Delivery("slack", Delivered.SENT)
    except urllib.error.HTTPError as error:
        held = error.code == 429
        return Delivery("slack", Delivered.HELD if held else Delivered.FAILED, f"Slack answered {error.code}")
    except (OSError, ValueError) as error:
        return Delivery("slack", Delivered.FAILED, f"Slack was not reached: {type(error).__name__}")


def _email(settings: Settings, sender: str, receivers: tuple[str, ...], alert: Alert) -> Delivery:
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        aws.client(settings, "sesv2").send_email(
            FromEmailAddress=sender,
            Destination={"ToAddresses": list(receivers)},
            Content={
                "Simple": {
                    "Subject": {"Data": alert.title[:200], "Charset": "UTF-8"},
                    "Body": {"Text": {"Data": alert.body, "Charset": "UTF-8"}},
                }
            },
        )
    except (BotoCoreError, ClientError) as error:
        return Delivery("email", Delivered.FAILED, f"SES: {error}")
    return Delivery("email", Delivered.SENT)


def take_slot(settings: Settings, webhook: str, *, now: float) -> bool:
    """Whether one more message may go to `webhook` now (seconds since 1970); counts it when it may."""
    name = hashlib.sha256(webhook.encode()).hexdigest()[:16]
    with _kept(settings, name) as moments:
        for key in [key for key, moment in moments.items() if not now - WINDOW_S < moment <= now]:
            del moments[key]
        if len(moments) >= settings.alert_per_minute:
            return False
        moments[f"{now}#{len(moments)}"] = now
        return True


def told_lately(settings: Settings, alert: Alert, *, now: float) -> bool:
    """Whether this very message was sent within a day: by a tick that died before its cursor was kept, or hourly."""
    with _kept(settings, "told") as told:
        return now - told.get(alert.key, 0.0) < TOLD_S


def remember(settings: Settings, alert: Alert, *, now: float) -> None:
    """Keep that the alert was sent; what is older than a day is forgotten."""
    with _kept(settings, "told") as told:
        for key in [key for key, moment in told.items() if now - moment >= TOLD_S]:
            del told[key]
        told[alert.key] = now


@contextmanager
def _kept(settings: Settings, name: str) -> Generator[dict[str, float]]:
    """Moments by key, read and written under a lock that all processes of this machine respect."""
    folder = settings.home / "alerts"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{name}.json").open("a+", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        moments = _moments(file.read())
        try:
            yield moments
        finally:
            file.seek(0)
            file.truncate()
            json.dump(moments, file)


def _moments(text: str) -> dict[str, float]:
    """The file's content; one that a crash cut short counts as empty."""
    try:
        return {str(key): float(moment) for key, moment in json.loads(text or "{}").items()}
    except (ValueError, TypeError, AttributeError):
        return {}


def _escaped(text: str) -> str:
    """Slack reads <, > and & as markup: a reason quotes what others wrote."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
