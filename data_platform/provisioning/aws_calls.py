"""The AWS clients of one provisioning run, and what a refused call means to a person.

No step of provisioning lives here.
"""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from data_platform.clients import aws
from data_platform.errors import Fault, PlatformError
from data_platform.settings import Settings

if TYPE_CHECKING:
    from botocore.exceptions import ClientError
    from mypy_boto3_cloudwatch import CloudWatchClient
    from mypy_boto3_events import EventBridgeClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sqs import SQSClient

# Operations whose IAM action has another name (Service Authorization Reference, Amazon S3).
IAM_ACTIONS = {
    "HeadBucket": "ListBucket",
    "ListObjectsV2": "ListBucket",
    "HeadObject": "GetObject",
    "GetBucketEncryption": "GetEncryptionConfiguration",
    "PutBucketEncryption": "PutEncryptionConfiguration",
    "GetBucketLifecycleConfiguration": "GetLifecycleConfiguration",
    "PutBucketLifecycleConfiguration": "PutLifecycleConfiguration",
    "GetBucketNotificationConfiguration": "GetBucketNotification",
    "PutBucketNotificationConfiguration": "PutBucketNotification",
    "GetPublicAccessBlock": "GetBucketPublicAccessBlock",
    "PutPublicAccessBlock": "PutBucketPublicAccessBlock",
}


@dataclass(frozen=True)
class AwsClients:
    """One client a service."""

    s3: "S3Client"
    sqs: "SQSClient"
    events: "EventBridgeClient"
    cloudwatch: "CloudWatchClient"


def connect(settings: Settings) -> AwsClients:
    """Make the clients; nothing is called yet."""
    return AwsClients(
        s3=aws.s3(settings), sqs=aws.sqs(settings), events=aws.events(settings), cloudwatch=aws.cloudwatch(settings)
    )


def error_code(error: "ClientError") -> str:
    """The service's code of an error, e.g. `NoSuchBucket`."""
    return str(error.response.get("Error", {}).get("Code", ""))


@contextmanager
def naming(service: str, resource: str) -> Generator[None]:
    """Turn what botocore raises inside into a PlatformError that names the IAM action and the resource."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        fault = aws.classify(error)
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        operation = error.operation_name
        action = f"{service}:{IAM_ACTIONS.get(operation, operation)}"
        if status in {401, 403} or error_code(error).startswith("AccessDenied"):
            raise PlatformError(
                f"not allowed: {action} on {resource} ({error_code(error)})",
                hint="allow the action in the IAM policy of whoever provisions, or check AWS_ACCESS_KEY_ID",
                fault=Fault.CONFIGURATION,
            ) from error
        message = error.response.get("Error", {}).get("Message", str(error))
        raise PlatformError(f"{action} on {resource} failed: {message} ({error_code(error)})", fault=fault) from error
    except BotoCoreError as error:
        raise PlatformError(
            f"{service}: {resource} could not be reached: {error}",
            hint="check AWS_ENDPOINT_URL, AWS_DEFAULT_REGION and the credentials: data-platform doctor",
            fault=aws.classify(error),
        ) from error
