"""AWS: credentials, clock, buckets (a probe object is written, read, listed, removed), queues, rules."""

import contextlib
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from data_platform.catalog import Catalog
from data_platform.clients import aws
from data_platform.errors import Fault, PlatformError
from data_platform.provisioning.aws_calls import AwsClients, connect, naming
from data_platform.provisioning.buckets import bucket_exists
from data_platform.provisioning.checks.finding import PROVISION, Finding, failed, ok, skew_finding, warning
from data_platform.provisioning.routes import Route, routes
from data_platform.settings import Settings

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

PROBE_PREFIX = ".data-platform-doctor/"  # matches no rule's pattern, so no queue hears of it


def check_aws(settings: Settings, catalog: Catalog) -> Iterator[Finding]:
    """Every bucket, queue and rule, at the same time."""
    clients = connect(settings)
    # First, alone: when nobody answers, one line says so instead of one for each bucket and queue.
    yield check_clock(clients.s3, settings.raw_bucket)
    buckets = dict.fromkeys((settings.raw_bucket, settings.curated_bucket, settings.unload_bucket))
    with ThreadPoolExecutor(8) as pool:
        found = [pool.submit(check_bucket, clients.s3, bucket) for bucket in buckets]
        found += [pool.submit(check_route, clients, route) for route in routes(settings, catalog)]
        for future in found:
            yield from future.result()


def check_bucket(s3: "S3Client", bucket: str) -> list[Finding]:
    """Whether the bucket exists, is versioned, and takes, gives, lists and forgets an object."""
    subject = f"bucket {bucket}"
    try:
        with naming("s3", bucket):
            if not bucket_exists(s3, bucket):
                return [failed(subject, "does not exist", PROVISION)]
            with probe(s3, bucket, b"doctor") as key:
                s3.list_objects_v2(Bucket=bucket, Prefix=PROBE_PREFIX, MaxKeys=1)
                s3.get_object(Bucket=bucket, Key=key)["Body"].read()
            versioned = s3.get_bucket_versioning(Bucket=bucket).get("Status") == "Enabled"
    except PlatformError as error:
        return [failed(subject, error.message, error.hint)]
    if not versioned:
        return [warning(subject, "is not versioned; an overwrite could not be told from the first write", PROVISION)]
    return [ok(subject, "can be listed, read, written and deleted from")]


def check_route(clients: AwsClients, route: Route) -> list[Finding]:
    """Whether rule, queue and dead-letter queue are there and readable; dead letters are worth a warning."""
    findings: list[Finding] = []
    try:
        with naming("events", route.rule):
            try:
                enabled = clients.events.describe_rule(Name=route.rule).get("State") == "ENABLED"
            except clients.events.exceptions.ResourceNotFoundException:
                findings.append(failed(f"rule {route.rule}", "does not exist", PROVISION))
            else:
                if not enabled:
                    findings.append(failed(f"rule {route.rule}", "is disabled; no event arrives", PROVISION))
        for queue in (route.queue, route.dlq):
            with naming("sqs", queue):
                findings += _queue(clients, queue, dead_letters=queue == route.dlq)
    except PlatformError as error:
        findings.append(failed(f"queue {route.queue}", error.message, error.hint))
    return findings or [ok(f"queue {route.queue}", "rule, queue and dead-letter queue are in place")]


def check_clock(s3: "S3Client", bucket: str) -> Finding:
    """The clock of S3's answer, whatever the answer is. Raises PlatformError when none comes."""
    from botocore.exceptions import BotoCoreError, ClientError

    answer: Any
    try:
        answer = s3.head_bucket(Bucket=bucket)
    except ClientError as error:
        answer = error.response
    except BotoCoreError as error:
        raise PlatformError(
            f"no answer: {error}",
            hint="check AWS_ENDPOINT_URL, AWS_DEFAULT_REGION, the credentials and the network",
            fault=aws.classify(error),
        ) from error
    date = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
    if date is None:
        return ok("aws", "answers")
    return skew_finding("aws clock", parsedate_to_datetime(date).astimezone(UTC))


@contextlib.contextmanager
def probe(s3: "S3Client", bucket: str, body: bytes, suffix: str = ".txt") -> Generator[str]:
    """An object for the time of the block; yields its key."""
    key = f"{PROBE_PREFIX}{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid4().hex}{suffix}"
    version = s3.put_object(Bucket=bucket, Key=key, Body=body).get("VersionId")
    try:
        yield key
    finally:
        _remove(s3, bucket, key, version)


def _remove(s3: "S3Client", bucket: str, key: str, version: str | None) -> None:
    """The very version, so that nothing stays; a plain delete (a marker) where that right is not granted."""
    from botocore.exceptions import ClientError

    if version is not None and version != "null":
        try:
            s3.delete_object(Bucket=bucket, Key=key, VersionId=version)
        except ClientError as error:
            if aws.classify(error) is not Fault.CONFIGURATION:
                raise
        else:
            return
    s3.delete_object(Bucket=bucket, Key=key)


def _queue(clients: AwsClients, queue: str, *, dead_letters: bool) -> list[Finding]:
    try:
        url = clients.sqs.get_queue_url(QueueName=queue)["QueueUrl"]
    except clients.sqs.exceptions.QueueDoesNotExist:
        return [failed(f"queue {queue}", "does not exist", PROVISION)]
    attributes = clients.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["ApproximateNumberOfMessages"])[
        "Attributes"
    ]
    waiting = int(attributes["ApproximateNumberOfMessages"])
    if dead_letters and waiting:
        return [warning(f"queue {queue}", f"{waiting} dead letters wait for a person", "data-platform dlq list")]
    return []
