"""Small parts of many S3 objects: the footers of Parquet files. Whole objects and all else go through boto3."""

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from data_platform.clients.aws import CONNECT_TIMEOUT_S, READ_TIMEOUT_S
from data_platform.errors import TransientError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from urllib3 import PoolManager

POOL_SIZE = 20
LINK_S = 60
PARTIAL = 206


@dataclass(frozen=True)
class Part:
    """Some bytes of an object, and how many the object has."""

    data: bytes
    size: int


class ObjectReader:
    """Ranged GETs under an ETag, for many threads.

    Signed by botocore, sent by a plain pool: half of the CPU of `get_object` (0.7 against 1.4 ms), which is most of
    what a small object costs its loader. Whatever comes back but the bytes asked for is asked again through boto3,
    which retries, tells errors apart and knows regions; so errors are botocore's, as ever.
    """

    def __init__(self, s3: "S3Client") -> None:
        self._s3 = s3
        self._pool = _pool(s3.meta.endpoint_url)

    def read(self, bucket: str, key: str, etag: str, span: str) -> Part:
        """The bytes `span` (as in `bytes=-65536`, `bytes=0-3`) of the version with this ETag.

        Raises ClientError (404, 412 when the key holds another version, 416), TransientError for a broken answer.
        """
        from urllib3.exceptions import HTTPError

        link = self._s3.generate_presigned_url("get_object", {"Bucket": bucket, "Key": key}, ExpiresIn=LINK_S)
        try:
            answer = self._pool.request("GET", link, headers={"Range": span, "If-Match": f'"{etag}"'}, redirect=False)
        except HTTPError:
            return self._asked_again(bucket, key, etag, span)
        if answer.status != PARTIAL:
            return self._asked_again(bucket, key, etag, span)
        return Part(answer.data, _total(answer.headers["Content-Range"]))

    def _asked_again(self, bucket: str, key: str, etag: str, span: str) -> Part:
        from botocore.exceptions import IncompleteReadError

        answer = self._s3.get_object(Bucket=bucket, Key=key, IfMatch=f'"{etag}"', Range=span)
        try:
            data = answer["Body"].read()
        except IncompleteReadError as error:
            raise TransientError(f"{key}: the answer broke off: {error}") from error
        if len(data) != answer["ContentLength"]:
            raise TransientError(f"{key}: {len(data)} bytes came of {answer['ContentLength']}")
        return Part(data, _total(answer.get("ContentRange", f"/{len(data)}")))


def _total(content_range: str) -> int:
    return int(content_range.rpartition("/")[2])


def _pool(endpoint: str) -> "PoolManager":
    """Connections as botocore makes them: through the environment's proxy, trusting its certificates, no retries."""
    from botocore.httpsession import get_cert_path
    from botocore.utils import get_environ_proxies
    from urllib3 import PoolManager, ProxyManager, Timeout

    chosen: dict[str, Any] = {
        "maxsize": POOL_SIZE,
        "retries": False,
        "timeout": Timeout(connect=CONNECT_TIMEOUT_S, read=READ_TIMEOUT_S),
        "ca_certs": os.environ.get("AWS_CA_BUNDLE") or os.environ.get("REQUESTS_CA_BUNDLE") or get_cert_path(True),
    }
    proxy = get_environ_proxies(endpoint).get(endpoint.partition(":")[0])
    return ProxyManager(proxy, **chosen) if proxy else PoolManager(**chosen)
