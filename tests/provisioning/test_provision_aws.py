"""Buckets, queues, rules and alarms on the embedded cloud: made once, put right after drift, events delivered."""

import json
import time
import uuid
from typing import Any

import pytest
from botocore.exceptions import ClientError

from data_platform.clients import aws
from data_platform.errors import Fault, PlatformError
from data_platform.provisioning import Change, provision
from data_platform.settings import Settings

pytestmark = pytest.mark.integration
AWS = ("aws",)


def queue_url(settings: Settings, name: str) -> str:
    return aws.sqs(settings).get_queue_url(QueueName=f"{settings.env}-{name}")["QueueUrl"]


def attributes(settings: Settings, name: str) -> dict[str, str]:
    return dict(
        aws.sqs(settings).get_queue_attributes(QueueUrl=queue_url(settings, name), AttributeNames=["All"])["Attributes"]
    )


def receive(settings: Settings, name: str, *, wait_s: float = 5.0) -> list[dict[str, Any]]:
    """What the queue holds within `wait_s` seconds, until it is quiet."""
    sqs, url, bodies = aws.sqs(settings), queue_url(settings, name), []
    deadline = time.monotonic() + wait_s
    while time.monotonic() < deadline:
        messages = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=1).get("Messages", [])
        if bodies and not messages:
            break
        bodies += [json.loads(message["Body"]) for message in messages]
    return bodies


def test_everything_is_made_once(fresh: Settings) -> None:
    first = provision(fresh, only=AWS)
    kinds = [change.kind for change in first.changes if change.action == "create"]
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {
        "bucket": 3, "queue": 14, "rule": 7, "target": 7, "alarm": 15,
    }  # fmt: skip
    assert provision(fresh, only=AWS).changes == ()


def test_a_dry_run_tells_what_would_be_made_and_makes_nothing(fresh: Settings) -> None:
    lines: list[str] = []
    planned = provision(fresh, only=AWS, dry_run=True, report=lines.append)
    assert Change("bucket", fresh.raw_bucket, "create") in planned.changes
    assert f"would create queue {fresh.env}-market-load-queue" in lines
    with pytest.raises(ClientError, match="queue does not exist"):
        queue_url(fresh, "market-load-queue")
    created = {change for change in planned.changes if change.action == "create"}
    assert created == {change for change in provision(fresh, only=AWS).changes if change.action == "create"}


