"""Sending one alert over its owner's channels: Slack's incoming webhooks, e-mail through SES. Fails harmlessly.

A webhook takes about one message a second and is shut off by Slack when it gets many more, so each has a window of a
minute that all processes of this machine share (a locked file below DATA_PLATFORM_HOME).
"""

import fcntl
import hashlib
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from data_platform.alerts.message import Alert
from data_platform.alerts.routes import Route
from data_platform.clients import aws
from data_platform.settings import Settings

TIMEOUT_S = 5.0
WINDOW_S = 60.0
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
    """Send `alert` over every channel of `route`; never raises for what the other side does."""
    outcomes: list[Delivery] = []
    if route.slack is not None:
        outcomes.append(_slack(settings, route.slack.get_secret_value(), alert, now))
    if route.email and settings.alert_sender is not None:
        outcomes.append(_email(settings, settings.alert_sender, route.email, alert))
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
    folder = settings.home / "alerts"
    folder.mkdir(parents=True, exist_ok=True)
    name = hashlib.sha256(webhook.encode()).hexdigest()[:16]
    with (folder / f"{name}.json").open("a+", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        sent = [moment for moment in _moments(file.read()) if now - WINDOW_S < moment <= now]
        allowed = len(sent) < settings.alert_per_minute
        if allowed:
            sent.append(now)
        file.seek(0)
        file.truncate()
        json.dump(sent, file)
    return allowed


def _moments(text: str) -> list[float]:
    """The file's content; one that a crash cut short counts as empty."""
    try:
        return [float(moment) for moment in json.loads(text or "[]")]
    except (ValueError, TypeError):
        return []


def _escaped(text: str) -> str:
    """Slack reads <, > and & as markup: a reason quotes what others wrote."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
