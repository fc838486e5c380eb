"""moto's S3 model with its bytes in files and its changes journalled. Here are all patches of `moto.s3.models`.

What is durable is decided in store.py; what an event looks like in events.py.
"""

import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar, cast

from moto.core.common_models import BaseModel
from moto.s3 import models
from moto.s3.responses import S3Response
from moto.s3.utils import (
    _VersionedKeyStore,  # pyright: ignore[reportPrivateUsage]
    compute_checksum,
)
from moto.utilities.utils import md5_hash

from data_platform.local.aws.blobs import BlobStore
from data_platform.local.aws.journal import current, next_sequencer

COMPOSITE = "COMPOSITE"  # the checksum of an object that was put in parts: of its parts' checksums

# Given by the engine before the first object: the classes below are made by moto's own code, which cannot pass it.
_blobs: BlobStore | None = None
_Model = TypeVar("_Model")


class _Reading(threading.local):
    lazily = False


_reading = _Reading()


def _store() -> BlobStore:
    if _blobs is None:
        raise RuntimeError("install() gives the blob store before anything is stored")
    return _blobs


@contextmanager
def _lazy_values() -> Generator[None]:
    _reading.lazily = True
    try:
        yield
    finally:
        _reading.lazily = False


def _fill(instance: object, fields: Mapping[str, Any]) -> None:
    for name, value in fields.items():
        setattr(instance, name, value)


def twin(instance: _Model, **changes: object) -> _Model:
    """A shallow copy with other values in some fields, made without moto's constructors."""
    made = object.__new__(type(instance))
    _fill(made, {**vars(instance), **changes})
    return made


class StoredKey(models.FakeKey):
    """An object version (or a part) whose bytes are a blob; only what describes it stays in memory."""

    blob: str = ""
    row: int | None = None  # of the database, once written
    stale: bool = False  # the row is older than what is in memory
    sequencer: str = ""

    @property
    def value(self) -> bytes:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The bytes; inside GetObject a view that is read while the answer is sent."""
        if _reading.lazily:
            return cast("bytes", _store().view(self.blob))
        return _store().read(self.blob)

    @value.setter
    def value(self, new_value: bytes | str) -> None:
        data = new_value.encode() if isinstance(new_value, str) else new_value
        self._value_buffer.close()  # the base class opened a spool that nobody needs
        if self._etag is None:
            self._etag = md5_hash(data).hexdigest()
        self.blob = _store().write(data)
        self.contentsize = len(data)

    @property
    def etag(self) -> str:
        """Quoted, as in the header."""
        return f'"{self._etag}"'

    def dispose(self, garbage: bool = False) -> None:
        """The bytes go when the row that names them is gone: the store does it after its commit."""

    def __del__(self) -> None:
        """Nothing is open; the base class would warn about a spool."""

    def __deepcopy__(self, memo: dict[int, Any]) -> "StoredKey":
        # Listing versions deep-copies every version, values included; the bytes never change, so share them.
        return twin(self)

    def __getstate__(self) -> dict[str, Any]:
        dropped = {"_value_buffer", "lock", "multipart", "row", "stale"}
        return {name: value for name, value in self.__dict__.items() if name not in dropped}

    def __setstate__(self, state: dict[str, Any]) -> None:
        _fill(self, state)
        self.lock = threading.Lock()
        self.multipart = None


class KeyStore(_VersionedKeyStore):
    """The versions of every key of a bucket, oldest first; tells the journal what changed and keeps names sorted."""

    def __init__(self, bucket: str) -> None:
        super().__init__()
        self.bucket = bucket
        self._generation = 0  # changes after every change of the set of names
        self._sorted: tuple[int, list[str]] = (-1, [])

    def __setitem__(self, key: str, value: Any) -> None:
        # The base class appends in place, and a reader may be iterating: replace the list instead.
        self.setlist(key, [*self.getlist(key, []), value])

    def setlist(self, key: Any, list_: Any) -> None:
        """Replace the versions of `key`; a version new to the list gets its sequencer here, in the order of writes."""
        before = self.getlist(key, [])
        for entry in list_:
            if not getattr(entry, "sequencer", ""):
                entry.sequencer = next_sequencer()
        dict.__setitem__(self, key, list_)
        if not before:
            self._generation += 1
        self._changed(key, [entry for entry in before if entry not in list_])

    def pop(self, key: str) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Remove the key with all its versions. Raises KeyError when there is none."""
        gone = dict.pop(self, key)
        self._generation += 1
        self._changed(key, gone)

    def names(self) -> list[str]:
        """All keys in UTF-8 order, which is code point order; do not change the list."""
        generation = self._generation  # read first: a write during the sort makes what is cached here old
        cached, names = self._sorted
        if cached != generation:
            names = sorted(dict.keys(self))
            self._sorted = (generation, names)
        return names

    def _changed(self, key: str, gone: list[Any]) -> None:
        journal = current()
        if journal is not None:
            journal.keys.add((self.bucket, key))
            journal.removed += gone


