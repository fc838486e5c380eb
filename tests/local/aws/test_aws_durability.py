"""What S3 acknowledged is there after a stop and after kill -9: bytes, names, versions, metadata, configuration."""

import hashlib
import json
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest
from botocore.exceptions import BotoCoreError, ClientError

pytestmark = pytest.mark.integration
Start = Callable[[], Any]
MIB = 1 << 20


def test_objects_come_back_with_bytes_etag_metadata_and_time(start_aws: Start) -> None:
    aws = start_aws()
    bucket = aws.bucket()
    put = aws.s3.put_object(
        Bucket=bucket, Key="a/ü b+c.bin", Body=b"\x00" * 5000, ContentType="x/y", Metadata={"made-by": "me"}
    )
    before = aws.s3.head_object(Bucket=bucket, Key="a/ü b+c.bin")
    aws.process.kill()
    aws = start_aws()
    after = aws.s3.get_object(Bucket=bucket, Key="a/ü b+c.bin")
    assert after["Body"].read() == b"\x00" * 5000
    assert after["ETag"] == put["ETag"]
    assert after["ContentType"] == "x/y"
    assert after["Metadata"] == {"made-by": "me"}
    assert after["LastModified"] == before["LastModified"]


def test_versions_and_delete_markers_come_back_in_order(start_aws: Start) -> None:
    aws = start_aws()
    bucket = aws.bucket(versioned=True)
    ids = [aws.s3.put_object(Bucket=bucket, Key="k", Body=body)["VersionId"] for body in (b"A", b"B", b"A")]
    aws.s3.put_object(Bucket=bucket, Key="hidden", Body=b"x")
    marker = aws.s3.delete_object(Bucket=bucket, Key="hidden")["VersionId"]
    aws.s3.delete_object(Bucket=bucket, Key="k", VersionId=ids[1])
    aws.process.stop()
    aws = start_aws()
    listed = aws.s3.list_object_versions(Bucket=bucket)
    assert [v["VersionId"] for v in listed["Versions"] if v["Key"] == "k"] == [ids[2], ids[0]]
    assert [m["VersionId"] for m in listed["DeleteMarkers"]] == [marker]
    assert aws.s3.get_object(Bucket=bucket, Key="k", VersionId=ids[0])["Body"].read() == b"A"
    with pytest.raises(ClientError, match="NoSuchKey"):
        aws.s3.get_object(Bucket=bucket, Key="hidden")
    aws.s3.delete_object(Bucket=bucket, Key="hidden", VersionId=marker)
    assert aws.s3.get_object(Bucket=bucket, Key="hidden")["Body"].read() == b"x"


def test_copies_overwrites_and_deletes_come_back(start_aws: Start) -> None:
    aws = start_aws()
    bucket = aws.bucket()
    for key in ("kept", "overwritten", "deleted", "deleted-too"):
        aws.s3.put_object(Bucket=bucket, Key=key, Body=key.encode())
    aws.s3.copy_object(Bucket=bucket, Key="copy", CopySource={"Bucket": bucket, "Key": "kept"})
    aws.s3.put_object(Bucket=bucket, Key="overwritten", Body=b"new")
    aws.s3.delete_object(Bucket=bucket, Key="deleted")
    aws.s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "deleted-too"}]})
    aws.process.kill()
    aws = start_aws()
    keys = [entry["Key"] for entry in aws.s3.list_objects_v2(Bucket=bucket)["Contents"]]
    assert keys == ["copy", "kept", "overwritten"]
    assert aws.s3.get_object(Bucket=bucket, Key="copy")["Body"].read() == b"kept"
    assert aws.s3.get_object(Bucket=bucket, Key="overwritten")["Body"].read() == b"new"


def test_a_multipart_upload_survives_before_and_after_its_completion(start_aws: Start) -> None:
    aws = start_aws()
    bucket = aws.bucket()
    upload = aws.s3.create_multipart_upload(Bucket=bucket, Key="big", Metadata={"m": "1"})["UploadId"]
    bodies = [b"1" * (5 * MIB), b"2" * (5 * MIB), b"3" * 100]
    tags = []
    for number, body in enumerate(bodies, 1):
        part = aws.s3.upload_part(Bucket=bucket, Key="big", UploadId=upload, PartNumber=number, Body=body)
        tags.append({"PartNumber": number, "ETag": part["ETag"]})
        if number == 2:
            aws.process.kill()
            aws = start_aws()
    done = aws.s3.complete_multipart_upload(Bucket=bucket, Key="big", UploadId=upload, MultipartUpload={"Parts": tags})
    aws.process.kill()
    aws = start_aws()
    answer = aws.s3.get_object(Bucket=bucket, Key="big")
    assert hashlib.md5(answer["Body"].read()).hexdigest() == hashlib.md5(b"".join(bodies)).hexdigest()
    assert answer["ETag"] == done["ETag"]
    assert answer["ETag"].endswith('-3"')
    assert answer["Metadata"] == {"m": "1"}
    assert "Uploads" not in aws.s3.list_multipart_uploads(Bucket=bucket)
    assert len(list((aws.process.state / "blobs").glob("??/*"))) == 1, "the parts' files are gone after a restart"