def test_buckets_are_versioned_encrypted_closed_and_tidied(fresh: Settings) -> None:
    provision(fresh, only=AWS)
    s3 = aws.s3(fresh)
    for bucket in (fresh.raw_bucket, fresh.curated_bucket, fresh.unload_bucket):
        assert s3.get_bucket_versioning(Bucket=bucket)["Status"] == "Enabled"
        rule = s3.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]["Rules"][0]
        assert rule["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] == "AES256"
        assert set(s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"].values()) == {True}
    rules = {rule["ID"]: rule for rule in s3.get_bucket_lifecycle_configuration(Bucket=fresh.unload_bucket)["Rules"]}
    temporary = rules["TemporaryFiles"]
    assert temporary["Filter"] == {"Prefix": "unload-results/"}
    assert temporary["Expiration"] == {"Days": 7}
    assert temporary["AbortIncompleteMultipartUpload"]["DaysAfterInitiation"] == 1
    assert temporary["NoncurrentVersionExpiration"]["NoncurrentDays"] == 1
    raw = s3.get_bucket_lifecycle_configuration(Bucket=fresh.raw_bucket)["Rules"]
    assert [rule["ID"] for rule in raw] == ["Housekeeping"]
    assert "Expiration" not in raw[0]  # raw data is never deleted by a life cycle


def test_queues_keep_14_days_and_let_only_their_rule_send(fresh: Settings) -> None:
    provision(fresh, only=AWS)
    for stem in ("market-load", "user-statistics"):
        queue, dlq = attributes(fresh, f"{stem}-queue"), attributes(fresh, f"{stem}-dlq")
        assert queue["MessageRetentionPeriod"] == dlq["MessageRetentionPeriod"] == str(14 * 24 * 3600)
        assert (queue["VisibilityTimeout"], queue["SqsManagedSseEnabled"]) == ("60", "true")
        assert json.loads(queue["RedrivePolicy"]) == {
            "deadLetterTargetArn": dlq["QueueArn"], "maxReceiveCount": 1000,
        }  # fmt: skip
        (statement,) = json.loads(queue["Policy"])["Statement"]
        rule = aws.events(fresh).describe_rule(Name=f"{fresh.env}-{stem}-rule")["Arn"]
        assert statement["Principal"] == {"Service": "events.amazonaws.com"}
        assert statement["Condition"] == {"ArnEquals": {"aws:SourceArn": rule}}
        assert "Policy" not in dlq


def test_curated_objects_reach_the_queue_of_their_domain_only(fresh: Settings) -> None:
    provision(fresh, only=AWS)
    s3 = aws.s3(fresh)
    body = b"x" * 2000
    key = "market/flights/ds=2013-01-01/part-0.parquet"
    s3.put_object(Bucket=fresh.curated_bucket, Key="market/flights/ds=2013-01-01/small.parquet", Body=b"x" * 1024)
    s3.put_object(Bucket=fresh.curated_bucket, Key="market/flights/ds=2013-01-01/_manifest.json", Body=body)
    s3.put_object(Bucket=fresh.raw_bucket, Key=key, Body=body)
    s3.put_object(Bucket=fresh.curated_bucket, Key=key, Body=body)
    (message,) = receive(fresh, "market-load-queue")
    assert (message["bucket"], message["key"], message["file_size"]) == (fresh.curated_bucket, key, 2000)
    assert uuid.UUID(message["correlation_id"])
    assert receive(fresh, "customer-load-queue", wait_s=0.1) == []


def test_csv_drops_reach_the_statistics_queue(fresh: Settings) -> None:
    provision(fresh, only=AWS)
    s3 = aws.s3(fresh)
    for key in ("incoming/a.csv", "incoming/b.csv.gz", "incoming/c.txt", "elsewhere/d.csv"):
        s3.put_object(Bucket=fresh.raw_bucket, Key=key, Body=b"1")  # of any size
    messages = receive(fresh, "user-statistics-queue")
    assert sorted(message["key"] for message in messages) == ["incoming/a.csv", "incoming/b.csv.gz"]


def test_event_logs_reach_their_queue(fresh: Settings) -> None:
    provision(fresh, only=AWS)
    s3 = aws.s3(fresh)
    log = "otel-logs/year=2024/month=03/day=01/hour=00/logs.json"
    for key in (log, "event-index/otel-logs/year=2024/month=03.json", "rejected/otel-logs/a.jsonl", "otel-logs2/a"):
        s3.put_object(Bucket=fresh.raw_bucket, Key=key, Body=b"1")
    assert [message["key"] for message in receive(fresh, "event-logs-queue")] == [log]


def test_what_drifted_is_put_right_and_nothing_else_is_touched(fresh: Settings) -> None:
    provision(fresh, only=AWS)
    s3, sqs, events, cloudwatch = aws.s3(fresh), aws.sqs(fresh), aws.events(fresh), aws.cloudwatch(fresh)
    rule, queue = f"{fresh.env}-market-load-rule", f"{fresh.env}-market-load-queue"
    alarm = f"{fresh.env}-LoadDLQMessages"
    s3.put_bucket_versioning(Bucket=fresh.raw_bucket, VersioningConfiguration={"Status": "Suspended"})
    s3.put_bucket_notification_configuration(Bucket=fresh.curated_bucket, NotificationConfiguration={})
    sqs.set_queue_attributes(QueueUrl=queue_url(fresh, "market-load-queue"), Attributes={"VisibilityTimeout": "5"})
    events.disable_rule(Name=rule)
    events.remove_targets(Rule=rule, Ids=[queue])
    cloudwatch.delete_alarms(AlarmNames=[alarm])
    assert set(provision(fresh, only=AWS).changes) == {
        Change("bucket versioning", fresh.raw_bucket, "update"),
        Change("bucket events", fresh.curated_bucket, "update"),
        Change("queue VisibilityTimeout", queue, "update"),
        Change("rule", rule, "update"),
        Change("target", queue, "create"),
        Change("alarm", alarm, "create"),
    }
    assert provision(fresh, only=AWS).changes == ()


def test_what_operators_added_stays(fresh: Settings) -> None:
    provision(fresh, only=AWS)
    s3, sqs, bucket = aws.s3(fresh), aws.sqs(fresh), fresh.unload_bucket
    theirs: Any = {"ID": "Audit", "Status": "Enabled", "Filter": {"Prefix": "audit/"}, "Expiration": {"Days": 400}}
    s3.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": [theirs]})
    kms: Any = {"Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": "k"}}]}
    s3.put_bucket_encryption(Bucket=bucket, ServerSideEncryptionConfiguration=kms)
    audit = attributes(fresh, "market-load-dlq")["QueueArn"]
    subscribed: Any = {"QueueConfigurations": [{"Id": "audit", "QueueArn": audit, "Events": ["s3:ObjectRemoved:*"]}]}
    s3.put_bucket_notification_configuration(Bucket=fresh.curated_bucket, NotificationConfiguration=subscribed)
    sqs.set_queue_attributes(
        QueueUrl=queue_url(fresh, "market-load-queue"), Attributes={"KmsMasterKeyId": "alias/ours"}
    )
    kinds = [change.kind for change in provision(fresh, only=AWS).changes]
    assert sorted(kinds) == ["bucket events", "bucket life cycle"]
    found = s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]
    assert {rule["ID"] for rule in found} == {"Audit", "TemporaryFiles", "Housekeeping"}
    notifications = s3.get_bucket_notification_configuration(Bucket=fresh.curated_bucket)
    assert [entry["Id"] for entry in notifications.get("QueueConfigurations", [])] == ["audit"]
    assert provision(fresh, only=AWS).changes == ()


