"""Single requests under settings of their own, run by a worker in the test's process on a ledger of its own."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from uuid import uuid4

import sqlalchemy as sa

from data_platform.clients import aws, postgres
from data_platform.ledger import migrate
from data_platform.ledger.unload_requests import UnloadRequest
from data_platform.ledger.unloads import unload_requests
from data_platform.local.cloud import Cloud
from data_platform.settings import Settings
from data_platform.unload.execution import list_prefix
from data_platform.unload.workers import Workers
from tests.unload_api import make_table


@dataclass
class Bench:
    """Nobody else works on its ledger."""

    cloud: Cloud
    settings: Settings
    ledger: sa.Engine

    def run(self, sql: str, **update: int) -> UnloadRequest:
        """One request from its claim to its end."""
        request_id = f"bench-{uuid4().hex[:8]}"
        with self.ledger.begin() as connection:
            connection.execute(
                sa.insert(unload_requests).values(
                    request_id=request_id,
                    caller="somebody",
                    body_hash=bytes(32),
                    sql=sql,
                    options={"format": "csv", "header": True, "compression": "none", "parallel": True},
                )
            )
        settings = self.settings.model_copy(update=update)
        workers = Workers(settings, self.ledger, aws.s3(settings), count=0)
        workers.start()
        try:
            assert workers.run_one(request_id) is not None
        finally:
            workers.stop(0)
        request = workers.find(request_id)
        assert request is not None
        return request

    def left(self, request: UnloadRequest) -> list[str]:
        """The objects of a request."""
        prefix = f"unload-results/{request.request_id}/"
        return sorted(list_prefix(aws.s3(self.settings), self.settings.unload_bucket, prefix))


@contextlib.contextmanager
def make_bench(cloud: Cloud) -> Iterator[Bench]:
    """A bench on the cloud's warehouse."""
    make_table(cloud)
    url = sa.make_url(cloud.settings.postgres_url.get_secret_value())  # type: ignore[union-attr]
    server = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    name = f"bench_{uuid4().hex}"
    with server.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    own = url.set(database=name).render_as_string(hide_password=False)
    settings = Settings.model_validate({**cloud.settings.model_dump(), "postgres_url": own})
    ledger = postgres.engine(settings)
    migrate(ledger)
    try:
        yield Bench(cloud, settings, ledger)
    finally:
        ledger.dispose()
        with server.connect() as connection:
            connection.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))
        server.dispose()
