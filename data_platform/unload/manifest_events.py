"""S3 tells of every manifest that UNLOAD has written: the reconciler is woken for the request it belongs to.

A shortcut and no more: without the queue, or when it cannot be reached, the reconciler finds the same by looking.
"""

import json
import logging
import re
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from data_platform.clients import aws
from data_platform.clients.classify import classify
from data_platform.errors import Fault
from data_platform.settings import Settings
from data_platform.unload.execution import RESULTS_PREFIX
from data_platform.unload.manifest import MANIFEST_NAME

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

log = logging.getLogger(__name__)

POLL_S = 10
PAUSE_S = 10.0
MESSAGES = 10
AGAIN_S = 1  # the manifest is written before its statement has ended
_KEY = re.compile(rf"^{RESULTS_PREFIX}/([A-Za-z0-9._-]{{1,128}})/([1-9][0-9]{{0,8}})/{MANIFEST_NAME}$")


def queue_name(env: str) -> str:
    """The queue that `data-platform provision` makes."""
    return f"{env}-unload-queue"


def attempt_of(body: str) -> tuple[str, int] | None:
    """Request and attempt that an event is about; None for any other object."""
    try:
        message = json.loads(body)
    except ValueError:
        return None
    found = _KEY.match(str(message.get("key", ""))) if isinstance(message, dict) else None
    return None if found is None else (found[1], int(found[2]))


class ManifestEvents:
    """Reads the queue in a thread; `on_manifest` is told request and attempt, and says whether that was all."""

    def __init__(self, settings: Settings, on_manifest: Callable[[str, int], bool]) -> None:
        self._settings = settings
        self._on_manifest = on_manifest
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="unload-manifests", daemon=True)

    def start(self) -> None:
        """Begin; without a region there is no queue."""
        if self._settings.aws_region is not None:
            self._thread.start()

    def stop(self) -> None:
        """End; a long poll that waits is left to end with the process."""
        self._ending.set()

    def _run(self) -> None:
        sqs = aws.sqs(self._settings)
        url: str | None = None
        while not self._ending.is_set():
            try:
                url = url or sqs.get_queue_url(QueueName=queue_name(self._settings.env))["QueueUrl"]
                self._read(sqs, url)
            except Exception as error:
                bug = error if classify(error) is Fault.UNKNOWN else None
                log.warning("events of manifests cannot be read: %s", type(error).__name__, exc_info=bug)
                url = None
                self._ending.wait(PAUSE_S)

    def _read(self, sqs: "SQSClient", url: str) -> None:
        answer = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=MESSAGES, WaitTimeSeconds=POLL_S)
        for message in answer.get("Messages", []):
            found = attempt_of(message.get("Body", ""))
            receipt = message.get("ReceiptHandle", "")
            if found is None or self._on_manifest(*found):
                sqs.delete_message(QueueUrl=url, ReceiptHandle=receipt)
            else:
                sqs.change_message_visibility(QueueUrl=url, ReceiptHandle=receipt, VisibilityTimeout=AGAIN_S)
