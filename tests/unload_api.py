"""A running unload API (a process of its own, as in production), its callers, and a table to unload."""

import json
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from data_platform.clients import redshift
from data_platform.local.cloud import Cloud
from data_platform.local.process import MARKER_VARIABLE, free_port

ROWS = 1000
FINAL = {"DONE", "FAILED", "CANCELLED", "EXPIRED"}


@dataclass
class Answer:
    """What a call was answered."""

    status: int
    headers: dict[str, str]
    body: Any


@dataclass
class ApiProcess:
    """`data-platform api` as a child; `kill` is kill -9."""

    cloud: Cloud
    log: Path
    port: int = field(default_factory=free_port)
    arguments: tuple[str, ...] = ("--workers", "2")
    environment: dict[str, str] = field(default_factory=dict[str, str])
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def launch(self) -> "ApiProcess":
        """Start it without waiting until it serves."""
        command = [sys.executable, "-m", "data_platform.cli.main", "api", "--port", str(self.port), *self.arguments]
        environment = {**self.cloud.process_env, MARKER_VARIABLE: str(self.cloud.home), **self.environment}
        with self.log.open("ab") as stream:
            self.process = subprocess.Popen(command, env=environment, stdout=stream, stderr=stream)
        return self

    def start(self) -> "ApiProcess":
        """Start it; returns when it serves."""
        return self.launch().serving()

    def serving(self) -> "ApiProcess":
        """Wait until it serves."""
        assert self.process is not None
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(f"{self.url}/ready", timeout=2):
                    return self
            except OSError:
                assert self.process.poll() is None, self.log.read_text()
                time.sleep(0.05)
        raise AssertionError(self.log.read_text())

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> float:
        """SIGTERM; the seconds until it has ended."""
        assert self.process is not None
        started = time.monotonic()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(25)
            except subprocess.TimeoutExpired:
                self.kill()
                raise
        return time.monotonic() - started


@dataclass(frozen=True)
class Client:
    """Calls the API as one caller."""

    url: str
    token: str | None

    def call(self, method: str, path: str, body: object = None, *, raw: bytes | None = None, **headers: str) -> Answer:
        data = raw if raw is not None else None if body is None else json.dumps(body).encode()
        sent = {"Content-Type": "application/json", **headers}
        if self.token is not None:
            sent["Authorization"] = f"Bearer {self.token}"
        request = urllib.request.Request(f"{self.url}{path}", data=data, headers=sent, method=method)
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                return Answer(response.status, dict(response.headers), json.load(response))
        except urllib.error.HTTPError as error:
            text = error.read()
            return Answer(error.code, dict(error.headers), json.loads(text) if text else None)

    def get(self, path: str) -> Answer:
        return self.call("GET", path)

    def submit(self, sql: str, request_id: str | None = None, **options: object) -> Answer:
        body = {"requestId": request_id or f"r-{uuid4().hex}", "sql": sql, **options}
        return self.call("POST", "/api/unload", body)

    def wait(self, request_id: str, *, seconds: float = 40) -> dict[str, Any]:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            state = self.get(f"/api/unload/status/{request_id}").body
            if state["status"] in FINAL:
                return state
            time.sleep(0.1)
        raise AssertionError(f"{request_id} did not end: {state}")

    def unload(self, sql: str, **options: object) -> dict[str, Any]:
        accepted = self.submit(sql, **options)
        assert accepted.status == 202, accepted.body
        return self.wait(accepted.body["requestId"])


def make_table(cloud: Cloud) -> str:
    """`market.api_rows`: id 1 to 1000, a name with quotes, backslashes and unicode, a null every tenth row."""
    with redshift.connect(cloud.settings) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE SCHEMA IF NOT EXISTS market")
        cursor.execute("CREATE TABLE IF NOT EXISTS market.api_rows (id integer, name varchar(100), grp integer)")
        cursor.execute("DELETE FROM market.api_rows")
        cursor.execute(
            "INSERT INTO market.api_rows"
            " SELECT i, CASE WHEN i % 10 = 0 THEN NULL ELSE 'it''s \\\\ \"' || i || ' ö😀' END,"
            f" i % 4 FROM generate_series(1, {ROWS}) AS i"
        )
    return "market.api_rows"
