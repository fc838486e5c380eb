"""The file on S3: which version it is, and its bytes as UTF-8 text, whatever it was packed in. Bounded memory.

What belongs here: identity, gzip, the declared encoding, limits of size. What does not: records and rules.
"""

import codecs
import hashlib
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from typing import TYPE_CHECKING
from urllib.parse import unquote

from data_platform.catalog.keys import object_identity
from data_platform.clients import aws
from data_platform.errors import ConfigurationError, Fault, PlatformError
from data_platform.statistics.errors import ProcessingError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

BLOCK_BYTES = 1 << 20
GZIP_MAGIC = b"\x1f\x8b"
GZIP_WINDOW = 31  # zlib: expect gzip's header and check its checksum
BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class FileVersion:
    """One version of one object; an overwritten key is another file. `size` in bytes as stored."""

    bucket: str
    key: str
    version: str
    version_id: str | None
    etag: str
    size: int
    last_modified: datetime

    @property
    def url(self) -> str:
        """`s3://bucket/key`."""
        return f"s3://{self.bucket}/{self.key}"

    @property
    def identity(self) -> str:
        """`s3://bucket/key@version`."""
        return object_identity(self.bucket, self.key, self.version)

    @property
    def file_id(self) -> str:
        """SHA-256 of the identity: its name in the ledger, in locks and in run keys."""
        return identity_hash(self.identity)


class UnreadableError(PlatformError):
    """The bytes are not what the file claims to be (gzip, encoding, size): the whole file is refused."""

    def __init__(self, rule: str, reason: str) -> None:
        super().__init__(reason)
        self.rule = rule


def identity_hash(identity: str) -> str:
    """SHA-256 of an object identity, in hex."""
    return hashlib.sha256(identity.encode("utf-8", "surrogatepass")).hexdigest()


def parse_url(url: str) -> tuple[str, str, str | None]:
    """Bucket, key and version id of `s3://bucket/key[?versionId=ID]`. Raises ConfigurationError for any other text."""
    rest = url.removeprefix("s3://")
    bucket, slash, key = rest.partition("/")
    key, _, version = key.partition("?versionId=")
    if rest == url or not slash or not bucket or not key:
        raise ConfigurationError(f"{url!r} is no S3 address of a file", hint="s3://<bucket>/incoming/<file>.csv")
    return bucket, key, unquote(version) or None


def find(s3: "S3Client", bucket: str, key: str, version_id: str | None = None) -> FileVersion:
    """The version of the object there is now (or the one asked for). Raises ConfigurationError when there is none."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        head = (
            s3.head_object(Bucket=bucket, Key=key)
            if version_id is None
            else s3.head_object(Bucket=bucket, Key=key, VersionId=version_id)
        )
    except (ClientError, BotoCoreError) as error:
        url = f"s3://{bucket}/{key}"
        # 400: S3's answer to a version id that is none.
        if isinstance(error, ClientError) and error.response.get("Error", {}).get("Code") in {"404", "400"}:
            version = "" if version_id is None else f" in version {version_id}"
            raise ConfigurationError(f"there is no {url}{version}", hint="aws s3 ls, or drop it again") from None
        raise ProcessingError(str(error), file=url, rule="s3", fault=aws.classify(error)) from error
    etag = head["ETag"].strip('"')
    stored = head.get("VersionId")
    modified = head["LastModified"]
    # Without versioning an object put again with equal content has an equal ETag, and is a new drop all the same.
    version = stored if stored and stored != "null" else f"{etag}-{modified:%Y%m%dT%H%M%S}"
    return FileVersion(
        bucket,
        key,
        version,
        stored if stored != "null" else None,
        etag,
        head["ContentLength"],
        modified,
    )


def stored_bytes(s3: "S3Client", file: FileVersion) -> Iterator[bytes]:
    """The object's bytes. Raises ProcessingError (transient) when S3 breaks off or the object was replaced."""
    from botocore.exceptions import BotoCoreError, ClientError

    received = 0
    try:
        if file.version_id is not None:
            answer = s3.get_object(Bucket=file.bucket, Key=file.key, VersionId=file.version_id)
        else:
            answer = s3.get_object(Bucket=file.bucket, Key=file.key, IfMatch=file.etag)
        for block in answer["Body"].iter_chunks(BLOCK_BYTES):
            received += len(block)
            yield block
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        gone = code in {"PreconditionFailed", "412", "NoSuchKey", "NoSuchVersion"}
        reason = "the object was replaced or removed while it was read" if gone else str(error)
        fault = Fault.PERMANENT if gone else aws.classify(error)
        raise ProcessingError(reason, file=file.url, rule="s3", fault=fault) from error
    except BotoCoreError as error:
        raise ProcessingError(str(error), file=file.url, rule="s3", fault=Fault.TRANSIENT) from error
    if received != file.size:
        reason = f"S3 sent {received} of {file.size} bytes"
        raise ProcessingError(reason, file=file.url, rule="s3", fault=Fault.TRANSIENT)


