"""S3 -> EventBridge -> SQS as AWS does it: which events there are, what they say, who gets them and in what form."""

import json
import statistics
import threading
import time
from typing import Any

import pytest

pytestmark = pytest.mark.integration
MIB = 1 << 20


def created(bucket: str, **detail: Any) -> dict[str, Any]:
    return {
        "source": ["aws.s3"],
        "detail-type": ["Object Created"],
        "detail": {"bucket": {"name": [bucket]}, **detail},
    }


def test_an_event_says_what_aws_says(aws: Any) -> None:
    bucket, queue = aws.bucket(versioned=True, events=True), aws.queue()
    aws.rule(queue, created(bucket))
    put = aws.s3.put_object(Bucket=bucket, Key="market/ü=1/a b.parquet", Body=b"x" * 2000)
    (event,) = aws.bodies(queue)
    assert event["source"] == "aws.s3"
    assert event["resources"] == [f"arn:aws:s3:::{bucket}"]
    assert event["time"].endswith("Z")
    described = event["detail"]["object"]
    assert described == {
        "key": "market/ü=1/a b.parquet",
        "size": 2000,
        "etag": put["ETag"].strip('"'),
        "version-id": put["VersionId"],
        "sequencer": described["sequencer"],
    }
    assert event["detail"]["reason"] == "PutObject"


