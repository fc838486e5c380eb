"""The three buckets: versioned, encrypted, closed to the public, with events and life cycles.

What operators added (other lifecycle rules, notifications, KMS keys) stays. Objects are nobody's business here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from data_platform.clients.athena import RESULTS
from data_platform.provisioning.aws_calls import error_code, naming
from data_platform.provisioning.report import Recorder
from data_platform.settings import Settings

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

UNLOAD_PREFIX = "unload-results/"
UNLOAD_DAYS = 7
QUERY_RESULT_DAYS = 7
NONCURRENT_DAYS = 30  # a month to notice an overwrite that should not have been
MULTIPART_DAYS = 7
MISSING = frozenset(
    {"ServerSideEncryptionConfigurationNotFoundError", "NoSuchPublicAccessBlockConfiguration",
     "NoSuchLifecycleConfiguration"}
)  # fmt: skip

TEMPORARY_FILES: dict[str, Any] = {
    "ID": "TemporaryFiles",
    "Status": "Enabled",
    "Filter": {"Prefix": UNLOAD_PREFIX},
    "Expiration": {"Days": UNLOAD_DAYS},
    "NoncurrentVersionExpiration": {"NoncurrentDays": 1},
    "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 1},
}
# Every answer of a SELECT lies here once more than anybody reads it.
QUERY_RESULTS: dict[str, Any] = {
    "ID": "QueryResults",
    "Status": "Enabled",
    "Filter": {"Prefix": RESULTS},
    "Expiration": {"Days": QUERY_RESULT_DAYS},
    "NoncurrentVersionExpiration": {"NoncurrentDays": 1},
}
HOUSEKEEPING: dict[str, Any] = {
    "ID": "Housekeeping",
    "Status": "Enabled",
    "Filter": {"Prefix": ""},
    "NoncurrentVersionExpiration": {"NoncurrentDays": NONCURRENT_DAYS},
    "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": MULTIPART_DAYS},
}


@dataclass(frozen=True)
class BucketPlan:
    """What one bucket must have beyond what all have."""

    name: str
    temporary_files: bool = False  # UNLOAD results expire
    query_results: bool = False  # Athena's result files expire


@dataclass(frozen=True)
class Aspect:
    """One configuration of a bucket: how to read it, what it should be given what it is, how to write it."""

    name: str
    read: Callable[["S3Client", str], Any]
    wanted: Callable[[Any], Any]
    write: Callable[["S3Client", str, Any], object]


def bucket_plans(settings: Settings) -> tuple[BucketPlan, ...]:
    """The buckets of the settings; two roles may share one bucket."""
    names = sorted({settings.raw_bucket, settings.curated_bucket, settings.unload_bucket})
    return tuple(
        BucketPlan(
            name,
            temporary_files=name == settings.unload_bucket,
            query_results=settings.athena_output is None and name == settings.curated_bucket,
        )
        for name in names
    )


def provision_bucket(s3: "S3Client", plan: BucketPlan, recorder: Recorder) -> None:
    """Make the bucket and put its configuration right. Raises PlatformError naming the action that is not allowed."""
    with naming("s3", plan.name):
        if not bucket_exists(s3, plan.name):
            recorder.change("bucket", plan.name, "create", lambda: _create(s3, plan.name))
            if recorder.dry_run:
                return
        for aspect in _aspects(plan):
            current = _read(s3, plan.name, aspect)
            wanted = aspect.wanted(current)
            if wanted != current:
                recorder.change(
                    f"bucket {aspect.name}",
                    plan.name,
                    "update",
                    lambda aspect=aspect, wanted=wanted: aspect.write(s3, plan.name, wanted),
                )


def lifecycle_rules(current: list[dict[str, Any]], plan: BucketPlan) -> list[dict[str, Any]]:
    """The rules with ours in force; a rule that already says what ours says is left as the service spells it."""
    wanted = list(current)
    expiring = [
        rule for rule, here in ((TEMPORARY_FILES, plan.temporary_files), (QUERY_RESULTS, plan.query_results)) if here
    ]
    for ours in (HOUSEKEEPING, *expiring):
        theirs = next((rule for rule in wanted if rule.get("ID") == ours["ID"]), None)
        if theirs is None:
            wanted.append(ours)
        elif any(theirs.get(key) != value for key, value in ours.items()):
            wanted[wanted.index(theirs)] = ours
    return wanted


def _aspects(plan: BucketPlan) -> tuple[Aspect, ...]:
    return (_VERSIONING, _ENCRYPTION, _PUBLIC_ACCESS, _lifecycle(plan), _EVENTS)


def _read(s3: "S3Client", bucket: str, aspect: Aspect) -> Any:
    from botocore.exceptions import ClientError

    try:
        return aspect.read(s3, bucket)
    except ClientError as error:
        if error_code(error) in MISSING:
            return None
        raise


def bucket_exists(s3: "S3Client", bucket: str) -> bool:
    """Whether the bucket is there; a denial raises botocore's ClientError."""
    from botocore.exceptions import ClientError

    try:
        s3.head_bucket(Bucket=bucket)
    except ClientError as error:
        if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") == 404:
            return False
        raise
    return True


