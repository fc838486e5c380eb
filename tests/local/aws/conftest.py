"""One `aws` engine per test module, and boto3 clients that neither retry nor share anything with the environment."""

import itertools
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

from data_platform.local.process import EngineProcess

_numbers = itertools.count(1)


@dataclass
class Aws:
    """The engine with its clients."""

    process: EngineProcess
    _clients: dict[str, Any] = field(default_factory=dict)

    def client(self, service: str, **config: Any) -> Any:
        env = self.process.env
        return boto3.client(
            service,
            endpoint_url=env["AWS_ENDPOINT_URL"],
            aws_access_key_id=env["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=env["AWS_SECRET_ACCESS_KEY"],
            region_name=env["AWS_DEFAULT_REGION"],
            config=Config(
                **{"retries": {"total_max_attempts": 1}, "read_timeout": 30, "max_pool_connections": 20} | config
            ),
        )

    def __getattr__(self, service: str) -> Any:
        if service not in {"s3", "sqs", "events"}:
            raise AttributeError(service)
        return self._clients.setdefault(service, self.client(service))

    @property
    def faults(self) -> Any:
        return self.process.faults

    def bucket(self, *, versioned: bool = False, events: bool = False) -> str:
        name = f"bucket-{next(_numbers)}"
        self.s3.create_bucket(Bucket=name)
        if versioned:
            self.s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
        if events:
            self.s3.put_bucket_notification_configuration(
                Bucket=name, NotificationConfiguration={"EventBridgeConfiguration": {}}
            )
        return name

    def queue(self, **attributes: str) -> str:
        return self.sqs.create_queue(QueueName=f"queue-{next(_numbers)}", Attributes=attributes)["QueueUrl"]

    def queue_arn(self, url: str) -> str:
        answer = self.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
        return answer["Attributes"]["QueueArn"]

    def rule(self, queue: str, pattern: dict[str, Any] | None, *, policy: bool = True, **options: Any) -> str:
        """A rule that sends what matches to the queue; `target` adds fields to the target."""
        name = f"rule-{next(_numbers)}"
        target = options.pop("target", {})
        if pattern is not None:
            options["EventPattern"] = json.dumps(pattern)
        rule_arn = self.events.put_rule(Name=name, **options)["RuleArn"]
        arn = self.queue_arn(queue)
        self.events.put_targets(Rule=name, Targets=[{"Id": "queue", "Arn": arn, **target}])
        if policy:
            statement = {
                "Effect": "Allow",
                "Principal": {"Service": "events.amazonaws.com"},
                "Action": "sqs:SendMessage",
                "Resource": arn,
                "Condition": {"ArnEquals": {"aws:SourceArn": rule_arn}},
            }
            document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
            self.sqs.set_queue_attributes(QueueUrl=queue, Attributes={"Policy": document})
        return name

    def bodies(self, queue: str, *, wait: int = 1, at_least: int = 1) -> list[Any]:
        """Receive and delete until `at_least` messages came or a poll of `wait` seconds stays empty."""
        found: list[Any] = []
        while True:
            messages = self.sqs.receive_message(
                QueueUrl=queue, MaxNumberOfMessages=10, WaitTimeSeconds=wait if len(found) < at_least else 0
            ).get("Messages", [])
            if not messages:
                return found
            for message in messages:
                found.append(json.loads(message["Body"]))
                self.sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aws]:
    """A running engine of this module's own."""
    process = EngineProcess.with_free_ports("aws", tmp_path_factory.mktemp("aws")).start()
    yield Aws(process)
    process.stop()


@pytest.fixture
def no_faults_left(aws: Aws) -> Iterator[None]:
    """Disarm what a test armed."""
    yield
    aws.faults.clear()


@pytest.fixture
def start_aws(tmp_path: Path) -> Iterator[Callable[[], Aws]]:
    """Start engines on one state folder and port, for tests that stop or kill them."""
    started = EngineProcess.with_free_ports("aws", tmp_path / "state")

    def start() -> Aws:
        begin = time.monotonic()
        started.start()
        assert time.monotonic() - begin < 10
        return Aws(started)

    yield start
    started.kill()
