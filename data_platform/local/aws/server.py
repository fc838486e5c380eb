"""The engine itself: one moto server on one loopback port, with our patches and middleware around it.

What is patched, and why, stands in the modules this one installs; nothing here knows a protocol.
"""

import logging
import threading

from werkzeug.serving import ThreadedWSGIServer

from data_platform.local.aws import events, listing, objects, queues
from data_platform.local.aws.athena.executions import Executions
from data_platform.local.aws.athena.front import FAULT_KINDS as ATHENA_FAULTS
from data_platform.local.aws.athena.front import AthenaFront
from data_platform.local.aws.athena.scope import executions_of
from data_platform.local.aws.configuration import DurableConfiguration
from data_platform.local.aws.dispatch import Dispatcher
from data_platform.local.aws.durability import DurableS3
from data_platform.local.aws.fault_middleware import FAULT_KINDS, Faults
from data_platform.local.aws.http import make_server
from data_platform.local.aws.presign import CheckPresigned
from data_platform.local.aws.store import StateStore
from data_platform.local.engine import EngineContext

ACCESS_KEY = "embedded"
SECRET_KEY = "embedded"  # noqa: S105 - the fixed key of a loopback engine
REGION = "us-east-1"


class AwsEngine:
    """moto behind one HTTP port, with S3 kept in the state folder."""

    NAME = "aws"
    PORTS = ("http",)
    FAULT_KINDS = (*FAULT_KINDS, *ATHENA_FAULTS)
    NEEDS: tuple[str, ...] = ()

    def __init__(self) -> None:
        self._server: ThreadedWSGIServer | None = None
        self._store: StateStore | None = None
        self._executions: Executions | None = None

    def start(self, context: EngineContext) -> dict[str, str]:
        """Serve on `context.ports["http"]`; returns the variables every AWS SDK reads."""
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
        logging.getLogger("werkzeug").setLevel(logging.ERROR)  # one line per request otherwise
        logging.getLogger("sqlglot").setLevel(logging.WARNING)  # one line per index of an array otherwise
        self._store = StateStore(context.state)
        objects.install(self._store.blobs)
        listing.install()
        queues.install(context.faults)
        events.install(context.faults)
        self._store.load()
        configured = DurableConfiguration(Dispatcher(), self._store)
        configured.load()
        durable = DurableS3(configured, self._store, events.EventThread())
        port = context.ports["http"]
        endpoint = f"http://127.0.0.1:{port}"
        self._executions = executions_of(endpoint, ACCESS_KEY, SECRET_KEY, self._store.blobs, context.faults)
        athena = AthenaFront(durable, self._executions, context.faults)
        application = Faults(CheckPresigned(athena, {ACCESS_KEY: SECRET_KEY}), context.faults)
        self._server = make_server(port, application)
        threading.Thread(target=self._server.serve_forever, name="aws-http", daemon=True).start()
        return {
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_DEFAULT_REGION": REGION,
        }

    def stop(self) -> None:
        """Stop the queries, stop serving and close the database."""
        if self._executions is not None:
            self._executions.close()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
        if self._store is not None:
            self._store.close()