def _create(s3: "S3Client", bucket: str) -> None:
    region = s3.meta.region_name
    try:
        if region == "us-east-1":  # the one region S3 refuses as a LocationConstraint
            s3.create_bucket(Bucket=bucket)
        else:
            s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": region})  # pyright: ignore[reportArgumentType] - a variable
    except s3.exceptions.BucketAlreadyOwnedByYou:
        return  # another provisioning run made it in between


_VERSIONING = Aspect(
    "versioning",
    read=lambda s3, bucket: s3.get_bucket_versioning(Bucket=bucket).get("Status"),
    wanted=lambda _current: "Enabled",
    write=lambda s3, bucket, status: s3.put_bucket_versioning(
        Bucket=bucket, VersioningConfiguration={"Status": status}
    ),
)


def _algorithm(s3: "S3Client", bucket: str) -> str | None:
    rules = s3.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]["Rules"]
    return next((rule.get("ApplyServerSideEncryptionByDefault", {}).get("SSEAlgorithm") for rule in rules), None)


_ENCRYPTION = Aspect(
    "encryption",
    read=_algorithm,
    wanted=lambda current: current or "AES256",  # a KMS key somebody chose is stronger: it stays
    write=lambda s3, bucket, algorithm: s3.put_bucket_encryption(
        Bucket=bucket,
        ServerSideEncryptionConfiguration={
            "Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": algorithm}}]
        },
    ),
)

_PUBLIC_ACCESS = Aspect(
    "public access block",
    read=lambda s3, bucket: dict(s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"]),
    wanted=lambda _current: {
        "BlockPublicAcls": True,
        "IgnorePublicAcls": True,
        "BlockPublicPolicy": True,
        "RestrictPublicBuckets": True,
    },
    write=lambda s3, bucket, block: s3.put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration=block),
)


def _lifecycle(plan: BucketPlan) -> Aspect:
    return Aspect(
        "life cycle",
        read=lambda s3, bucket: s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"],
        wanted=lambda current: lifecycle_rules(current or [], plan),
        write=lambda s3, bucket, rules: s3.put_bucket_lifecycle_configuration(
            Bucket=bucket, LifecycleConfiguration={"Rules": rules}
        ),
    )


def _notifications(s3: "S3Client", bucket: str) -> dict[str, Any]:
    answer = dict(s3.get_bucket_notification_configuration(Bucket=bucket))
    return {key: value for key, value in answer.items() if key != "ResponseMetadata"}


_EVENTS = Aspect(
    "events",
    read=_notifications,
    # The call replaces the whole configuration: what others subscribed is carried over.
    wanted=lambda current: {**(current or {}), "EventBridgeConfiguration": {}},
    write=lambda s3, bucket, configuration: s3.put_bucket_notification_configuration(
        Bucket=bucket, NotificationConfiguration=configuration
    ),
)