def text_blocks(blocks: Iterator[bytes], *, encoding: str, max_bytes: int) -> Iterator[bytes]:
    """The text as UTF-8 bytes without BOM, unpacked when it is gzip (by content, not by name).

    A sequence that is no text in `encoding` stays in place as something no rule accepts. Raises UnreadableError.
    """
    plain = _limited(_unpacked(blocks), max_bytes)
    if codecs.lookup(encoding).name != "utf-8":
        plain = _recoded(plain, encoding)
    yield from _without_bom(plain)


def _unpacked(blocks: Iterator[bytes]) -> Iterator[bytes]:
    head = b""
    for block in blocks:
        head += block
        if len(head) >= len(GZIP_MAGIC):
            break
    if not head.startswith(GZIP_MAGIC):
        if head:
            yield head
        yield from blocks
        return
    yield from _gunzipped(head, blocks)


def _gunzipped(head: bytes, blocks: Iterator[bytes]) -> Iterator[bytes]:
    """All members of the gzip file; zeros after one are padding, anything else is another."""
    member = None
    pending = b""
    try:
        for block in chain((head,), blocks):
            pending += block
            while pending:
                if member is None:
                    pending = pending.lstrip(b"\0")
                    member = zlib.decompressobj(GZIP_WINDOW) if pending else None
                    continue
                plain = member.decompress(pending, BLOCK_BYTES)
                pending = member.unused_data if member.eof else member.unconsumed_tail
                member = None if member.eof else member
                if plain:
                    yield plain
        while member is not None:  # what it took in and has not given out yet
            plain = member.decompress(b"", BLOCK_BYTES)
            if member.eof:
                member = None
            elif not plain:
                raise UnreadableError("gzip", "the gzip data end before their end: the file was cut off")
            if plain:
                yield plain
    except zlib.error as error:
        raise UnreadableError("gzip", f"the gzip data are damaged: {error}") from None


def _limited(blocks: Iterator[bytes], max_bytes: int) -> Iterator[bytes]:
    total = 0
    for block in blocks:
        total += len(block)
        if total > max_bytes:
            raise UnreadableError("size", f"the text is larger than {max_bytes} bytes, the catalogue's max_bytes")
        yield block


def _recoded(blocks: Iterator[bytes], encoding: str) -> Iterator[bytes]:
    decoder = codecs.getincrementaldecoder(encoding)("replace")
    for block in blocks:
        yield decoder.decode(block).encode("utf-8", "replace")
    yield decoder.decode(b"", final=True).encode("utf-8", "replace")


def _without_bom(blocks: Iterator[bytes]) -> Iterator[bytes]:
    head = b""
    for block in blocks:
        head += block
        if len(head) >= len(BOM):
            break
    yield head.removeprefix(BOM)
    yield from blocks
