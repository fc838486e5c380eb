"""An agent's metrics to the outside: PutMetricData once a minute, and an HTTP port on loopback for Prometheus.

`/metrics` is Prometheus' text, `/status` JSON for `loader status`. Metrics never stop a load.
"""

import json
import logging
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from data_platform.clients import aws
from data_platform.errors import ConfigurationError, Fault
from data_platform.loading.metrics import Metrics, cloudwatch_data
from data_platform.settings import Settings

if TYPE_CHECKING:
    from mypy_boto3_cloudwatch import CloudWatchClient

NAMESPACE = "DataPlatform/Load"
DATA_A_CALL = 1000
LOOPBACK = "127.0.0.1"
log = logging.getLogger(__name__)


def push(cloudwatch: "CloudWatchClient", settings: Settings, metrics: Metrics) -> int:
    """Send what happened since the last push; returns the data points sent. A failure is logged and stops nothing."""
    data: Any = cloudwatch_data(settings.env, metrics.windows())
    for start in range(0, len(data), DATA_A_CALL):
        try:
            cloudwatch.put_metric_data(Namespace=NAMESPACE, MetricData=data[start : start + DATA_A_CALL])
        except Exception as error:
            if aws.classify(error) is Fault.UNKNOWN:
                raise
            log.warning("metrics were not sent to CloudWatch: %s", error)
            return start
    return len(data)


class MetricsServer:
    """Serves one agent's metrics on loopback until `close`; port 0 takes a free one."""

    def __init__(self, metrics: Metrics, port: int) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path == "/metrics":
                    body, kind = metrics.prometheus().encode(), "text/plain; version=0.0.4; charset=utf-8"
                elif self.path == "/status":
                    body, kind = json.dumps(metrics.status()).encode(), "application/json"
                else:
                    self.send_error(404)
                    return
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
                pass

        try:
            self._server = ThreadingHTTPServer((LOOPBACK, port), Handler)
        except OSError as error:
            raise ConfigurationError(
                f"the metrics port {port} cannot be opened: {error.strerror}",
                hint="DATA_PLATFORM_LOADER_METRICS_PORT chooses another, 0 none",
            ) from None
        self._server.daemon_threads = True
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Serve no more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