@pytest.mark.security
def test_a_refused_action_is_named_with_its_resource(cloud: Any, fresh: Settings) -> None:
    faults = cloud.faults("aws")
    fault = faults.arm("s3.error", match={"bucket": fresh.raw_bucket, "method": "PUT"}, times=None, status=403)
    try:
        with pytest.raises(PlatformError) as caught:
            provision(fresh, only=AWS)
        assert faults.struck(fault) >= 1
    finally:
        faults.clear()
    assert f"not allowed: s3:CreateBucket on {fresh.raw_bucket}" in str(caught.value)
    assert caught.value.fault is Fault.CONFIGURATION
    # the other parts were made all the same, and a second run finishes the work
    assert {change.name for change in provision(fresh, only=AWS).changes} == {fresh.raw_bucket}


@pytest.mark.security
def test_two_refusals_are_told_at_once(cloud: Any, fresh: Settings) -> None:
    faults = cloud.faults("aws")
    bucket = faults.arm("s3.error", match={"bucket": fresh.unload_bucket}, times=None, status=403)
    queue = faults.arm("sqs.error", match={"queue": f"{fresh.env}-market-load-dlq"}, times=None, status=403)
    try:
        with pytest.raises(PlatformError) as caught:
            provision(fresh, only=AWS)
        assert faults.struck(bucket) >= 1
        assert faults.struck(queue) >= 1
    finally:
        faults.clear()
    assert fresh.unload_bucket in str(caught.value)
    assert f"{fresh.env}-market-load-dlq" in str(caught.value)
