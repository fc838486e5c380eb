"""The pure parts of the aws engine: templates, queue policies, signatures, what a request is about."""

import io
import json
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import pytest
from botocore.auth import S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from data_platform.local.aws.presign import check
from data_platform.local.aws.queue_policy import permits
from data_platform.local.aws.requests import read_facts
from data_platform.local.aws.transform import at_path, fill, target_input

pytestmark = pytest.mark.unit
EVENT = {
    "id": "1",
    "detail-type": "Object Created",
    "resources": ["arn:a", "arn:b"],
    "detail": {"object": {"key": 'a "b"\\c', "size": 7, "ratio": 0.5, "ok": True, "none": None}},
}


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ('{"k": <key>}', {"k": 'a "b"\\c'}),
        ('{"k": "<key>"}', {"k": 'a "b"\\c'}),
        ('{"k": "x <size> <key>"}', {"k": 'x 7 a "b"\\c'}),
        ('{"n": <size>, "f": <ratio>, "b": <ok>, "z": <none>}', {"n": 7, "f": 0.5, "b": True, "z": None}),
        ('{"o": <object>, "l": <resources>}', {"o": EVENT["detail"]["object"], "l": ["arn:a", "arn:b"]}),  # type: ignore[index]
        ('{"missing": <missing>, "text": "<missing>!"}', {"missing": "", "text": "!"}),
        ('{"undefined": <nope>}', {"undefined": ""}),
        ('{"quote": "\\"<size>\\""}', {"quote": '"7"'}),
        ('"just <size>"', "just 7"),
    ],
)
def test_templates(template: str, expected: object) -> None:
    names = {"key": "key", "size": "size", "ratio": "ratio", "ok": "ok", "none": "none", "missing": "nope.nope"}
    values = {name: at_path(EVENT, f"$.detail.object.{path}") for name, path in names.items()}
    values |= {"object": at_path(EVENT, "$.detail.object"), "resources": at_path(EVENT, "$.resources")}
    assert json.loads(fill(template, values)) == expected


def test_lines_of_strings_go_out_as_they_are_and_broken_templates_are_refused() -> None:
    assert fill('"a <n>"\n"b <n>"', {"n": 1}) == '"a 1"\n"b 1"'
    with pytest.raises(ValueError, match="Expecting"):
        fill('{"a": <n>', {"n": 1})


def test_predefined_variables_and_whole_events() -> None:
    facts = {"rule_name": "r", "rule_arn": "arn:r", "ingested": "2026-01-01T00:00:00Z"}
    template = '{"r": <aws.events.rule-name>, "a": <aws.events.rule-arn>, "e": <aws.events.event>}'
    made = json.loads(target_input({"InputTransformer": {"InputTemplate": template}}, EVENT, **facts))
    assert made == {"r": "r", "a": "arn:r", "e": EVENT}
    assert json.loads(target_input({}, EVENT, **facts)) == EVENT


QUEUE, RULE = "arn:aws:sqs:us-east-1:123456789012:q", "arn:aws:events:us-east-1:123456789012:rule/r"
ALLOW = {
    "Effect": "Allow",
    "Principal": {"Service": "events.amazonaws.com"},
    "Action": "sqs:SendMessage",
    "Resource": QUEUE,
}


@pytest.mark.parametrize(
    ("statements", "expected"),
    [
        ([], False),
        ([ALLOW], True),
        (ALLOW, True),
        ([ALLOW | {"Principal": "*", "Action": ["SQS:*"], "Resource": "*"}], True),
        ([ALLOW | {"Principal": {"AWS": "*"}}], True),
        ([ALLOW | {"Principal": {"Service": "sns.amazonaws.com"}}], False),
        ([ALLOW | {"Action": "sqs:ReceiveMessage"}], False),
        ([ALLOW | {"Resource": QUEUE + "-other"}], False),
        ([ALLOW | {"Condition": {"ArnEquals": {"aws:SourceArn": RULE}}}], True),
        ([ALLOW | {"Condition": {"ArnLike": {"aws:SourceArn": "arn:aws:events:*:*:rule/*"}}}], True),
        ([ALLOW | {"Condition": {"ArnEquals": {"aws:SourceArn": RULE + "2"}}}], False),
        ([ALLOW | {"Condition": {"StringEquals": {"aws:SourceAccount": "123456789012"}}}], True),
        ([ALLOW | {"Condition": {"StringEquals": {"aws:PrincipalOrgID": "o-1"}}}], False),
        ([ALLOW, ALLOW | {"Effect": "Deny"}], False),
        ([ALLOW, ALLOW | {"Effect": "Deny", "Condition": {"Bool": {"aws:SecureTransport": "false"}}}], True),
    ],
)  # fmt: skip
def test_queue_policies(statements: Any, expected: bool) -> None:
    policy = json.dumps({"Version": "2012-10-17", "Statement": statements})
    assert permits(policy, queue_arn=QUEUE, rule_arn=RULE, account="123456789012") is expected
    assert not permits(None, queue_arn=QUEUE, rule_arn=RULE, account="123456789012")


