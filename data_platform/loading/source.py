"""What S3 says of the objects of a group: their versions, their footers (read side by side), what they are by now.

Belongs here: asking S3. Does not: what the answers mean for an event (group.py).
"""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from enum import Enum, auto
from types import TracebackType
from typing import TYPE_CHECKING, Self

from data_platform.clients.objects import ObjectReader
from data_platform.loading.errors import Code, LoadError
from data_platform.loading.footer import Footer, ObjectChangedError, read_footer
from data_platform.loading.register import ObjectVersion

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

FOOTER_THREADS = 8


class Footers:
    """Footers of object versions, each one ranged GET under the version's ETag.

    `begin` starts reading while the caller waits for something else (its lease): a footer is waited for, not computed.
    """

    def __init__(self, objects: ObjectReader) -> None:
        self._objects = objects
        self._pool = ThreadPoolExecutor(FOOTER_THREADS, thread_name_prefix="footer")
        self._begun: dict[str, Future[Footer]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)

    def begin(self, versions: Sequence[ObjectVersion]) -> None:
        """Start to read the footers that are not being read yet."""
        for version in versions:
            if version.identity not in self._begun:
                self._begun[version.identity] = self._pool.submit(
                    read_footer, self._objects, version.bucket, version.key, version.etag
                )

    def of(self, version: ObjectVersion) -> Footer:
        """The footer of a version that was begun. Raises what `read_footer` raises."""
        return self._begun[version.identity].result()


def complete(s3: "S3Client", version: ObjectVersion) -> ObjectVersion:
    """An event may lack the ETag (it is optional in the envelope): the object's head has it.

    Raises LoadError E008 when there is no object, ObjectChangedError when it is another version.
    """
    if version.etag:
        return version
    head = _head(s3, version)
    if head is None:
        raise LoadError(Code.GONE, f"s3://{version.bucket}/{version.key} is gone")
    etag, size, version_id = head
    if version.version_id not in {None, "", "null", version_id}:
        raise ObjectChangedError(f"s3://{version.bucket}/{version.key} is not version {version.version_id} any more")
    return replace(version, etag=etag, bytes=size, version_id=version.version_id or version_id)


class Now(Enum):
    """What a key holds now, beside the version that was to be loaded."""

    SAME = auto()
    ANOTHER = auto()  # that one's own event brings its rows
    GONE = auto()


def look_again(s3: "S3Client", version: ObjectVersion) -> Now:
    """Whether the key still holds this version."""
    head = _head(s3, version)
    if head is None:
        return Now.GONE
    return Now.SAME if head[0] == version.etag else Now.ANOTHER


def _head(s3: "S3Client", version: ObjectVersion) -> tuple[str, int, str | None] | None:
    """ETag, bytes and version id of what the key holds; None when it holds nothing."""
    from botocore.exceptions import ClientError

    try:
        head = s3.head_object(Bucket=version.bucket, Key=version.key)
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") in {"404", "NoSuchKey"}:
            return None
        raise
    return head["ETag"].strip('"'), head["ContentLength"], head.get("VersionId")
