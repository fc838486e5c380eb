"""An error answer in S3's own XML, for the layers that answer before moto does."""

import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from http import HTTPStatus
from wsgiref.types import StartResponse
from xml.sax.saxutils import escape

from data_platform.local.aws.requests import Environ


@dataclass(frozen=True)
class S3Error:
    """Status, S3's error code, and the message a person reads."""

    status: int
    code: str
    message: str

    def answer(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Send it; a HEAD answer has no body, so clients see the status alone."""
        request_id = uuid.uuid4().hex[:16].upper()
        body = (
            '<?xml version="1.0" encoding="UTF-8"?>\n'
            f"<Error><Code>{escape(self.code)}</Code><Message>{escape(self.message)}</Message>"
            f"<Resource>{escape(str(environ.get('PATH_INFO', '')))}</Resource>"
            f"<RequestId>{request_id}</RequestId></Error>"
        ).encode()
        headers = [
            ("Content-Type", "application/xml"),
            ("Content-Length", str(len(body))),
            ("x-amz-request-id", request_id),
        ]
        start_response(f"{self.status} {_phrase(self.status)}", headers)
        return [b""] if environ["REQUEST_METHOD"] == "HEAD" else [body]


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"
