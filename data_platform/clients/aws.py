"""AWS: sessions, clients and the classifier of botocore's errors. The endpoint is a setting, never a special case."""

from functools import cache
from typing import TYPE_CHECKING, Any

from data_platform.errors import Fault
from data_platform.settings import Settings

if TYPE_CHECKING:
    from boto3.session import Session
    from mypy_boto3_cloudwatch import CloudWatchClient
    from mypy_boto3_events import EventBridgeClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sqs import SQSClient

CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 60  # above the 20 s of an SQS long poll

THROTTLING_CODES = frozenset(
    {"Throttling", "ThrottlingException", "RequestLimitExceeded", "SlowDown", "TooManyRequestsException",
     "ProvisionedThroughputExceededException", "503"}
)  # fmt: skip
CONFIGURATION_CODES = frozenset(
    {"AccessDenied", "AccessDeniedException", "403", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken",
     "UnrecognizedClientException", "NoSuchBucket", "AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist"}
)  # fmt: skip


@cache
def _models() -> Any:
    """What parses and keeps botocore's descriptions of the services, one for all clients of the process.

    A session of its own parses them for 110 ms and keeps 12 MB, in cycles that a full garbage collection has to find: a
    process that opens clients again and again grew by tens of megabytes.
    """
    from botocore.session import get_session

    return get_session().get_component("data_loader")


def session() -> "Session":
    """A session with credentials and configuration of its own; the descriptions of the services are shared."""
    import boto3
    from botocore.session import get_session

    own = get_session()
    own.register_component("data_loader", _models())
    return boto3.session.Session(botocore_session=own)


def client(settings: Settings, service: str, *, pool: int = 20) -> Any:
    """A boto3 client of `service`; retries of botocore are bounded (standard mode, 3 attempts)."""
    from botocore.config import Config

    def secret(name: str) -> str | None:
        value = getattr(settings, name)
        return None if value is None else value.get_secret_value()

    return session().client(  # pyright: ignore[reportCallIssue] - the service is a variable
        service,  # pyright: ignore[reportArgumentType]
        endpoint_url=settings.aws_endpoint_url,
        aws_access_key_id=secret("aws_access_key_id"),
        aws_secret_access_key=secret("aws_secret_access_key"),
        aws_session_token=secret("aws_session_token"),
        region_name=settings.aws_region,
        config=Config(
            connect_timeout=CONNECT_TIMEOUT_S,
            read_timeout=READ_TIMEOUT_S,
            retries={"mode": "standard", "total_max_attempts": 3},
            max_pool_connections=pool,
            # Links signed the older way are refused by newer regions and for encrypted objects.
            signature_version="s3v4" if service == "s3" else None,
        ),
    )


def s3(settings: Settings) -> "S3Client":
    """S3."""
    return client(settings, "s3")


def sqs(settings: Settings) -> "SQSClient":
    """SQS."""
    return client(settings, "sqs")


def events(settings: Settings) -> "EventBridgeClient":
    """EventBridge."""
    return client(settings, "events")


def cloudwatch(settings: Settings) -> "CloudWatchClient":
    """CloudWatch."""
    return client(settings, "cloudwatch")


def classify(error: BaseException) -> Fault:
    """What may be done about an error of botocore."""
    from botocore.exceptions import (
        BotoCoreError,
        ClientError,
        HTTPClientError,
        NoCredentialsError,
        NoRegionError,
        PartialCredentialsError,
    )
    from botocore.exceptions import (
        ConnectionError as BotoConnectionError,
    )

    if isinstance(error, ClientError):
        code = str(error.response.get("Error", {}).get("Code", ""))
        status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        if code in THROTTLING_CODES or status in {429, 503}:
            return Fault.THROTTLED
        if code in CONFIGURATION_CODES or status in {401, 403}:
            return Fault.CONFIGURATION
        return Fault.TRANSIENT if status >= 500 or code == "RequestTimeout" else Fault.PERMANENT
    if isinstance(error, NoCredentialsError | PartialCredentialsError | NoRegionError):
        return Fault.CONFIGURATION
    if isinstance(error, BotoConnectionError | HTTPClientError):
        return Fault.TRANSIENT
    return Fault.PERMANENT if isinstance(error, BotoCoreError) else Fault.UNKNOWN