def test_bucket_configuration_and_tags_come_back(start_aws: Start) -> None:
    aws = start_aws()
    bucket = aws.bucket(versioned=True, events=True)
    rule = {"ID": "old", "Status": "Enabled", "Filter": {"Prefix": "tmp/"}, "Expiration": {"Days": 3}}
    aws.s3.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": [rule]})
    aws.s3.put_bucket_tagging(Bucket=bucket, Tagging={"TagSet": [{"Key": "owner", "Value": "data"}]})
    aws.s3.put_object(Bucket=bucket, Key="k", Body=b"x", Tagging="a=1")
    aws.s3.put_object_tagging(Bucket=bucket, Key="k", Tagging={"TagSet": [{"Key": "b", "Value": "2"}]})
    emptied = aws.bucket()
    aws.s3.delete_bucket(Bucket=emptied)
    aws.process.kill()
    aws = start_aws()
    assert aws.s3.get_bucket_versioning(Bucket=bucket)["Status"] == "Enabled"
    assert "EventBridgeConfiguration" in aws.s3.get_bucket_notification_configuration(Bucket=bucket)
    assert aws.s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"][0]["ID"] == "old"
    assert aws.s3.get_bucket_tagging(Bucket=bucket)["TagSet"] == [{"Key": "owner", "Value": "data"}]
    assert aws.s3.get_object_tagging(Bucket=bucket, Key="k")["TagSet"] == [{"Key": "b", "Value": "2"}]
    assert [b["Name"] for b in aws.s3.list_buckets()["Buckets"]] == [bucket]


def test_a_queue_whose_dead_letter_queue_was_deleted_comes_back_too(start_aws: Start) -> None:
    aws = start_aws()
    dead = aws.queue()
    redrive = {"deadLetterTargetArn": aws.queue_arn(dead), "maxReceiveCount": 3}
    queue = aws.queue(RedrivePolicy=json.dumps(redrive))
    aws.sqs.delete_queue(QueueUrl=dead)
    aws.process.kill()
    aws = start_aws()
    kept = aws.sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["RedrivePolicy"])["Attributes"]
    assert json.loads(kept["RedrivePolicy"]) == redrive
    aws.sqs.send_message(QueueUrl=queue, MessageBody="{}")
    assert aws.sqs.receive_message(QueueUrl=queue)["Messages"][0]["Body"] == "{}"


def test_queues_come_back_empty_and_rules_still_lead_to_them(start_aws: Start) -> None:
    aws = start_aws()
    bucket = aws.bucket(events=True)
    dead = aws.queue(MessageRetentionPeriod="1209600")
    redrive = {"deadLetterTargetArn": aws.queue_arn(dead), "maxReceiveCount": 1000}
    queue = aws.queue(VisibilityTimeout="61", RedrivePolicy=json.dumps(redrive))
    rule = aws.rule(queue, {"source": ["aws.s3"]})
    aws.sqs.send_message(QueueUrl=queue, MessageBody="{}")
    before = aws.sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["All"])["Attributes"]
    aws.process.kill()
    aws = start_aws()
    after = aws.sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["All"])["Attributes"]
    assert after.pop("ApproximateNumberOfMessages") == "0"
    assert before.pop("ApproximateNumberOfMessages") == "1"
    for attributes in (before, after):
        attributes.pop("LastModifiedTimestamp")
        attributes["RedrivePolicy"] = json.loads(attributes["RedrivePolicy"])
    assert after == before
    aws.s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    assert [event["detail"]["object"]["key"] for event in aws.bodies(queue)] == ["k"]
    aws.events.disable_rule(Name=rule)
    aws.process.kill()
    assert start_aws().events.describe_rule(Name=rule)["State"] == "DISABLED"