def test_ids_are_unique_and_sequencers_grow_with_concurrent_writes_of_one_key(aws: Any) -> None:
    bucket, queue = aws.bucket(versioned=True, events=True), aws.queue()
    aws.rule(queue, created(bucket))
    threads = [
        threading.Thread(target=aws.s3.put_object, kwargs={"Bucket": bucket, "Key": "k", "Body": bytes([n])})
        for n in range(10)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    events = aws.bodies(queue, at_least=10)
    assert len({event["id"] for event in events}) == 10
    by_sequencer = sorted((e["detail"]["object"] for e in events), key=lambda o: int(o["sequencer"], 16))
    versions = aws.s3.list_object_versions(Bucket=bucket, Prefix="k")["Versions"]
    assert [o["version-id"] for o in by_sequencer] == [v["VersionId"] for v in reversed(versions)]


def test_one_event_per_action_with_its_reason(aws: Any) -> None:
    bucket, queue = aws.bucket(events=True), aws.queue()
    aws.rule(queue, {"source": ["aws.s3"], "detail": {"bucket": {"name": [bucket]}}})
    upload = aws.s3.create_multipart_upload(Bucket=bucket, Key="big")["UploadId"]
    part = aws.s3.upload_part(Bucket=bucket, Key="big", UploadId=upload, PartNumber=1, Body=b"1" * MIB)
    parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    done = aws.s3.complete_multipart_upload(Bucket=bucket, Key="big", UploadId=upload, MultipartUpload=parts)
    aws.s3.copy_object(Bucket=bucket, Key="copy", CopySource={"Bucket": bucket, "Key": "big"})
    aws.s3.put_object(Bucket=bucket, Key="tagged", Body=b"x", Tagging="a=1")
    aws.s3.delete_object(Bucket=bucket, Key="copy")
    events = aws.bodies(queue, at_least=4)
    assert [(e["detail-type"], e["detail"]["object"]["key"], e["detail"]["reason"]) for e in events] == [
        ("Object Created", "big", "CompleteMultipartUpload"),
        ("Object Created", "copy", "CopyObject"),
        ("Object Created", "tagged", "PutObject"),
        ("Object Deleted", "copy", "DeleteObject"),
    ]
    assert events[0]["detail"]["object"]["etag"] == done["ETag"].strip('"')
    assert "version-id" not in events[0]["detail"]["object"], "the bucket has no versions"
    assert events[3]["detail"]["deletion-type"] == "Permanently Deleted"


def test_a_delete_marker_is_announced(aws: Any) -> None:
    bucket, queue = aws.bucket(versioned=True, events=True), aws.queue()
    aws.rule(queue, {"source": ["aws.s3"], "detail-type": ["Object Deleted"]})
    aws.s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    marker = aws.s3.delete_object(Bucket=bucket, Key="k")["VersionId"]
    (event,) = aws.bodies(queue)
    assert event["detail"]["deletion-type"] == "Delete Marker Created"
    assert event["detail"]["object"]["version-id"] == marker


def test_a_bucket_without_the_setting_sends_nothing(aws: Any) -> None:
    bucket, queue = aws.bucket(), aws.queue()
    aws.rule(queue, created(bucket))
    aws.s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    assert aws.bodies(queue) == []


@pytest.mark.parametrize(
    ("detail", "passing"),
    [
        ({"object": {"key": [{"prefix": "market/"}]}}, {"market/a.parquet", "market/a.csv", "market/big.parquet"}),
        ({"object": {"key": [{"suffix": ".csv"}]}}, {"market/a.csv"}),
        ({"object": {"key": [{"wildcard": "market/*.parquet"}]}}, {"market/a.parquet", "market/big.parquet"}),
        ({"object": {"size": [{"numeric": [">", 1024]}]}}, {"market/big.parquet"}),
        (
            {"object": {"key": [{"wildcard": "*/*.parquet"}], "size": [{"numeric": [">", 0, "<=", 1024]}]}},
            {"market/a.parquet", "customer/a.parquet"},
        ),
        ({"object": {"key": [{"anything-but": {"prefix": "market/"}}]}}, {"customer/a.parquet"}),
        (
            {"object": {"key": [{"anything-but": ["market/a.csv", "market/a.parquet"]}]}},
            {"market/big.parquet", "customer/a.parquet"},
        ),
        ({"reason": [{"anything-but": "PutObject"}]}, set()),
        ({"object": {"version-id": [{"exists": True}]}}, set()),
    ],
)  # fmt: skip
def test_filters(aws: Any, detail: dict[str, Any], passing: set[str]) -> None:
    bucket, queue = aws.bucket(events=True), aws.queue()
    aws.rule(queue, created(bucket, **detail))
    for key, size in {
        "market/a.parquet": 10, "market/a.csv": 10, "market/big.parquet": 2000, "customer/a.parquet": 1024
    }.items():  # fmt: skip
        aws.s3.put_object(Bucket=bucket, Key=key, Body=b"x" * size)
    events = aws.bodies(queue, at_least=len(passing)) if passing else aws.bodies(queue, wait=1)
    assert {event["detail"]["object"]["key"] for event in events} == passing
    assert len(events) == len(passing)


def test_disabled_and_schedule_only_rules_and_queues_without_policy_get_nothing(aws: Any) -> None:
    bucket = aws.bucket(events=True)
    disabled, scheduled, closed, open_ = (aws.queue() for _ in range(4))
    rule = aws.rule(disabled, created(bucket))
    aws.events.disable_rule(Name=rule)
    aws.rule(scheduled, None, ScheduleExpression="rate(1 day)")
    aws.rule(closed, created(bucket), policy=False)
    aws.rule(open_, created(bucket))
    aws.s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    assert len(aws.bodies(open_)) == 1
    assert [aws.bodies(queue, wait=0) for queue in (disabled, scheduled, closed)] == [[], [], []]
    aws.events.enable_rule(Name=rule)
    aws.s3.put_object(Bucket=bucket, Key="k2", Body=b"x")
    assert [event["detail"]["object"]["key"] for event in aws.bodies(disabled)] == ["k2"]


def test_a_policy_for_another_rule_does_not_serve(aws: Any) -> None:
    bucket, queue, other = aws.bucket(events=True), aws.queue(), aws.queue()
    aws.rule(queue, created("no-such-bucket"))  # the policy names this rule
    aws.rule(queue, created(bucket), policy=False)
    aws.rule(other, created(bucket))
    aws.s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    assert len(aws.bodies(other)) == 1
    assert aws.bodies(queue, wait=0) == []


def test_a_missing_queue_fails_neither_the_put_nor_put_events(aws: Any) -> None:
    bucket, gone, queue = aws.bucket(events=True), aws.queue(), aws.queue()
    pattern = {"source": ["aws.s3", "own.source"]}
    aws.rule(gone, pattern)
    aws.rule(queue, pattern)
    aws.sqs.delete_queue(QueueUrl=gone)
    aws.s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    entry = {"Source": "own.source", "DetailType": "t", "Detail": json.dumps({"a": 1})}
    answer = aws.events.put_events(Entries=[entry])
    assert answer["FailedEntryCount"] == 0
    events = aws.bodies(queue, at_least=2)
    assert {event["source"] for event in events} == {"aws.s3", "own.source"}
    own = next(event for event in events if event["source"] == "own.source")
    assert own["id"] == answer["Entries"][0]["EventId"]
    assert own["detail"] == {"a": 1}
    assert "ingestion-time" not in own


def test_the_input_transformer_is_applied(aws: Any) -> None:
    bucket, queue = aws.bucket(events=True), aws.queue()
    paths = {
        "bucket": "$.detail.bucket.name",
        "key": "$.detail.object.key",
        "size": "$.detail.object.size",
        "version": "$.detail.object.version-id",
        "id": "$.id",
        "first": "$.resources[0]",
    }
    template = (
        '{"bucket": <bucket>, "key": <key>, "file_size": <size>, "version_id": <version>, "correlation_id": <id>, '
        '"text": "from <bucket>: <key>", "first": <first>, "rule": <aws.events.rule-name>}'
    )
    transformer = {"InputPathsMap": paths, "InputTemplate": template}
    rule = aws.rule(queue, created(bucket), target={"InputTransformer": transformer})
    aws.s3.put_object(Bucket=bucket, Key='market/"q"/ü.parquet', Body=b"x" * 7)
    (message,) = aws.bodies(queue)
    assert len(message.pop("correlation_id")) == 36
    assert message == {
        "bucket": bucket,
        "key": 'market/"q"/ü.parquet',
        "file_size": 7,
        "version_id": "",
        "text": f'from {bucket}: market/"q"/ü.parquet',
        "first": f"arn:aws:s3:::{bucket}",
        "rule": rule,
    }


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ({"Input": '{"fixed": true}'}, {"fixed": True}),
        ({"InputPath": "$.detail.object.size"}, 3),
        ({"InputTransformer": {"InputPathsMap": {"k": "$.detail.object.key"}, "InputTemplate": '"got <k>"'}}, "got k"),
    ],
)
def test_input_and_input_path_are_applied(aws: Any, target: dict[str, Any], expected: object) -> None:
    bucket, queue = aws.bucket(events=True), aws.queue()
    aws.rule(queue, created(bucket), target=target)
    aws.s3.put_object(Bucket=bucket, Key="k", Body=b"abc")
    assert aws.bodies(queue) == [expected]


def test_events_do_not_slow_puts_and_are_drained_at_once(aws: Any) -> None:
    silent, bucket, queue = aws.bucket(), aws.bucket(events=True), aws.queue()
    aws.rule(queue, created(bucket))

    def seconds_of_a_put(name: str, number: int) -> float:
        begin = time.perf_counter()
        aws.s3.put_object(Bucket=name, Key=f"{number}", Body=b"x")
        return time.perf_counter() - begin

    puts = [(seconds_of_a_put(silent, number), seconds_of_a_put(bucket, number)) for number in range(100)]
    without, with_events = (statistics.median(times) for times in zip(*puts, strict=True))
    begin = time.perf_counter()
    waiting = "0"
    while waiting != "100" and time.perf_counter() - begin < 2:  # 3 ms on an idle machine
        names = ["ApproximateNumberOfMessages"]
        answer = aws.sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=names)
        waiting = answer["Attributes"]["ApproximateNumberOfMessages"]
    assert waiting == "100"
    assert with_events < 3 * without, f"{without:.4f} s without events, {with_events:.4f} s with them"