def environ(method: str, url: str, body: bytes = b"", **headers: str) -> dict[str, Any]:
    parts = urlsplit(url)
    return {
        "REQUEST_METHOD": method,
        "RAW_URI": f"{parts.path}?{parts.query}",
        "PATH_INFO": parts.path,
        "QUERY_STRING": parts.query,
        "HTTP_HOST": parts.netloc,
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.input": io.BytesIO(body),
        **headers,
    }


def test_a_presigned_url_is_good_until_it_expires_for_known_keys_only() -> None:
    request = AWSRequest("GET", "http://127.0.0.1:1/bucket/a%20b?response-content-type=text%2Fcsv")
    S3SigV4QueryAuth(Credentials("id", "secret"), "s3", "us-east-1", expires=60).add_auth(request)
    asked = environ("GET", request.url)
    now = datetime.now(UTC)
    assert check(asked, {"id": "secret"}, now) is None
    assert check(asked, {"id": "secret"}, now + timedelta(seconds=62)).message == "Request has expired"  # type: ignore[union-attr]
    assert check(asked, {"id": "other"}, now).code == "SignatureDoesNotMatch"  # type: ignore[union-attr]
    assert check(asked, {"other": "secret"}, now).code == "InvalidAccessKeyId"  # type: ignore[union-attr]
    incomplete = environ("GET", request.url.replace("X-Amz-Expires", "X-Amz-Nothing"))
    assert check(incomplete, {"id": "secret"}, now).status == 400  # type: ignore[union-attr]
    assert check(environ("GET", "http://127.0.0.1/bucket/key"), {"id": "secret"}, now) is None


SIGNED = "AWS4-HMAC-SHA256 Credential=embedded/20260101/us-east-1/{}/aws4_request, SignedHeaders=host, Signature=x"


@pytest.mark.parametrize(
    ("method", "url", "action", "bucket", "key"),
    [
        ("GET", "/", "ListBuckets", "", ""),
        ("PUT", "/b", "CreateBucket", "b", ""),
        ("GET", "/b?list-type=2&prefix=x", "ListObjectsV2", "b", ""),
        ("GET", "/b?prefix=x", "ListObjects", "b", ""),
        ("GET", "/b?versions", "ListObjectVersions", "b", ""),
        ("POST", "/b?delete", "DeleteObjects", "b", ""),
        ("PUT", "/b?notification", "PutBucketNotificationConfiguration", "b", ""),
        ("PUT", "/b/a%20b/%C3%BC%2B", "PutObject", "b", "a b/ü+"),
        ("PUT", "/b/k?tagging", "PutObjectTagging", "b", "k"),
        ("POST", "/b/k?uploads", "CreateMultipartUpload", "b", "k"),
        ("PUT", "/b/k?partNumber=1&uploadId=u", "UploadPart", "b", "k"),
        ("POST", "/b/k?uploadId=u", "CompleteMultipartUpload", "b", "k"),
        ("HEAD", "/b/k", "HeadObject", "b", "k"),
    ],
)
def test_s3_actions(method: str, url: str, action: str, bucket: str, key: str) -> None:
    facts = read_facts(environ(method, f"http://127.0.0.1{url}", HTTP_AUTHORIZATION=SIGNED.format("s3")))
    assert (facts.service, facts.action, facts.bucket, facts.key) == ("s3", action, bucket, key)


def test_sqs_facts_leave_the_body_readable() -> None:
    body = json.dumps({"QueueUrl": "http://127.0.0.1/123456789012/dev-market-load-queue"}).encode()
    headers = {"HTTP_AUTHORIZATION": SIGNED.format("sqs"), "HTTP_X_AMZ_TARGET": "AmazonSQS.ReceiveMessage"}
    asked = environ("POST", "http://127.0.0.1/", body, **headers)
    facts = read_facts(asked)
    assert (facts.service, facts.action, facts.queue) == ("sqs", "ReceiveMessage", "dev-market-load-queue")
    assert asked["wsgi.input"].read() == body
