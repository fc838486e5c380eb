"""Notices to people: Slack and e-mail when a request is DONE or FAILED. Off unless configured; they fail harmlessly.

At most once and rate-limited: whoever needs every change listens to the topic.
"""

import json
import logging
import queue
import threading
import time
import urllib.request
from collections import deque
from typing import TYPE_CHECKING

from data_platform.clients import aws
from data_platform.settings import Settings

if TYPE_CHECKING:
    from data_platform.ledger.unload_requests import UnloadRequest

log = logging.getLogger(__name__)

WAITING = 100
PER_MINUTE = 20
TIMEOUT_S = 10


class Notices:
    """Sends from a thread of its own; `tell` never waits and never fails."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._waiting: queue.Queue[UnloadRequest | None] = queue.Queue(WAITING)
        self._sent: deque[float] = deque(maxlen=PER_MINUTE)
        self._thread = threading.Thread(target=self._run, name="unload-notices", daemon=True)

    @property
    def wanted(self) -> bool:
        """Whether anybody is to be told."""
        mail = self._settings.unload_mail_from and self._settings.unload_mail_to
        return bool(self._settings.unload_slack_webhook or mail)

    def start(self) -> None:
        """Begin, where anybody is to be told."""
        if self.wanted:
            self._thread.start()

    def stop(self) -> None:
        """Send no more."""
        if self._thread.is_alive():
            self._waiting.put(None)
            self._thread.join(TIMEOUT_S)

    def tell(self, request: "UnloadRequest") -> None:
        """A request has come to its end; too many at once are dropped."""
        if self.wanted and request.status.value in {"DONE", "FAILED"}:
            try:
                self._waiting.put_nowait(request)
            except queue.Full:
                log.warning("a notice was dropped: %d wait already", WAITING)

    def _run(self) -> None:
        while (request := self._waiting.get()) is not None:
            if len(self._sent) == PER_MINUTE and time.monotonic() - self._sent[0] < 60:
                log.warning("a notice was dropped: %d were sent within a minute", PER_MINUTE)
                continue
            self._sent.append(time.monotonic())
            self._send(text_of(request))

    def _send(self, text: str) -> None:
        for name, send in (("Slack", self._slack), ("e-mail", self._mail)):
            try:
                send(text)
            except Exception as error:  # noqa: BLE001 - a notice is a courtesy; the address in the error is a secret
                log.warning("no notice by %s: %s", name, type(error).__name__)

    def _slack(self, text: str) -> None:
        webhook = self._settings.unload_slack_webhook
        if webhook is None:
            return
        request = urllib.request.Request(  # noqa: S310 - an operator's own setting
            webhook.get_secret_value(),
            data=json.dumps({"text": text}).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=TIMEOUT_S):  # noqa: S310 - as above
            pass

    def _mail(self, text: str) -> None:
        sender, receivers = self._settings.unload_mail_from, self._settings.unload_mail_to
        if not sender or not receivers:
            return
        aws.client(self._settings, "ses").send_email(
            Source=sender,
            Destination={"ToAddresses": [address.strip() for address in receivers.split(",")]},
            Message={"Subject": {"Data": text.splitlines()[0][:200]}, "Body": {"Text": {"Data": text}}},
        )


def text_of(request: "UnloadRequest") -> str:
    """What a person is told: no statement, no link."""
    if request.status.value == "FAILED":
        return f"Unload {request.request_id} of {request.caller} FAILED ({request.error_code}): {request.error_message}"
    size = (request.bytes or 0) / 2**20
    return (
        f"Unload {request.request_id} of {request.caller} is DONE: "
        f"{request.rows or 0:,} rows, {size:,.1f} MiB, {len(request.files)} files"
    )
