"""How deep the load queues are, asked one after the other until a tick's time is over."""

import time
from collections.abc import Iterable, Iterator

from data_platform.clients import aws
from data_platform.clients.classify import explain
from data_platform.loading.queues import Depth, DomainQueue
from data_platform.settings import Settings


def ask_depths(settings: Settings, domains: Iterable[str], deadline: float) -> Iterator[tuple[str, Depth | str]]:
    """Each domain with its queues' depth, or with why that is not known; `deadline` as `time.monotonic` counts.

    What is no error of AWS is a bug, and is raised.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    sqs = aws.sqs(settings)
    for domain in domains:
        if time.monotonic() > deadline:
            yield domain, "the tick's time was over"
            continue
        try:
            yield domain, DomainQueue.open(sqs, settings, domain).depth()
        except (BotoCoreError, ClientError) as error:
            yield domain, explain(error)
