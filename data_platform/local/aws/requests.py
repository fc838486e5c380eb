"""What a request is about, read from its WSGI environ before moto sees it: service, action, bucket, key, queue.

Pure reading; what is done with it (faults, signatures, persistence) stands in the modules that ask.
"""

import io
import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, unquote

Environ = dict[str, Any]

_OBJECT_ACTIONS = {"GET": "GetObject", "HEAD": "HeadObject", "PUT": "PutObject", "DELETE": "DeleteObject"}
_BUCKET_ACTIONS = {"GET": "ListObjects", "HEAD": "HeadBucket", "PUT": "CreateBucket", "DELETE": "DeleteBucket"}
# Sub-resources that make another action of the same method, with AWS's names where the plain rule would not give them.
_SUBRESOURCES = {
    "acl": "Acl",
    "tagging": "Tagging",
    "versioning": "Versioning",
    "notification": "NotificationConfiguration",
    "lifecycle": "LifecycleConfiguration",
    "policy": "Policy",
    "encryption": "Encryption",
    "location": "Location",
    "cors": "Cors",
    "retention": "Retention",
    "legal-hold": "LegalHold",
    "publicAccessBlock": "PublicAccessBlock",
    "ownershipControls": "OwnershipControls",
}


@dataclass(frozen=True)
class RequestFacts:
    """`service` is the signing name (s3, sqs, events, ...); the other fields are empty where they do not apply."""

    service: str
    method: str
    action: str
    bucket: str = ""
    key: str = ""
    version_id: str = ""
    upload_id: str = ""
    queue: str = ""

    @property
    def writes(self) -> bool:
        """Whether the request may change what is stored."""
        return self.method in {"PUT", "POST", "DELETE"}


def query_of(environ: Environ) -> dict[str, str]:
    """The query parameters, blank ones included; the last of a repeated name wins."""
    return dict(parse_qsl(environ.get("QUERY_STRING", ""), keep_blank_values=True))


def raw_path(environ: Environ) -> str:
    """The path as the client spelled it, still percent-encoded, without the query."""
    return str(environ.get("RAW_URI") or environ.get("PATH_INFO", "/")).split("?", 1)[0]


def facts_of(environ: Environ) -> RequestFacts:
    """The facts of a request, read once and kept in its environ."""
    facts = environ.get("data_platform.facts")
    if facts is None:
        facts = environ["data_platform.facts"] = read_facts(environ)
    return facts


def read_facts(environ: Environ) -> RequestFacts:
    """The facts of one request. Reads (and puts back) the body of SQS calls only, to learn the queue."""
    service = _signing_service(environ)
    method = str(environ["REQUEST_METHOD"])
    if service == "s3":
        return _s3_facts(environ, method)
    target = str(environ.get("HTTP_X_AMZ_TARGET", "")).rpartition(".")[2]
    action = target or str(environ.get("PATH_INFO", "")).partition("/operation/")[2]  # the CBOR protocol has a path
    if service == "sqs":
        return RequestFacts(service, method, action, queue=_queue_name(environ))
    return RequestFacts(service, method, action)


def _signing_service(environ: Environ) -> str:
    authorization = str(environ.get("HTTP_AUTHORIZATION", ""))
    _, found, scope = authorization.partition("Credential=")
    if found:
        parts = scope.split(",", 1)[0].split("/")
        if len(parts) >= 5:
            return parts[-2].strip().lower()
    target = str(environ.get("HTTP_X_AMZ_TARGET", ""))
    if target.startswith("AmazonSQS."):
        return "sqs"
    if target.startswith("AWSEvents."):
        return "events"
    path = str(environ.get("PATH_INFO", ""))
    return "moto" if path.startswith(("/moto-api", "/latest/")) else "s3"


def _s3_facts(environ: Environ, method: str) -> RequestFacts:
    bucket, _, key = unquote(raw_path(environ)).lstrip("/").partition("/")
    query = query_of(environ)
    action = _s3_action(method, bucket, key, query, copies="HTTP_X_AMZ_COPY_SOURCE" in environ)
    return RequestFacts("s3", method, action, bucket, key, query.get("versionId", ""), query.get("uploadId", ""))


def _s3_action(method: str, bucket: str, key: str, query: dict[str, str], *, copies: bool) -> str:
    if not bucket:
        return "ListBuckets"
    if "uploads" in query or "uploadId" in query:
        return _upload_action(method, query, copies=copies)
    for name, suffix in _SUBRESOURCES.items():
        if name in query:
            return f"{method.title()}{'Object' if key else 'Bucket'}{suffix}"
    if key:
        return "CopyObject" if copies and method == "PUT" else _OBJECT_ACTIONS.get(method, "PostObject")
    return _bucket_action(method, query)


def _upload_action(method: str, query: dict[str, str], *, copies: bool) -> str:
    if "uploads" in query:
        return "CreateMultipartUpload" if method == "POST" else "ListMultipartUploads"
    if method == "PUT":
        return "UploadPartCopy" if copies else "UploadPart"
    return {"POST": "CompleteMultipartUpload", "DELETE": "AbortMultipartUpload"}.get(method, "ListParts")


def _bucket_action(method: str, query: dict[str, str]) -> str:
    if "delete" in query:
        return "DeleteObjects"
    if "versions" in query:
        return "ListObjectVersions"
    if query.get("list-type") == "2":
        return "ListObjectsV2"
    return _BUCKET_ACTIONS.get(method, "PostObject")


def _queue_name(environ: Environ) -> str:
    length = int(environ.get("CONTENT_LENGTH") or 0)
    body = environ["wsgi.input"].read(length)
    environ["wsgi.input"] = io.BytesIO(body)
    try:
        fields = json.loads(body)
    except ValueError:  # the query protocol of old clients: the queue is in the path
        return str(environ.get("PATH_INFO", "")).rstrip("/").rpartition("/")[2]
    url = str(fields.get("QueueUrl") or fields.get("QueueName") or "")
    return url.rstrip("/").rpartition("/")[2]
