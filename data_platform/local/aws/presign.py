"""Presigned URLs are checked as S3 checks them: signature, expiry, key id; both signature versions SDKs still make.

Requests signed in their headers pass unchecked, as in moto.
"""

import hashlib
import hmac
from base64 import b64encode
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl, quote, unquote
from wsgiref.types import StartResponse, WSGIApplication

from data_platform.local.aws.requests import Environ, query_of, raw_path
from data_platform.local.aws.s3_errors import S3Error

MAXIMUM_EXPIRY_S = 7 * 24 * 3600
_V4 = "X-Amz-Signature"
_V4_FIELDS = ("X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Date", "X-Amz-Expires", "X-Amz-SignedHeaders", _V4)
# Query parameters that version 2 signs along with the path.
_V2_SIGNED = {
    *("acl", "cors", "delete", "lifecycle", "location", "logging", "notification", "partNumber", "policy"),
    *("requestPayment", "response-cache-control", "response-content-disposition", "response-content-encoding"),
    *("response-content-language", "response-content-type", "response-expires", "tagging", "torrent", "uploadId"),
    *("uploads", "versionId", "versioning", "versions", "website"),
}


class CheckPresigned:
    """Middleware: a presigned request goes on only with a good signature that has not expired."""

    def __init__(self, application: WSGIApplication, keys: Mapping[str, str]) -> None:
        self._application = application
        self._keys = keys

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Handle one request."""
        error = check(environ, self._keys, datetime.now(UTC))
        if error is not None:
            return error.answer(environ, start_response)
        return self._application(environ, start_response)


def check(environ: Environ, keys: Mapping[str, str], now: datetime) -> S3Error | None:
    """Why a presigned request is refused at `now`; None when it is good or not presigned. `keys`: key id -> secret."""
    query = query_of(environ)
    if "X-Amz-Algorithm" in query or _V4 in query:
        return _check_v4(environ, query, keys, now)
    if "Signature" in query and "AWSAccessKeyId" in query:
        return _check_v2(environ, query, keys, now)
    return None


def _check_v4(environ: Environ, query: dict[str, str], keys: Mapping[str, str], now: datetime) -> S3Error | None:
    missing = [name for name in _V4_FIELDS if not query.get(name)]
    try:
        signed_at = datetime.strptime(query.get("X-Amz-Date", ""), "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        lifetime = int(query.get("X-Amz-Expires", ""))
        key_id, date, region, service, _ = query.get("X-Amz-Credential", "").rsplit("/", 4)
    except ValueError:
        missing = missing or ["a well-formed X-Amz-Date, X-Amz-Expires and X-Amz-Credential"]
        signed_at, lifetime, key_id, date, region, service = now, 0, "", "", "", ""
    if missing or not 0 < lifetime <= MAXIMUM_EXPIRY_S:
        reason = f"Query-string authentication needs {', '.join(missing) or 'an expiry of 1 second to 7 days'}"
        return S3Error(400, "AuthorizationQueryParametersError", reason)
    if signed_at + timedelta(seconds=lifetime) < now:
        return S3Error(403, "AccessDenied", "Request has expired")
    if key_id not in keys:
        return _unknown_key(key_id)
    names = query["X-Amz-SignedHeaders"].split(";")
    canonical = "\n".join(
        (
            str(environ["REQUEST_METHOD"]),
            quote(unquote(raw_path(environ)), safe="/-_.~"),
            _canonical_query(environ),
            *(f"{name}:{' '.join(_header(environ, name).split())}" for name in names),
            "",
            query["X-Amz-SignedHeaders"],
            str(environ.get("HTTP_X_AMZ_CONTENT_SHA256") or "UNSIGNED-PAYLOAD"),
        )
    )
    scope = f"{date}/{region}/{service}/aws4_request"
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    text = f"AWS4-HMAC-SHA256\n{query['X-Amz-Date']}\n{scope}\n{digest}"
    secret = f"AWS4{keys[key_id]}".encode()
    for step in (date, region, service, "aws4_request"):
        secret = hmac.digest(secret, step.encode(), "sha256")
    expected = hmac.digest(secret, text.encode(), "sha256").hex()
    return None if hmac.compare_digest(expected, query[_V4]) else _bad_signature()


def _check_v2(environ: Environ, query: dict[str, str], keys: Mapping[str, str], now: datetime) -> S3Error | None:
    expires = query.get("Expires", "")
    if not expires.isdigit():
        return S3Error(403, "AccessDenied", "Query-string authentication requires the Signature, Expires and key id")
    if int(expires) < now.timestamp():
        return S3Error(403, "AccessDenied", "Request has expired")
    if query["AWSAccessKeyId"] not in keys:
        return _unknown_key(query["AWSAccessKeyId"])
    amazon = sorted(
        f"{name[5:].lower().replace('_', '-')}:{value}"
        for name, value in environ.items()
        if name.startswith("HTTP_X_AMZ_")
    )
    # Tokens of temporary keys come as a query parameter and are signed like a header.
    amazon += [f"{name}:{value}" for name, value in query.items() if name.startswith("x-amz-")]
    signed = sorted((name, value) for name, value in query.items() if name in _V2_SIGNED)
    suffix = "?" + "&".join(f"{name}={value}" if value else name for name, value in signed) if signed else ""
    head = (
        *(str(environ["REQUEST_METHOD"]), str(environ.get("HTTP_CONTENT_MD5", ""))),
        *(str(environ.get("CONTENT_TYPE", "")), expires, *amazon),
    )
    path = raw_path(environ)
    # SDKs sign a bucket as `/bucket/` and ask for `/bucket`.
    for resource in (path, f"{path}/") if path.count("/") == 1 else (path,):
        text = "\n".join((*head, resource + suffix)).encode()
        expected = b64encode(hmac.digest(keys[query["AWSAccessKeyId"]].encode(), text, "sha1")).decode()
        if hmac.compare_digest(expected, query["Signature"]):
            return None
    return _bad_signature()


def _canonical_query(environ: Environ) -> str:
    pairs = parse_qsl(str(environ.get("QUERY_STRING", "")), keep_blank_values=True)
    quoted = sorted((quote(name, safe="-_.~"), quote(value, safe="-_.~")) for name, value in pairs if name != _V4)
    return "&".join(f"{name}={value}" for name, value in quoted)


def _header(environ: Environ, name: str) -> str:
    variable = name.upper().replace("-", "_")
    plain = variable in {"CONTENT_TYPE", "CONTENT_LENGTH"}
    return str(environ.get(variable if plain else f"HTTP_{variable}", "")).strip()


def _bad_signature() -> S3Error:
    return S3Error(
        403,
        "SignatureDoesNotMatch",
        "The request signature we calculated does not match the signature you provided. "
        "Check your key and signing method.",
    )


def _unknown_key(key_id: str) -> S3Error:
    return S3Error(403, "InvalidAccessKeyId", f"The AWS Access Key Id {key_id} does not exist in our records.")
