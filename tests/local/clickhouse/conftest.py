"""One embedded ClickHouse for the tests of this folder, reached by plain HTTP and by clickhouse-connect."""

import base64
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from http.client import HTTPConnection
from urllib.parse import urlencode

import clickhouse_connect
import pytest
from clickhouse_connect.driver.client import Client

from data_platform.local.process import EngineProcess

CREDENTIALS = {"Authorization": "Basic " + base64.b64encode(b"default:embedded").decode()}


@dataclass
class Reply:
    """An HTTP answer that has been read."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode().rstrip("\n")

    @property
    def code(self) -> int:
        return int(self.headers["X-ClickHouse-Exception-Code"])


def until(condition: object, seconds: float = 5.0) -> None:
    """Wait for a callable to be true; fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.02)


class Http:
    """Requests as curl makes them, each on a connection of its own."""

    def __init__(self, port: int) -> None:
        self.port = port

    def __call__(
        self,
        body: bytes | Iterator[bytes] | None = None,
        *,
        method: str = "POST",
        path: str = "/",
        headers: Mapping[str, str] = CREDENTIALS,
        **parameters: object,
    ) -> Reply:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(
                method,
                f"{path}?{urlencode(parameters)}" if parameters else path,
                body=body,
                headers=dict(headers),
                encode_chunked=not isinstance(body, bytes | None),
            )
            answer = connection.getresponse()
            return Reply(answer.status, dict(answer.headers.items()), answer.read())
        finally:
            connection.close()

    def sql(self, statement: str, **parameters: object) -> str:
        """The text a statement answers, which must be a success."""
        reply = self(statement.encode(), **parameters)
        assert reply.status == 200, reply.text
        return reply.text


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    keys = {"AWS_ACCESS_KEY_ID": "an-id", "AWS_SECRET_ACCESS_KEY": "a-secret-of-the-lake"}
    process = EngineProcess.with_free_ports("clickhouse", tmp_path_factory.mktemp("clickhouse"), {"env": keys}).start()
    yield process
    process.stop()


@pytest.fixture
def faults(engine: EngineProcess) -> Iterator[EngineProcess]:
    yield engine
    engine.faults.clear()


@pytest.fixture(scope="module")
def http(engine: EngineProcess) -> Http:
    return Http(engine.ports["http"])


@pytest.fixture(scope="module")
def connect(engine: EngineProcess) -> Iterator[Callable[..., Client]]:
    made: list[Client] = []

    def new(**options: object) -> Client:
        client = clickhouse_connect.get_client(
            host="127.0.0.1", port=engine.ports["http"], username="default", password="embedded", **options
        )
        made.append(client)
        return client

    yield new
    for client in made:
        client.close()


@pytest.fixture(scope="module")
def client(connect: Callable[..., Client]) -> Client:
    return connect(autogenerate_session_id=False)


@pytest.fixture
def table(http: Http, request: pytest.FixtureRequest) -> Iterator[str]:
    name = f"t_{abs(hash(request.node.nodeid))}"
    http.sql(f"CREATE TABLE {name} (a Int64, s String) ENGINE = MergeTree ORDER BY a")
    yield name
    http.sql(f"DROP TABLE {name}")
