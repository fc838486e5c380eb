"""The S3 side of UNLOAD: is the target empty, objects uploaded as they are written, failures in Redshift's words.

Knows buckets and keys, nothing of rows.
"""

from collections.abc import Generator
from contextlib import contextmanager, suppress
from functools import lru_cache
from tempfile import SpooledTemporaryFile
from typing import IO, TYPE_CHECKING, Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from data_platform.local.warehouse.unload.contract import UnloadEnvironment, UnloadStatement, WarehouseError

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

PART_BYTES = 8 * 1024**2  # S3 takes parts from 5 MB
S3_ERROR_CODE = 8001
DEFAULT_REGION = "us-east-1"  # S3 answers no location for it


@lru_cache(maxsize=8)  # making a client costs 0.1-0.5 s; clients are thread-safe
def _client(endpoint: str, access_key_id: str, secret_access_key: str, region: str) -> "S3Client":
    return boto3.session.Session().client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id=access_key_id,
        aws_secret_access_key=secret_access_key,
        region_name=region,
        config=Config(
            s3={"addressing_style": "path"},
            retries={"total_max_attempts": 2, "mode": "standard"},
            request_checksum_calculation="when_required",
            connect_timeout=5,
            read_timeout=60,
            max_pool_connections=64,  # UNLOADs of many sessions share the client
        ),
    )


def redshift_detail(error: str, context: str) -> str:
    """The DETAIL block Redshift prints under an error of its S3 layer."""
    rule = "-----------------------------------------------"
    return f"\n  {rule}\n  error:  {error}\n  code:      {S3_ERROR_CODE}\n  context:   {context}\n  {rule}\n"


def s3_failure(code: str, message: str, status: int, context: str) -> WarehouseError:
    """An S3 refusal as Redshift reports it: XX000, code 8001 in the detail."""
    text = f"S3ServiceException:{message},Status {status},Error {code}"
    return WarehouseError("XX000", text, detail=redshift_detail(text, context))


@contextmanager
def s3_errors(context: str) -> Generator[None]:
    """Turn botocore's exceptions into Redshift's words."""
    try:
        yield
    except ClientError as error:
        facts = error.response.get("Error", {})
        status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        raise s3_failure(facts.get("Code", "Unknown"), facts.get("Message", str(error)), status, context) from error
    except BotoCoreError as error:
        text = f"S3CurlException: {error}"
        raise WarehouseError("XX000", text, detail=redshift_detail(text, context)) from error


class Target:
    """The bucket an UNLOAD writes to."""

    def __init__(self, statement: UnloadStatement, environment: UnloadEnvironment) -> None:
        self.bucket = statement.bucket
        self._client = _client(
            environment.s3_endpoint,
            environment.access_key_id,
            environment.secret_access_key,
            environment.region,
        )
        self._region = statement.region or environment.region
        self._encryption: dict[str, Any] = {"ServerSideEncryption": "AES256"}
        if statement.kms_key_id is not None:
            self._encryption = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": statement.kms_key_id}
        elif statement.encrypted_auto:
            self._encryption = {}

    def url(self, key: str) -> str:
        """The s3:// form of a key."""
        return f"s3://{self.bucket}/{key}"

    def check_region(self) -> None:
        """Refuse a bucket that lives elsewhere than REGION (the warehouse's own region when not given) says."""
        with s3_errors(f"Locating bucket={self.bucket}"):
            answer = self._client.get_bucket_location(Bucket=self.bucket)
        if (answer.get("LocationConstraint") or DEFAULT_REGION) != self._region:
            raise s3_failure(
                "PermanentRedirect",
                "The bucket you are attempting to access must be addressed using the specified endpoint",
                301,
                f"Locating bucket={self.bucket}",
            )

    def is_empty(self, prefix: str) -> bool:
        """Whether no key starts with `prefix`."""
        with s3_errors(f"Listing bucket={self.bucket} prefix={prefix}"):
            return not self._client.list_objects_v2(Bucket=self.bucket, Prefix=prefix, MaxKeys=1).get("KeyCount")

    def clean(self, prefix: str) -> None:
        """Delete every object whose key starts with `prefix`."""
        with s3_errors(f"Cleaning bucket={self.bucket} prefix={prefix}"):
            for page in self._client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix):
                if keys := [{"Key": each.get("Key", "")} for each in page.get("Contents", [])]:
                    self._client.delete_objects(Bucket=self.bucket, Delete={"Objects": keys, "Quiet": True})  # pyright: ignore[reportArgumentType]

    def put(self, key: str, body: bytes) -> None:
        """Write a small object."""
        with s3_errors(f"Writing bucket={self.bucket} key={key}"):
            self._client.put_object(Bucket=self.bucket, Key=key, Body=body, **self._encryption)

    def upload(self, key: str, memory: int = PART_BYTES) -> "Upload":
        """Start an object; at most `memory` bytes of it are held in memory, the rest of a part on disk."""
        return Upload(self._client, self.bucket, key, self._encryption, memory)


