"""How `data-platform cloud kill / restart / up` reaches the process that runs the engines: loopback HTTP and a key.

The key stands in supervisor.json, which only this user can read; a path cannot be too long for a port.
"""

import hmac
import http.client
import json
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from data_platform.errors import PlatformError
from data_platform.local.state import Host

CALL_TIMEOUT_S = 120.0
Actions = Mapping[str, Callable[[str], None]]  # name -> what to do with an engine's name


class _Handler(BaseHTTPRequestHandler):
    """POST /<action>/<engine>."""

    actions: Actions
    key: str

    def do_POST(self) -> None:
        if not hmac.compare_digest(self.headers.get("X-Key") or "", self.key):
            self._answer(403, {"error": "wrong key"})
            return
        action, _, engine = self.path.strip("/").partition("/")
        if action not in self.actions:
            self._answer(404, {"error": f"no such action: {action}"})
            return
        try:
            self.actions[action](engine)
        except PlatformError as error:
            self._answer(409, {"error": error.message, "hint": error.hint})
        else:
            self._answer(200, {})

    def _answer(self, status: int, body: object) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Control calls are not logged."""


def serve(actions: Actions, key: str) -> ThreadingHTTPServer:
    """Serve `actions` on a free loopback port from a daemon thread."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"actions": actions, "key": key}))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.1,), name="cloud-control", daemon=True).start()
    return server


def call(host: Host, action: str, engine: str = "") -> None:
    """Ask the host for an action and wait until it is done. Raises PlatformError with the host's words."""
    address = urlsplit(host.control_url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=CALL_TIMEOUT_S)
    try:
        connection.request("POST", f"/{action}/{engine}", headers={"X-Key": host.key, "Content-Length": "0"})
        response = connection.getresponse()
        body = json.loads(response.read())
    except OSError as error:
        raise PlatformError(
            f"process {host.pid} runs the embedded cloud and does not answer: {error}",
            hint="data-platform cloud down, then up",
        ) from error
    finally:
        connection.close()
    if response.status != 200:
        raise PlatformError(body["error"], hint=body.get("hint"))
