"""The state on disk: one SQLite database of buckets, object versions and uploads in progress, beside the blobs.

A request's journal is written in one transaction before its answer is sent; at the start everything but the bytes is
read back into moto's model. Rows hold pickles of moto's own objects, read only by the version that is installed.
"""

import logging
import pickle
import sqlite3
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.s3.models import FakeDeleteMarker, FakeMultipart, S3Backend, s3_backends

from data_platform.local.aws.blobs import BlobStore
from data_platform.local.aws.journal import Journal
from data_platform.local.aws.objects import StoredBucket, StoredKey, twin

logger = logging.getLogger(__name__)

SCHEMA = """
CREATE TABLE IF NOT EXISTS buckets (name TEXT PRIMARY KEY, tags BLOB NOT NULL, state BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS versions (
    id INTEGER PRIMARY KEY AUTOINCREMENT,  -- the order of the writes
    bucket TEXT NOT NULL, key TEXT NOT NULL, blob TEXT, tags BLOB, state BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS uploads (id TEXT PRIMARY KEY, bucket TEXT NOT NULL, state BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS parts (
    upload TEXT NOT NULL, number INTEGER NOT NULL, blob TEXT NOT NULL, state BLOB NOT NULL,
    PRIMARY KEY (upload, number)
);
CREATE TABLE IF NOT EXISTS documents (name TEXT PRIMARY KEY, state BLOB NOT NULL);
"""


def backend() -> S3Backend:
    """moto's S3 of the one account and partition the embedded cloud has."""
    return s3_backends[DEFAULT_ACCOUNT_ID]["aws"]


