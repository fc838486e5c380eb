"""Whose fault a failure is: the object's, or an engine's that is away or denies everything. Asked of the engines."""

from dataclasses import replace
from typing import TYPE_CHECKING

from data_platform.clients import aws
from data_platform.errors import Fault
from data_platform.loading.errors import Code, Diagnosis, System, is_mistake
from data_platform.loading.register import ObjectVersion
from data_platform.loading.warehouse import Warehouse

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

NEIGHBOURS = 5


def examine(warehouse: Warehouse, domain: str, version: ObjectVersion, diagnosis: Diagnosis) -> Diagnosis:
    """The diagnosis with `system` only where that engine is away now, and denial told from denial.

    Access denied to one object while its neighbours can be read is the object's (E007); to all is configuration. A
    bare 404 is the object's unless the bucket is not there.
    """
    if diagnosis.fault is Fault.CONFIGURATION and diagnosis.system is System.S3:
        alone = neighbours_readable(warehouse.s3, version.bucket, f"{domain}/", version.key)
        return Diagnosis(Code.PERMISSION, Fault.PERMANENT, diagnosis.reason) if alone else diagnosis
    if diagnosis.code is Code.GONE and not bucket_there(warehouse.s3, version.bucket, f"{domain}/"):
        return Diagnosis(Code.PERMISSION, Fault.CONFIGURATION, f"no bucket {version.bucket}", System.S3)
    if diagnosis.fault is Fault.TRANSIENT and diagnosis.system is System.S3:
        return replace(diagnosis, system=None) if s3_up(warehouse.s3, version.bucket, f"{domain}/") else diagnosis
    if diagnosis.fault is Fault.TRANSIENT and diagnosis.system is System.CLICKHOUSE:
        return replace(diagnosis, system=None) if clickhouse_up(warehouse) else diagnosis
    return diagnosis


def s3_up(s3: "S3Client", bucket: str, prefix: str) -> bool:
    """Whether S3 answers for the bucket; a denial is an answer."""
    try:
        s3.list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=1)
    except Exception as error:
        fault = aws.classify(error)
        if fault is Fault.UNKNOWN:
            raise
        return fault not in {Fault.TRANSIENT, Fault.THROTTLED}
    return True


def clickhouse_up(warehouse: Warehouse) -> bool:
    """Whether ClickHouse executes a statement."""
    try:
        warehouse.client.command("SELECT 1")
    except Exception as error:
        if is_mistake(error):
            raise
        return False
    return True


def bucket_there(s3: "S3Client", bucket: str, prefix: str) -> bool:
    """Whether the bucket exists; True also where it cannot be asked."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        s3.list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=1)
    except ClientError as error:
        return error.response.get("Error", {}).get("Code") != "NoSuchBucket"
    except BotoCoreError:
        return True
    return True


def neighbours_readable(s3: "S3Client", bucket: str, prefix: str, key: str) -> bool:
    """Whether another object of the domain can be read."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        listed = s3.list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=NEIGHBOURS).get("Contents", [])
    except (ClientError, BotoCoreError):
        return False
    for item in listed:
        other = item.get("Key", "")
        if other == key:
            continue
        try:
            s3.head_object(Bucket=bucket, Key=other)
        except (ClientError, BotoCoreError):
            continue
        return True
    return False
