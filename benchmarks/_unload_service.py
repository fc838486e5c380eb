"""The unload API as a process on an embedded cloud of its own, with a token without limits: for its benchmarks."""

import contextlib
import http.client
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import sqlalchemy as sa

from data_platform.clients import postgres
from data_platform.ledger import api_tokens, migrate
from data_platform.local.cloud import Cloud
from data_platform.local.process import free_port

UNBOUNDED = api_tokens.Limits(requests_per_s=100_000, burst=100_000, max_open=100_000)
MIB = 2**20


@dataclass(frozen=True)
class Service:
    """The running API."""

    cloud: Cloud
    ledger: sa.Engine
    port: int
    token: str
    process: psutil.Process

    def call(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """Status and decoded body of one call."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        response = connection.getresponse()
        answer = json.loads(response.read() or b"null")
        connection.close()
        return response.status, answer

    @property
    def resident_mib(self) -> float:
        """Memory of the API process."""
        return self.process.memory_info().rss / MIB


@contextlib.contextmanager
def unload_service(workers: int = 2) -> Iterator[Service]:
    """Start cloud and API; both end with the block."""
    with tempfile.TemporaryDirectory() as folder, Cloud(Path(folder)) as cloud:
        cloud.up(engines=("aws", "warehouse", "kafka"))
        ledger = postgres.engine(cloud.settings)
        migrate(ledger)
        with ledger.begin() as connection:
            token = api_tokens.create(connection, "benchmark", limits=UNBOUNDED)
        port = free_port()
        command = [sys.executable, "-m", "data_platform.cli.main", "api", "--port", str(port)]
        server = subprocess.Popen(
            [*command, "--workers", str(workers)], env=cloud.process_env, stderr=subprocess.DEVNULL
        )
        try:
            _wait(port)
            yield Service(cloud, ledger, port, token, psutil.Process(server.pid))
        finally:
            server.terminate()
            server.wait(25)
            ledger.dispose()


def _wait(port: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
            connection.request("GET", "/ready")
            if connection.getresponse().status == 200:
                return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError("the API did not come up")