class StateStore:
    """Writes journals, loads everything; one connection, one writer at a time."""

    def __init__(self, folder: Path) -> None:
        self.blobs = BlobStore(folder / "blobs")
        self._lock = threading.Lock()
        self._database = sqlite3.connect(folder / "aws.sqlite", check_same_thread=False, isolation_level=None)
        self._database.execute("PRAGMA journal_mode = WAL")
        # The operating system keeps what a killed process wrote; only a power cut of the machine needs more.
        self._database.execute("PRAGMA synchronous = OFF")
        self._database.executescript(SCHEMA)

    def close(self) -> None:
        """Fold the log into the database."""
        with self._lock:
            self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self._database.close()

    def load(self) -> int:
        """Fill moto's model from the database and drop blobs nobody names; returns the number of versions."""
        s3 = backend()
        for name, tags, state in self._database.execute("SELECT name, tags, state FROM buckets"):
            bucket = cast("StoredBucket", _unpickle(state))
            s3.buckets[name] = bucket
            s3_backends.bucket_accounts[name] = (bucket.partition, bucket.account_id)
            _set_tags(bucket.arn, tags)
        count = 0
        used: set[str] = set()
        versions = "SELECT id, bucket, key, blob, tags, state FROM versions ORDER BY id"
        for row, bucket_name, key, blob, tags, state in self._database.execute(versions):
            count += 1
            bucket = s3.buckets[bucket_name]
            entry = _unpickle(state)
            entry.row = row
            before = bucket.keys.getlist(key, [])
            if blob is None:  # a delete marker points at what it hides
                entry.key = before[-1] if before else None
            else:
                used.add(blob)
                _set_tags(entry.arn, tags)
            bucket.keys.setlist(key, [*before, entry])
        for upload_id, bucket_name, state in self._database.execute("SELECT id, bucket, state FROM uploads"):
            upload = cast("FakeMultipart", _unpickle(state))
            parts = "SELECT number, blob, state FROM parts WHERE upload = ? ORDER BY number"
            for number, blob, part in self._database.execute(parts, (upload_id,)):
                upload.parts[number] = _unpickle(part)
                upload.partlist.append(number)
                used.add(blob)
            s3.buckets[bucket_name].multiparts[upload_id] = upload
        orphans = self.blobs.keep_only(used)
        if orphans:
            logger.info("removed %d blobs of writes that were never acknowledged", orphans)
        return count

    def document(self, name: str) -> bytes | None:
        """What `put_document` stored under `name`."""
        with self._lock:
            row = self._database.execute("SELECT state FROM documents WHERE name = ?", (name,)).fetchone()
        return None if row is None else row[0]

    def put_document(self, name: str, state: bytes) -> None:
        """Store a value of the caller's own under `name`."""
        with self._lock:
            self._database.execute("INSERT OR REPLACE INTO documents VALUES (?, ?)", (name, state))

    def commit(self, journal: Journal) -> None:
        """Write what the request changed. When this returns it survives kill -9 of the process."""
        doomed: list[str] = []
        with self._lock:
            self._database.execute("BEGIN")
            try:
                for bucket in journal.buckets:
                    self._write_bucket(bucket)
                self._delete_entries(journal.removed, doomed)
                for bucket, key in journal.keys:
                    self._write_versions(bucket, key)
                for bucket, upload in journal.uploads:
                    self._write_upload(bucket, upload, doomed)
                self._database.execute("COMMIT")
            except BaseException:
                self._database.execute("ROLLBACK")
                raise
        for blob in doomed:
            self.blobs.doom(blob)

    def _write_bucket(self, name: str) -> None:
        bucket = backend().buckets.get(name)
        if bucket is None:
            for table, column in (("buckets", "name"), ("versions", "bucket"), ("uploads", "bucket")):
                self._database.execute(f"DELETE FROM {table} WHERE {column} = ?", (name,))
            return
        self._database.execute(
            "INSERT OR REPLACE INTO buckets VALUES (?, ?, ?)", (name, _tags(bucket.arn), pickle.dumps(bucket))
        )

    def _delete_entries(self, entries: Iterable[Any], doomed: list[str]) -> None:
        for entry in entries:
            row = getattr(entry, "row", None)
            if row is not None:
                self._database.execute("DELETE FROM versions WHERE id = ?", (row,))
            if isinstance(entry, StoredKey):
                doomed.append(entry.blob)

    def _write_versions(self, bucket_name: str, key: str) -> None:
        bucket = backend().buckets.get(bucket_name)
        if bucket is None:
            return
        for entry in bucket.keys.getlist(key, []):
            row = getattr(entry, "row", None)
            if row is not None and not getattr(entry, "stale", False):
                continue
            if isinstance(entry, StoredKey):
                values = (entry.blob, _tags(entry.arn), pickle.dumps(entry))
                entry.stale = False
            else:
                values = (None, None, _pickle_marker(entry))
            if row is None:
                insert = "INSERT INTO versions (bucket, key, blob, tags, state) VALUES (?, ?, ?, ?, ?)"
                entry.row = self._database.execute(insert, (bucket_name, key, *values)).lastrowid
            else:
                self._database.execute("UPDATE versions SET blob = ?, tags = ?, state = ? WHERE id = ?", (*values, row))

    def _write_upload(self, bucket_name: str, upload_id: str, doomed: list[str]) -> None:
        bucket = backend().buckets.get(bucket_name)
        upload = None if bucket is None else bucket.multiparts.get(upload_id)
        query = "SELECT number, blob FROM parts WHERE upload = ?"
        stored = dict(self._database.execute(query, (upload_id,)).fetchall())
        if upload is None:  # completed or aborted
            doomed += stored.values()
            self._database.execute("DELETE FROM parts WHERE upload = ?", (upload_id,))
            self._database.execute("DELETE FROM uploads WHERE id = ?", (upload_id,))
            return
        if not stored:
            row = (upload_id, bucket_name, _pickle_upload(upload))
            self._database.execute("INSERT OR IGNORE INTO uploads VALUES (?, ?, ?)", row)
        for number, part in list(upload.parts.items()):
            blob = cast("StoredKey", part).blob
            if stored.get(number) != blob:
                row = (upload_id, number, blob, pickle.dumps(part))
                self._database.execute("INSERT OR REPLACE INTO parts VALUES (?, ?, ?, ?)", row)
                if number in stored:
                    doomed.append(stored[number])


def _unpickle(state: bytes) -> Any:
    return pickle.loads(state)  # noqa: S301 - written by this engine into its own state folder


def _pickle_marker(marker: FakeDeleteMarker) -> bytes:
    return pickle.dumps(twin(marker, key=None, row=None))


def _pickle_upload(upload: FakeMultipart) -> bytes:
    return pickle.dumps(twin(upload, parts={}, partlist=[]))


def _tags(arn: str) -> bytes:
    return pickle.dumps(backend().tagger.get_tag_dict_for_resource(arn))


def _set_tags(arn: str, state: bytes) -> None:
    tags = _unpickle(state)
    if tags:
        tagger = backend().tagger
        tagger.tag_resource(arn, tagger.convert_dict_to_tags_input(tags))
