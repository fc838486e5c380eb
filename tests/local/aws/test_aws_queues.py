"""SQS standard queues: the life of a message, redrive, long polls, and that depth costs nothing."""

import threading
import time
from typing import Any

import psutil
import pytest
from botocore.exceptions import ClientError

pytestmark = pytest.mark.integration


def send(aws: Any, queue: str, count: int) -> None:
    for start in range(0, count, 10):
        entries = [{"Id": str(n), "MessageBody": str(n)} for n in range(start, min(start + 10, count))]
        aws.sqs.send_message_batch(QueueUrl=queue, Entries=entries)


def receive(aws: Any, queue: str, **options: Any) -> list[dict[str, Any]]:
    return aws.sqs.receive_message(
        QueueUrl=queue, MaxNumberOfMessages=10, AttributeNames=["All"], **options
    ).get("Messages", [])  # fmt: skip


def counts(aws: Any, queue: str) -> tuple[int, int, int]:
    names = [f"ApproximateNumberOfMessages{suffix}" for suffix in ("", "NotVisible", "Delayed")]
    attributes = aws.sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=names)["Attributes"]
    return tuple(int(attributes[name]) for name in names)  # type: ignore[return-value]


def test_a_message_is_hidden_comes_back_and_is_counted(aws: Any) -> None:
    queue = aws.queue(VisibilityTimeout="1")
    send(aws, queue, 1)
    (first,) = receive(aws, queue)
    assert counts(aws, queue) == (0, 1, 0)
    assert receive(aws, queue) == []
    (second,) = receive(aws, queue, WaitTimeSeconds=3)
    assert second["MessageId"] == first["MessageId"]
    assert [m["Attributes"]["ApproximateReceiveCount"] for m in (first, second)] == ["1", "2"]
    assert second["Attributes"]["SentTimestamp"] == first["Attributes"]["SentTimestamp"]
    aws.sqs.delete_message(QueueUrl=queue, ReceiptHandle=first["ReceiptHandle"])
    assert counts(aws, queue) == (0, 1, 0), "an old receipt handle is accepted and deletes nothing"
    aws.sqs.delete_message(QueueUrl=queue, ReceiptHandle=second["ReceiptHandle"])
    assert counts(aws, queue) == (0, 0, 0)
    aws.sqs.delete_message(QueueUrl=queue, ReceiptHandle=second["ReceiptHandle"])


def test_visibility_can_be_extended_and_released(aws: Any) -> None:
    queue = aws.queue(VisibilityTimeout="1")
    send(aws, queue, 2)
    extended, released = receive(aws, queue)
    change = aws.sqs.change_message_visibility
    change(QueueUrl=queue, ReceiptHandle=extended["ReceiptHandle"], VisibilityTimeout=60)
    change(QueueUrl=queue, ReceiptHandle=released["ReceiptHandle"], VisibilityTimeout=0)
    assert [m["MessageId"] for m in receive(aws, queue)] == [released["MessageId"]]
    time.sleep(1.2)
    assert [m["MessageId"] for m in receive(aws, queue)] == [released["MessageId"]], "the extended one stays hidden"
    for handle in (released["ReceiptHandle"], "no handle"):
        with pytest.raises(ClientError, match="ReceiptHandle"):
            change(QueueUrl=queue, ReceiptHandle=handle, VisibilityTimeout=5)


def test_changing_the_queue_leaves_messages_in_flight_alone(aws: Any) -> None:
    queue = aws.queue(VisibilityTimeout="60")
    send(aws, queue, 2)
    receive(aws, queue)
    aws.sqs.set_queue_attributes(QueueUrl=queue, Attributes={"VisibilityTimeout": "0"})
    assert receive(aws, queue) == []
    assert counts(aws, queue) == (0, 2, 0)


def test_setting_one_attribute_keeps_the_others(aws: Any) -> None:
    queue = aws.queue(MessageRetentionPeriod="1209600", Policy='{"Version": "2012-10-17", "Statement": [{"Sid": "s"}]}')
    aws.sqs.set_queue_attributes(QueueUrl=queue, Attributes={"VisibilityTimeout": "7"})
    attributes = aws.sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["All"])["Attributes"]
    assert attributes["MessageRetentionPeriod"] == "1209600"
    assert attributes["VisibilityTimeout"] == "7"
    assert '"Sid": "s"' in attributes["Policy"]


