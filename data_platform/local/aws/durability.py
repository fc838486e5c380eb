"""The WSGI layer that makes S3 writes durable and events orderly: one writer per key, commit, then events, then answer.

It knows the order of these steps and nothing of how each is done.
"""

import threading
from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any, Protocol
from wsgiref.types import StartResponse, WSGIApplication

from data_platform.local.aws.journal import Journal, journal_of
from data_platform.local.aws.requests import Environ, RequestFacts, facts_of
from data_platform.local.aws.store import StateStore, backend

# moto checks a precondition, reads the version list and replaces it in three steps: two writers of one key would lose
# a version or both win an If-None-Match. Keys share a fixed number of locks.
LOCKS = 256


class Publisher(Protocol):
    """Takes EventBridge events in the order they happened."""

    def publish(self, event: dict[str, Any]) -> None:
        """Queue one event; does not wait for its delivery."""
        ...


class DurableS3:
    """Middleware: S3 requests that write are journalled and committed before their answer is sent."""

    def __init__(
        self,
        application: WSGIApplication,
        store: StateStore,
        publisher: Publisher,
    ) -> None:
        self._application = application
        self._store = store
        self._publisher = publisher
        self._locks = [threading.Lock() for _ in range(LOCKS)]

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Handle one request."""
        facts = facts_of(environ)
        if facts.service != "s3" or not facts.writes:
            return self._application(environ, start_response)
        with ExitStack() as held, journal_of(facts) as journal:
            for lock in self._locks_for(facts):
                held.enter_context(lock)
            answer = self._application(environ, start_response)
            _note_changes_by_request(journal)
            self._store.commit(journal)
            for event in journal.events:
                self._publisher.publish(event)
            return answer

    def _locks_for(self, facts: RequestFacts) -> list[threading.Lock]:
        if facts.key:
            return [self._locks[hash((facts.bucket, facts.key)) % LOCKS]]
        return self._locks  # DeleteObjects and configuration; nobody who holds one lock waits for another


def _note_changes_by_request(journal: Journal) -> None:
    """Changes that go past the key store: configuration, metadata, tags, parts."""
    facts = journal.facts
    if facts.bucket and not facts.key:
        if facts.action != "DeleteObjects":
            journal.buckets.add(facts.bucket)
        return
    if facts.upload_id and facts.action != "CompleteMultipartUpload":
        journal.uploads.add((facts.bucket, facts.upload_id))
    bucket = backend().buckets.get(facts.bucket)
    if bucket is None or facts.action in {"PutObject", "DeleteObject", "CopyObject"} or facts.upload_id:
        return
    for entry in bucket.keys.getlist(facts.key, []):
        entry.stale = True
    journal.keys.add((facts.bucket, facts.key))
