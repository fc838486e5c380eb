"""Armed faults strike on the wire, where and as often as they were told to, and say so."""

import threading
import time
from typing import Any

import pytest
from botocore.exceptions import (
    ClientError,
    ConnectionClosedError,
    IncompleteReadError,
    ReadTimeoutError,
    ResponseStreamingError,
)

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("no_faults_left")]


@pytest.fixture(scope="module")
def bucket(aws: Any) -> str:
    name = aws.bucket(events=True)
    aws.s3.put_object(Bucket=name, Key="unload/part-0", Body=b"0123456789" * 100)
    return name


@pytest.mark.parametrize(
    ("args", "status", "code"),
    [
        ({}, 500, "InternalError"),
        ({"status": 503}, 503, "SlowDown"),
        ({"status": 403}, 403, "AccessDenied"),
        ({"status": 400, "code": "ExpiredToken", "message": "The provided token has expired."}, 400, "ExpiredToken"),
    ],
)
def test_s3_error(aws: Any, bucket: str, args: dict[str, Any], status: int, code: str) -> None:
    fault = aws.faults.arm("s3.error", match={"method": "GET", "bucket": bucket, "key": "unload/*"}, **args)
    aws.s3.put_object(Bucket=bucket, Key="unload/other", Body=b"x")
    with pytest.raises(ClientError) as caught:
        aws.s3.get_object(Bucket=bucket, Key="unload/part-0")
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == status
    assert caught.value.response["Error"]["Code"] == code
    assert aws.s3.get_object(Bucket=bucket, Key="unload/part-0")["ContentLength"] == 1000
    assert aws.faults.struck(fault) == 1


def test_s3_error_on_a_large_upload_is_an_error_not_a_broken_pipe(aws: Any, bucket: str) -> None:
    fault = aws.faults.arm("s3.error", match={"action": "PutObject"}, status=503)
    with pytest.raises(ClientError, match="SlowDown"):
        aws.s3.put_object(Bucket=bucket, Key="big", Body=b"x" * (9 << 20))
    assert aws.faults.struck(fault) == 1


def test_s3_error_after_the_write_took_effect(aws: Any, bucket: str) -> None:
    aws.faults.arm("s3.error", match={"action": "PutObject"}, when="after")
    with pytest.raises(ClientError, match="InternalError"):
        aws.s3.put_object(Bucket=bucket, Key="unknown-outcome", Body=b"x")
    assert aws.s3.get_object(Bucket=bucket, Key="unknown-outcome")["Body"].read() == b"x"


def test_retries_of_the_client_meet_a_counted_fault(aws: Any, bucket: str) -> None:
    fault = aws.faults.arm("s3.error", match={"key": "unload/part-0"}, times=2, skip=1, status=503)
    s3 = aws.client("s3", retries={"total_max_attempts": 4, "mode": "standard"})
    for _ in range(2):
        assert s3.get_object(Bucket=bucket, Key="unload/part-0")["ContentLength"] == 1000
    assert aws.faults.struck(fault) == 2


@pytest.mark.parametrize("when", ["before", "after"])
def test_s3_delay(aws: Any, bucket: str, when: str) -> None:
    fault = aws.faults.arm("s3.delay", match={"action": "HeadObject"}, seconds=0.5, when=when)
    begin = time.monotonic()
    aws.s3.head_object(Bucket=bucket, Key="unload/part-0")
    assert time.monotonic() - begin >= 0.5
    assert aws.faults.struck(fault) == 1


@pytest.mark.parametrize("when", ["before", "after"])
def test_s3_reset(aws: Any, bucket: str, when: str) -> None:
    fault = aws.faults.arm("s3.reset", match={"action": "PutObject", "key": "reset-*"}, when=when)
    with pytest.raises(ConnectionClosedError, match=r"reset|closed"):
        aws.s3.put_object(Bucket=bucket, Key=f"reset-{when}", Body=b"x")
    assert aws.faults.struck(fault) == 1
    there = "Contents" in aws.s3.list_objects_v2(Bucket=bucket, Prefix=f"reset-{when}")
    assert there is (when == "after")


@pytest.mark.parametrize("size", [0, 300])
def test_s3_truncate_declares_all_and_sends_less(aws: Any, bucket: str, size: int) -> None:
    fault = aws.faults.arm("s3.truncate", match={"action": "GetObject"}, bytes=size)
    answer = aws.s3.get_object(Bucket=bucket, Key="unload/part-0")
    assert answer["ContentLength"] == 1000
    with pytest.raises((IncompleteReadError, ResponseStreamingError)) as caught:
        answer["Body"].read()
    assert str(size) in str(caught.value)
    assert aws.faults.struck(fault) == 1
    assert len(aws.s3.get_object(Bucket=bucket, Key="unload/part-0")["Body"].read()) == 1000