class Upload:
    """A writable file that becomes an S3 object when closed: one PUT when small, multipart from 8 MiB on."""

    def __init__(self, client: "S3Client", bucket: str, key: str, encryption: dict[str, Any], memory: int) -> None:
        self.key = key
        self.size = 0
        self.closed = False
        self._client = client
        self._where = {"Bucket": bucket, "Key": key}
        self._context = f"Writing bucket={bucket} key={key}"
        self._encryption = encryption
        self._buffer: IO[bytes] = SpooledTemporaryFile(memory)  # noqa: SIM115 - lives as long as the upload
        self._buffered = 0
        self._upload_id: str | None = None
        self._parts: list[dict[str, Any]] = []

    def write(self, data: "bytes | memoryview") -> int:
        """Append bytes; uploads a part when there is enough for one."""
        length = len(data)
        if self.closed:  # a writer's last words after abort()
            return length
        self._buffer.write(data)
        self.size += length
        self._buffered += length
        if self._buffered >= PART_BYTES:
            self._send_part()
        return length

    def flush(self) -> None:
        """Parts go out by size; nothing to do."""

    def tell(self) -> int:
        """Bytes written so far."""
        return self.size

    def close(self) -> None:
        """Complete the object. Raises WarehouseError when S3 refuses."""
        if self.closed:
            return
        self.closed = True
        if self._upload_id is None:
            with s3_errors(self._context):
                self._client.put_object(Body=self._take(), **self._where, **self._encryption)  # pyright: ignore[reportArgumentType]
        else:
            if self._buffered:
                self._send_part()
            with s3_errors(self._context):
                self._client.complete_multipart_upload(
                    **self._where,  # pyright: ignore[reportArgumentType]
                    UploadId=self._upload_id,
                    MultipartUpload={"Parts": self._parts},  # pyright: ignore[reportArgumentType]
                )
        self._buffer.close()

    def abort(self) -> None:
        """Forget the object; what S3 holds of it is released, unless S3 is gone too."""
        self.closed = True
        self._buffer.close()
        if self._upload_id is not None:
            with suppress(WarehouseError), s3_errors(self._context):
                self._client.abort_multipart_upload(**self._where, UploadId=self._upload_id)  # pyright: ignore[reportArgumentType]

    def _take(self) -> bytes:
        self._buffer.seek(0)
        data = self._buffer.read()
        self._buffer.seek(0)
        self._buffer.truncate()
        self._buffered = 0
        return data

    def _send_part(self) -> None:
        with s3_errors(self._context):
            if self._upload_id is None:
                started = self._client.create_multipart_upload(**self._where, **self._encryption)  # pyright: ignore[reportArgumentType]
                self._upload_id = started["UploadId"]
            number = len(self._parts) + 1
            part = self._client.upload_part(
                **self._where,  # pyright: ignore[reportArgumentType]
                UploadId=self._upload_id,
                PartNumber=number,
                Body=self._take(),
            )
        self._parts.append({"PartNumber": number, "ETag": part["ETag"]})
