"""Which of moto's services answers a request, found once per service instead of per request.

moto matches every request against the patterns of all its services; for a small S3 call that is a third of the time.
"""

import threading
from collections.abc import Iterable
from wsgiref.types import StartResponse, WSGIApplication

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

from data_platform.local.aws.requests import Environ, facts_of

# Signing name -> moto's service, for the services whose signing name alone decides.
DIRECT = {
    **{name: name for name in ("s3", "sqs", "events", "secretsmanager", "glue", "athena")},
    "monitoring": "cloudwatch",
}


class Dispatcher:
    """moto's dispatcher with a short way for the services the platform calls most."""

    def __init__(self) -> None:
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._apps: dict[str, WSGIApplication] = {}
        self._lock = threading.Lock()

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Handle one request."""
        service = facts_of(environ).service
        signed = "HTTP_AUTHORIZATION" in environ or "Signature=" in str(environ.get("QUERY_STRING", ""))
        ours = str(environ.get("HTTP_HOST", "")).startswith(("127.0.0.1", "localhost"))
        if not (ours and signed and service in DIRECT) or str(environ["PATH_INFO"]).startswith("/v20180820/"):
            return self._moto(environ, start_response)
        return self._app(service)(environ, start_response)

    def _app(self, service: str) -> WSGIApplication:
        with self._lock:
            if service not in self._apps:
                application = self._moto.create_app(DIRECT[service])  # pyright: ignore[reportArgumentType]
                # In debug mode, which moto turns on, Flask ties each request with its body into a reference cycle:
                # megabytes per upload would wait for the collector.
                application.debug = False
                self._apps[service] = application
            return self._apps[service]