def test_secrets_and_alarms_come_back(start_aws: Start) -> None:
    aws = start_aws()
    aws.client("secretsmanager").create_secret(Name="redshift", SecretString="s")
    aws.client("cloudwatch").put_metric_alarm(
        AlarmName="depth",
        Namespace="AWS/SQS",
        MetricName="ApproximateNumberOfMessagesVisible",
        Statistic="Maximum",
        Period=60,
        EvaluationPeriods=1,
        Threshold=100,
        ComparisonOperator="GreaterThanThreshold",
    )
    aws.process.kill()
    aws = start_aws()
    assert aws.client("secretsmanager").get_secret_value(SecretId="redshift")["SecretString"] == "s"
    (alarm,) = aws.client("cloudwatch").describe_alarms()["MetricAlarms"]
    assert (alarm["AlarmName"], alarm["Threshold"]) == ("depth", 100)


def test_every_acknowledged_write_survives_kill_while_four_threads_write(start_aws: Start) -> None:
    aws = start_aws()
    bucket = aws.bucket(versioned=True)
    acknowledged: dict[tuple[str, str], tuple[str, int]] = {}  # (key, version) -> (etag, size)
    deleted: set[str] = set()
    enough = threading.Event()

    def write(worker: int) -> None:
        s3 = aws.client("s3")
        for number in range(100_000):
            size = 200_000 if number % 10 == 0 else 50 + number
            key = f"w{worker}/{number % 40}"
            body = (f"{worker}-{number}-".encode() * size)[:size]
            try:
                put = s3.put_object(Bucket=bucket, Key=key, Body=body)
                acknowledged[key, put["VersionId"]] = (hashlib.md5(body).hexdigest(), size)
                if number % 7 == 0:
                    s3.put_object(Bucket=bucket, Key=f"gone/{worker}/{number}", Body=b"x")
                    s3.delete_object(Bucket=bucket, Key=f"gone/{worker}/{number}")
                    deleted.add(f"gone/{worker}/{number}")
            except (ClientError, BotoCoreError):
                return
            if len(acknowledged) > 250:
                enough.set()

    threads = [threading.Thread(target=write, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    assert enough.wait(60)
    aws.process.kill()
    for thread in threads:
        thread.join()
    aws = start_aws()
    for (key, version), (etag, size) in acknowledged.items():
        answer = aws.s3.get_object(Bucket=bucket, Key=key, VersionId=version)
        body = answer["Body"].read()
        assert (hashlib.md5(body).hexdigest(), len(body)) == (etag, size)
        assert answer["ETag"] == f'"{etag}"'
    alive = {entry["Key"] for entry in aws.s3.list_objects_v2(Bucket=bucket).get("Contents", [])}
    assert deleted
    assert not alive & deleted


def test_thousands_of_objects_load_quickly(start_aws: Start) -> None:
    def cpu_s(engine: Any) -> float:
        """Of the engine since its start: what else runs on the machine does not count."""
        times = psutil.Process(engine.process.pid).cpu_times()
        return times.user + times.system

    aws = start_aws()
    without = cpu_s(aws)
    bucket = aws.bucket()
    for number in range(100):
        aws.s3.put_object(Bucket=bucket, Key=f"{number:05}", Body=b"x", Metadata={"number": str(number)})
    aws.process.stop()
    with closing(sqlite3.connect(aws.process.state / "aws.sqlite")) as database, database:
        for copy in range(60):  # 6,000 more without putting each over HTTP
            database.execute(
                "INSERT INTO versions (bucket, key, blob, tags, state) "
                "SELECT bucket, key || ?, blob, tags, state FROM versions WHERE length(key) = 5",
                (f"-{copy}",),
            )
    aws = start_aws()
    with_objects = cpu_s(aws)
    assert with_objects < 1.6 * without, f"{without:.2f} s of CPU to start, {with_objects:.2f} s with 6,100 objects"
    pages = aws.s3.get_paginator("list_objects_v2").paginate(Bucket=bucket)
    assert sum(page["KeyCount"] for page in pages) == 6100


def test_bytes_stay_on_disk(start_aws: Start) -> None:
    aws = start_aws()
    bucket = aws.bucket()
    body = b"z" * (16 * MIB)
    resident = []
    for number in range(12):
        aws.s3.put_object(Bucket=bucket, Key=f"{number}", Body=body)
        status = Path(f"/proc/{aws.process.pid}/status").read_text()
        resident.append(int(status.split("VmRSS:")[1].split()[0]) // 1024)
    assert resident[-1] - resident[1] < 80, f"160 MiB stored, resident MiB: {resident}"
