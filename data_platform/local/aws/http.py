"""The HTTP/1.1 server: moto's request handler with connections that stay open.

werkzeug's development server closes the connection after each answer, which costs the client a connection and the
server a thread per call; AWS keeps connections open, and clients behave differently then.
"""

import contextlib
import logging
import sys
from collections.abc import Iterable
from typing import Any

from moto.moto_server.werkzeug_app import MotoRequestHandler
from werkzeug.serving import ThreadedWSGIServer
from werkzeug.wsgi import LimitedStream

logger = logging.getLogger(__name__)

# A thread that has just received a request would wait 5 ms for each busy one before it.
SWITCH_INTERVAL_S = 0.0005


class KeepAliveHandler(MotoRequestHandler):
    """Serves one connection, request after request, until either side closes it."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 64 * 1024  # head and body of a small answer leave in one packet

    def run_wsgi(self) -> None:
        """Answer one request."""
        if self.headers.get("Expect", "").strip().lower() == "100-continue":
            self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self.wfile.flush()
        self.environ = environ = self.make_environ()
        body = None
        if "wsgi.input_terminated" in environ:  # chunked: werkzeug's reader knows the end
            self.close_connection = True
        else:
            body = LimitedStream(self.rfile, int(environ.get("CONTENT_LENGTH") or 0))  # pyright: ignore[reportArgumentType]
            environ["wsgi.input"] = body
            environ["wsgi.input_terminated"] = True
        started: list[tuple[str, list[tuple[str, str]]]] = []

        def start_response(status: str, headers: list[tuple[str, str]], _exc_info: Any = None) -> Any:
            started[:] = [(status, headers)]
            return self.wfile.write

        try:
            answer = self.server.app(environ, start_response)
            try:
                self._send(started, answer)
            finally:
                close = getattr(answer, "close", None)
                if close is not None:
                    close()
            if body is not None:
                body.exhaust()
        except (ConnectionError, TimeoutError):  # the client went away, or a fault closed the connection
            self.close_connection = True
        except Exception:
            logger.exception("%s %s failed", self.command, self.path)
            self.close_connection = True
            with contextlib.suppress(OSError):
                self.send_error(500)

    def finish(self) -> None:
        """Close the connection; what is still buffered for a client that has gone is dropped."""
        with contextlib.suppress(OSError):
            super().finish()

    def _send(self, started: list[tuple[str, list[tuple[str, str]]]], answer: Iterable[bytes]) -> None:
        chunked = False
        head_sent = False
        for data in answer:
            if not head_sent:
                chunked = self._send_head(*started[0])
                head_sent = True
            if data and self.command != "HEAD":
                self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data) if chunked else data)
            self.wfile.flush()
        if not head_sent:
            chunked = self._send_head(*started[0], empty=True)
        if chunked and self.command != "HEAD":
            self.wfile.write(b"0\r\n\r\n")
        self.wfile.flush()

    def _send_head(self, status: str, headers: list[tuple[str, str]], *, empty: bool = False) -> bool:
        """Buffer the status line and the headers; returns whether the body goes out in chunks."""
        code, _, phrase = status.partition(" ")
        self.send_response(int(code), phrase)
        names = {name.lower() for name, _ in headers}
        for name, value in headers:
            self.send_header(name, value)
        bodiless = self.command == "HEAD" or code in {"204", "304"} or code.startswith("1")
        chunked = not bodiless and not empty and "content-length" not in names
        if chunked:
            self.send_header("Transfer-Encoding", "chunked")
        elif empty and not bodiless and "content-length" not in names:
            self.send_header("Content-Length", "0")
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        return chunked


def make_server(port: int, application: Any) -> ThreadedWSGIServer:
    """A server on loopback that is bound and not yet serving."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    return ThreadedWSGIServer("127.0.0.1", port, application, handler=KeepAliveHandler)
