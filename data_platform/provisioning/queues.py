"""One route on AWS: rule, queue with dead-letter queue and policy, target. Which routes there are: routes.py."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from data_platform.errors import PlatformError
from data_platform.provisioning.aws_calls import AwsClients, naming
from data_platform.provisioning.report import Recorder
from data_platform.provisioning.routes import Route

if TYPE_CHECKING:
    from mypy_boto3_events import EventBridgeClient
    from mypy_boto3_sqs import SQSClient

RETENTION_S = 14 * 24 * 3600  # the most SQS keeps: a long weekend's outage must not cost a message
VISIBILITY_S = 60
LONG_POLL_S = 20
# Only a net: the consumers count attempts themselves, and an outage must not dead-letter good messages.
MAX_RECEIVE_COUNT = 1000
DRY_RUN_ACCOUNT = "000000000000"  # stands in ARNs of what a dry run has not made


def provision_route(clients: AwsClients, route: Route, recorder: Recorder) -> None:
    """Make or put right everything of one route. Raises PlatformError naming the action that is not allowed."""
    with naming("events", route.rule):
        rule_arn = _rule(clients.events, route, recorder)
    with naming("sqs", route.dlq):
        _, dlq_arn = _queue(clients.sqs, route.dlq, base_attributes(), recorder)
    with naming("sqs", route.queue):
        queue_arn = _main_queue(clients.sqs, route, rule_arn, dlq_arn, recorder)
    with naming("events", route.rule):
        _target(clients.events, route, queue_arn, recorder)


def base_attributes() -> dict[str, Any]:
    """Attributes of a queue and of its dead-letter queue alike."""
    return {
        "MessageRetentionPeriod": RETENTION_S,
        "VisibilityTimeout": VISIBILITY_S,
        "ReceiveMessageWaitTimeSeconds": LONG_POLL_S,
        "SqsManagedSseEnabled": "true",
    }


def queue_policy(queue_arn: str, rule_arn: str) -> dict[str, Any]:
    """EventBridge may send to the queue, on behalf of this one rule only."""
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Sid": "EventBridgeRule",
                "Effect": "Allow",
                "Principal": {"Service": "events.amazonaws.com"},
                "Action": "sqs:SendMessage",
                "Resource": queue_arn,
                "Condition": {"ArnEquals": {"aws:SourceArn": rule_arn}},
            }
        ],
    }


def differing(current: Mapping[str, str], wanted: Mapping[str, Any]) -> dict[str, str]:
    """The attributes to set, as SQS takes them; JSON is compared by meaning, a KMS key somebody chose stays."""
    attributes: dict[str, str] = {}
    for name, value in wanted.items():
        if name == "SqsManagedSseEnabled" and current.get("KmsMasterKeyId"):
            continue
        structured = isinstance(value, dict)
        text = json.dumps(value, separators=(",", ":")) if structured else str(value)
        present = current.get(name)
        same = present is not None and (json.loads(present) == json.loads(text) if structured else present == text)
        if not same:
            attributes[name] = text
    return attributes


def _rule(events: "EventBridgeClient", route: Route, recorder: Recorder) -> str:
    """Put the rule; returns its ARN."""
    arn = f"arn:aws:events:{events.meta.region_name}:{DRY_RUN_ACCOUNT}:rule/{route.rule}"
    action = "create"
    try:
        current = events.describe_rule(Name=route.rule)
    except events.exceptions.ResourceNotFoundException:
        pass
    else:
        arn = current["Arn"]
        same_pattern = json.loads(current.get("EventPattern", "null")) == route.pattern
        if same_pattern and current.get("State") == "ENABLED" and current.get("Description") == route.description:
            return arn
        action = "update"

    def put() -> None:
        nonlocal arn
        arn = events.put_rule(
            Name=route.rule, EventPattern=json.dumps(route.pattern), State="ENABLED", Description=route.description
        )["RuleArn"]

    recorder.change("rule", route.rule, action, put)
    return arn


def _main_queue(sqs: "SQSClient", route: Route, rule_arn: str, dlq_arn: str, recorder: Recorder) -> str:
    redrive = {"deadLetterTargetArn": dlq_arn, "maxReceiveCount": MAX_RECEIVE_COUNT}
    url, arn = _queue(sqs, route.queue, {**base_attributes(), "RedrivePolicy": redrive}, recorder)
    _put_right(sqs, route.queue, url, {"Policy": queue_policy(arn, rule_arn)}, recorder)
    return arn


def _queue(sqs: "SQSClient", name: str, wanted: Mapping[str, Any], recorder: Recorder) -> tuple[str | None, str]:
    """Make the queue or put it right; returns its URL (None: a dry run has not made it) and its ARN."""
    try:
        url = sqs.get_queue_url(QueueName=name)["QueueUrl"]
    except sqs.exceptions.QueueDoesNotExist:
        attributes = differing({}, wanted)
        recorder.change(
            "queue",
            name,
            "create",
            lambda: sqs.create_queue(QueueName=name, Attributes=attributes),  # pyright: ignore[reportArgumentType] - the names are SQS's own
        )
        if recorder.dry_run:
            return None, f"arn:aws:sqs:{sqs.meta.region_name}:{DRY_RUN_ACCOUNT}:{name}"
        url = sqs.get_queue_url(QueueName=name)["QueueUrl"]
    else:
        _put_right(sqs, name, url, wanted, recorder)
    attributes = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]
    return url, attributes["QueueArn"]


def _put_right(sqs: "SQSClient", name: str, url: str | None, wanted: Mapping[str, Any], recorder: Recorder) -> None:
    if url is None:
        return
    current = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    attributes = differing({str(key): value for key, value in current.items()}, wanted)
    if attributes:
        recorder.change(
            f"queue {', '.join(sorted(attributes))}",
            name,
            "update",
            lambda: sqs.set_queue_attributes(QueueUrl=url, Attributes=attributes),  # pyright: ignore[reportArgumentType] - the names are SQS's own
        )


def _target(events: "EventBridgeClient", route: Route, queue_arn: str, recorder: Recorder) -> None:
    wanted = {"Id": route.queue, "Arn": queue_arn, "InputTransformer": dict(route.transformer)}
    try:
        current = events.list_targets_by_rule(Rule=route.rule)["Targets"]
    except events.exceptions.ResourceNotFoundException:
        current = []  # a dry run has not made the rule
    if wanted in current:
        return

    def put() -> None:
        answer = events.put_targets(Rule=route.rule, Targets=[wanted])  # pyright: ignore[reportArgumentType] - as the service spells it
        if answer["FailedEntryCount"]:
            reasons = "; ".join(
                f"{each.get('ErrorCode')}: {each.get('ErrorMessage')}" for each in answer["FailedEntries"]
            )
            raise PlatformError(
                f"EventBridge rule {route.rule} does not take {route.queue} as its target: {reasons}",
                hint="allow events:PutTargets to whoever provisions, then run data-platform provision again",
            )

    existed = any(target["Id"] == route.queue for target in current)
    recorder.change("target", route.queue, "update" if existed else "create", put)