def test_a_message_received_too_often_moves_to_the_dead_letter_queue(aws: Any) -> None:
    dead = aws.queue(MessageRetentionPeriod="1209600")
    policy = f'{{"deadLetterTargetArn": "{aws.queue_arn(dead)}", "maxReceiveCount": "2"}}'
    queue = aws.queue(VisibilityTimeout="0", RedrivePolicy=policy)
    send(aws, queue, 1)
    first = receive(aws, queue)
    assert len(receive(aws, queue)) == 1
    assert receive(aws, queue) == []
    (letter,) = receive(aws, dead)
    assert letter["MessageId"] == first[0]["MessageId"]
    assert letter["Attributes"]["SentTimestamp"] == first[0]["Attributes"]["SentTimestamp"]
    assert counts(aws, queue) == (0, 0, 0)


def test_delayed_messages_appear_when_due_and_purge_empties(aws: Any) -> None:
    queue = aws.queue()
    aws.sqs.send_message(QueueUrl=queue, MessageBody="later", DelaySeconds=1)
    assert counts(aws, queue) == (0, 0, 1)
    assert [m["Body"] for m in receive(aws, queue, WaitTimeSeconds=3)] == ["later"]
    aws.sqs.purge_queue(QueueUrl=queue)
    assert counts(aws, queue) == (0, 0, 0)


def test_a_long_poll_ends_with_the_message_and_costs_nothing_until_then(aws: Any) -> None:
    queue = aws.queue()
    got: list[tuple[float, Any]] = []
    begin = time.monotonic()
    cpu = psutil.Process(aws.process.pid).cpu_times
    before = sum(cpu()[:2])
    polls = [
        threading.Thread(target=lambda: got.append((time.monotonic() - begin, receive(aws, queue, WaitTimeSeconds=3))))
        for _ in range(6)
    ]
    for poll in polls:
        poll.start()
    time.sleep(2)
    used = sum(cpu()[:2]) - before
    send(aws, queue, 1)
    sent = time.monotonic() - begin
    for poll in polls:
        poll.join()
    answers = [messages for _, messages in got]
    assert sorted(len(messages) for messages in answers) == [0, 0, 0, 0, 0, 1]
    assert time.monotonic() - begin >= 2.9, "the empty polls lasted their 3 seconds"
    assert sent < 2.5
    assert used < 0.3, f"{used:.2f} s of CPU for six polls in 2 s"


def test_five_thousand_waiting_messages_cost_nothing(aws: Any) -> None:
    def median_receive(queue: str) -> float:
        took = []
        for _ in range(20):
            begin = time.perf_counter()
            messages = receive(aws, queue)
            took.append(time.perf_counter() - begin)
            assert len(messages) == 10
            aws.sqs.delete_message_batch(
                QueueUrl=queue,
                Entries=[{"Id": str(n), "ReceiptHandle": m["ReceiptHandle"]} for n, m in enumerate(messages)],
            )
        return sorted(took)[10]

    shallow, deep = aws.queue(VisibilityTimeout="60"), aws.queue(VisibilityTimeout="60")
    send(aws, shallow, 200)
    send(aws, deep, 5000)
    few, many = median_receive(shallow), median_receive(deep)
    assert many < 5 * few + 0.02, f"{few * 1000:.1f} ms at 200 waiting, {many * 1000:.1f} ms at 5,000; moto: over 1 s"
    assert counts(aws, deep) == (4800, 0, 0)
    assert [int(m["Body"]) for m in receive(aws, deep)] == list(range(200, 210)), "the oldest come first"


def test_fifo_queues_still_work(aws: Any) -> None:
    url = aws.sqs.create_queue(
        QueueName="order.fifo", Attributes={"FifoQueue": "true", "ContentBasedDeduplication": "true"}
    )["QueueUrl"]
    for body in ("a", "b", "a"):
        aws.sqs.send_message(QueueUrl=url, MessageBody=body, MessageGroupId="g")
    messages = receive(aws, url)
    assert [m["Body"] for m in messages] == ["a", "b"]
    for message in messages:
        aws.sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    assert counts(aws, url) == (0, 0, 0)