def test_s3_stall_pauses_in_the_middle(aws: Any, bucket: str) -> None:
    fault = aws.faults.arm("s3.stall", match={"action": "GetObject"}, bytes=400, seconds=1.5, times=2)
    begin = time.monotonic()
    assert len(aws.s3.get_object(Bucket=bucket, Key="unload/part-0")["Body"].read()) == 1000
    assert time.monotonic() - begin >= 1.5
    impatient = aws.client("s3", read_timeout=0.5)
    with pytest.raises(ReadTimeoutError):
        impatient.get_object(Bucket=bucket, Key="unload/part-0")["Body"].read()
    assert aws.faults.struck(fault) == 2


def test_sqs_error_delay_and_reset(aws: Any) -> None:
    queue, other = aws.queue(), aws.queue()
    name = queue.rpartition("/")[2]
    error = aws.faults.arm("sqs.error", match={"queue": name, "action": "ReceiveMessage"}, status=503)
    aws.sqs.receive_message(QueueUrl=other)
    aws.sqs.send_message(QueueUrl=queue, MessageBody="x")
    with pytest.raises(ClientError, match="ServiceUnavailable"):
        aws.sqs.receive_message(QueueUrl=queue)
    delay = aws.faults.arm("sqs.delay", match={"queue": name}, seconds=0.4)
    begin = time.monotonic()
    (message,) = aws.sqs.receive_message(QueueUrl=queue)["Messages"]
    assert time.monotonic() - begin >= 0.4
    reset = aws.faults.arm("sqs.reset", match={"action": "DeleteMessage"}, when="after")
    with pytest.raises(ConnectionClosedError):
        aws.sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
    assert [aws.faults.struck(fault) for fault in (error, delay, reset)] == [1, 1, 1]
    attributes = aws.sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["All"])["Attributes"]
    assert attributes["ApproximateNumberOfMessagesNotVisible"] == "0", "the delete took effect"


def test_sqs_duplicate_delivers_the_same_message_again_also_after_its_deletion(aws: Any) -> None:
    queue = aws.queue()
    fault = aws.faults.arm("sqs.duplicate", match={"queue": queue.rpartition("/")[2]}, copies=2, after=1)
    aws.sqs.send_message(QueueUrl=queue, MessageBody="x")
    (first,) = aws.sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10)["Messages"]
    aws.sqs.delete_message(QueueUrl=queue, ReceiptHandle=first["ReceiptHandle"])
    again = aws.sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10, WaitTimeSeconds=3)["Messages"]
    assert [m["MessageId"] for m in again] == [first["MessageId"]] * 2
    assert len({m["ReceiptHandle"] for m in (first, *again)}) == 3
    assert aws.faults.struck(fault) == 1


def test_sqs_reorder_lets_later_messages_overtake(aws: Any) -> None:
    queue = aws.queue()
    fault = aws.faults.arm("sqs.reorder", match={"body": "*first*"}, seconds=0.5)
    for body in ("the first", "the second"):
        aws.sqs.send_message(QueueUrl=queue, MessageBody=body)
    bodies = []
    while len(bodies) < 2:
        bodies += [m["Body"] for m in aws.sqs.receive_message(QueueUrl=queue, WaitTimeSeconds=2)["Messages"]]
    assert bodies == ["the second", "the first"]
    assert aws.faults.struck(fault) == 1


def test_events_are_dropped_and_duplicated_per_rule_and_key(aws: Any, bucket: str) -> None:
    queue = aws.queue()
    rule = aws.rule(queue, {"source": ["aws.s3"], "detail": {"bucket": {"name": [bucket]}}})
    drop = aws.faults.arm("events.drop", match={"rule": rule, "key": "lost"})
    double = aws.faults.arm("events.duplicate", match={"rule": rule, "key": "twice"}, copies=1)
    for key in ("lost", "once", "twice"):
        aws.s3.put_object(Bucket=bucket, Key=key, Body=b"x")
    events = aws.bodies(queue, at_least=3)
    assert [event["detail"]["object"]["key"] for event in events] == ["once", "twice", "twice"]
    assert events[1]["id"] == events[2]["id"]
    assert [aws.faults.struck(fault) for fault in (drop, double)] == [1, 1]


def test_an_unknown_kind_is_refused_and_clear_disarms(aws: Any, bucket: str) -> None:
    with pytest.raises(ValueError, match=r"s3\.truncate"):
        aws.faults.arm("s3.explode")
    aws.faults.arm("s3.error", times=None)
    aws.faults.clear()
    assert aws.s3.get_object(Bucket=bucket, Key="unload/part-0")["ContentLength"] == 1000


def test_faults_of_one_key_leave_parallel_calls_alone(aws: Any, bucket: str) -> None:
    aws.faults.arm("s3.delay", match={"key": "slow"}, seconds=2)
    slow = threading.Thread(target=aws.s3.put_object, kwargs={"Bucket": bucket, "Key": "slow", "Body": b"x"})
    slow.start()
    time.sleep(0.1)
    aws.s3.put_object(Bucket=bucket, Key="fast", Body=b"x")
    assert slow.is_alive()
    slow.join()
