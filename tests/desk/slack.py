"""A stand-in for Slack: a web server on loopback that takes webhooks' posts and answers as a test wants."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from data_platform.settings import Settings


class Slack:
    """A web server that takes webhooks' posts; `answer` decides the status of each."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.answer: Callable[[], int] = lambda: 200
        slack = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                status = slack.answer()
                if status == 200:
                    slack.texts.append(body["text"])
                self.send_response(status)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/services/T/B/x"


@pytest.fixture
def slack() -> Iterator[Slack]:
    """A server of the test's own."""
    server = Slack()
    yield server
    server.server.shutdown()
    server.server.server_close()


def settings_of(home: Path, slack: Slack | None, **more: Any) -> Settings:
    routes = None if slack is None else SecretStr(json.dumps({"*": {"slack": slack.url}}))
    return Settings(home=home, env="prod", alert_routes=routes, dagster_url="https://dagster", **more)