class Uploads(models.MultipartDict):
    """The multipart uploads in progress of one bucket."""

    def __init__(self, bucket: str) -> None:
        super().__init__()
        self.bucket = bucket

    def __setitem__(self, upload_id: str, upload: models.FakeMultipart) -> None:
        super().__setitem__(upload_id, upload)
        self._changed(upload_id)

    def __delitem__(self, upload_id: str) -> None:
        super().__delitem__(upload_id)
        self._changed(upload_id)

    def _changed(self, upload_id: str) -> None:
        journal = current()
        if journal is not None:
            journal.uploads.add((self.bucket, upload_id))


class StoredBucket(models.FakeBucket):
    """A bucket; its configuration is pickled, its keys and uploads have rows of their own."""

    def __init__(self, name: str, account_id: str, region_name: str, bucket_namespace: str | None = None) -> None:
        super().__init__(name, account_id, region_name, bucket_namespace)
        self.keys = KeyStore(name)
        self.multiparts = Uploads(name)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in {"keys", "multiparts"}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        _fill(self, state)
        self.keys = KeyStore(self.name)
        self.multiparts = Uploads(self.name)


def _untracked(cls: type[Any], *_args: object, **_kwargs: object) -> Any:
    return object.__new__(cls)


def _get_object(original: Callable[..., Any]) -> Callable[..., Any]:
    def get_object(self: S3Response) -> Any:
        with _lazy_values():
            return original(self)

    return get_object


def _get_notification(original: Callable[..., Any]) -> Callable[..., Any]:
    def get_bucket_notification(self: S3Response) -> Any:
        status, headers, body = original(self)
        configuration = self.backend.get_bucket_notification_configuration(self.bucket_name)
        if configuration is not None and configuration.event_bridge is not None:
            text = body if isinstance(body, str) else body.decode()
            start = text.index("<NotificationConfiguration")
            end = text.index(">", start)
            opened, rest = text[: end + 1].replace("/>", ">"), text[end + 1 :] or "</NotificationConfiguration>"
            body = f"{opened}<EventBridgeConfiguration/>{rest}"
        return status, headers, body

    return get_bucket_notification


def _complete(original: Callable[..., Any]) -> Callable[..., Any]:
    def complete_multipart_upload(self: models.S3Backend, bucket_name: str, *args: Any, **kwargs: Any) -> Any:
        key = original(self, bucket_name, *args, **kwargs)
        if key is not None:
            key.multipart = None
        return key

    return complete_multipart_upload


def _copy(original: Callable[..., Any]) -> Callable[..., Any]:
    def copy_object(
        self: models.S3Backend, source: StoredKey, bucket_name: str, key_name: str, *args: Any, **kw: Any
    ) -> None:
        original(self, source, bucket_name, key_name, *args, **kw)
        if source.checksum_type == COMPOSITE and source.checksum_algorithm:
            copied = self.get_bucket(bucket_name).keys[key_name]
            copied.checksum_value = compute_checksum(copied.value, source.checksum_algorithm).decode()

    return copy_object


def _head(original: Callable[..., Any]) -> Callable[..., Any]:
    def head_object(
        self: S3Response, bucket_name: str, query: dict[str, Any], key_name: str, headers: dict[str, Any]
    ) -> Any:
        status, told, body = original(self, bucket_name, query, key_name, headers)
        if any(name.startswith("x-amz-checksum-") for name in told):
            key = self.backend.head_object(bucket_name, key_name, version_id=query.get("versionId", [None])[0])
            if key is not None and key.checksum_type == COMPOSITE and key.checksum_algorithm:
                told[f"x-amz-checksum-{key.checksum_algorithm.lower()}"] = f"{key.checksum_value}-{key.checksum_parts}"
                told["x-amz-checksum-type"] = COMPOSITE
        return status, told, body

    return head_object


def install(blobs: BlobStore) -> None:
    """Patch moto's S3 model; once per process, before its first bucket."""
    global _blobs  # noqa: PLW0603 - see its comment
    _blobs = blobs
    # Objects on disk, changes in the journal. moto's functions look these names up when they make an instance.
    models.FakeKey = StoredKey
    models.FakeBucket = StoredBucket
    # moto keeps every model it ever made for its reset call: each deleted object and message would stay in memory.
    BaseModel.__new__ = staticmethod(_untracked)
    # GetObject would read the whole object for a range of it, and hold it until the answer is sent.
    S3Response.get_object = _get_object(S3Response.get_object)
    # moto stores that a bucket sends its events to EventBridge and does not tell it.
    S3Response.get_bucket_notification = _get_notification(S3Response.get_bucket_notification)
    # A completed object keeps its upload, whose parts are gone: reading one of them would fail.
    models.S3Backend.complete_multipart_upload = _complete(models.S3Backend.complete_multipart_upload)
    # A copy is one piece: with the checksum of its parts' checksums no client could read it.
    models.S3Backend.copy_object = _copy(models.S3Backend.copy_object)
    # HeadObject tells the checksum of the parts' checksums without the number that says so.
    S3Response.head_object = _head(S3Response.head_object)
