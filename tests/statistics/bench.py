"""What tests of the CSV batch work on: a database of their own, users in it, files on S3, a look at the ledger."""

import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from data_platform.catalog.models import UserStatistics
from data_platform.clients import aws, postgres
from data_platform.ledger import migrate
from data_platform.local.cloud import Cloud
from data_platform.settings import Settings
from data_platform.statistics.apply import apply_file
from data_platform.statistics.outcome import Outcome
from data_platform.statistics.source import FileVersion, find

HEADER = "user_id,login_count,post_count\n"


@dataclass
class Bench:
    """What a test of the batch needs: engine, S3, users, files, the lines that were told."""

    settings: Settings
    engine: sa.Engine
    s3: Any
    told: list[str] = field(default_factory=list[str])

    def drop(self, body: bytes | str, name: str | None = None) -> FileVersion:
        """Put a file under incoming/."""
        key = f"incoming/{name or uuid.uuid4().hex + '.csv'}"
        data = body.encode() if isinstance(body, str) else body
        self.s3.put_object(Bucket=self.settings.raw_bucket, Key=key, Body=data)
        return find(self.s3, self.settings.raw_bucket, key)

    def apply(self, file: FileVersion, *, options: dict[str, Any] | None = None, **named: Any) -> Outcome:
        """Apply a file."""
        chosen = UserStatistics.model_validate({"max_rejected_percent": 100, **(options or {})})
        return apply_file(
            self.engine, self.s3, file, chosen, tell=lambda level, line: self.told.append(f"{level} {line}"), **named
        )

    def rows(self, statement: str, **parameters: Any) -> list[tuple[Any, ...]]:
        """Rows of a query."""
        with self.engine.connect() as connection:
            return [tuple(row) for row in connection.execute(sa.text(statement), parameters)]

    def table(self) -> dict[str, tuple[int, int]]:
        """user_statistics as it is."""
        found = self.rows("SELECT user_id, login_count, post_count FROM user_statistics")
        return {user: (login, post) for user, login, post in found}

    def write(self, statement: str, **parameters: Any) -> None:
        """Change something."""
        with self.engine.begin() as connection:
            connection.execute(sa.text(statement), parameters)

    def add_users(self, count: int, prefix: str = "U") -> None:
        """Users U00001 to U<count>."""
        self.write(
            "INSERT INTO users (user_id, username) SELECT :p || lpad(i::text, 5, '0'), 'test' || i"
            " FROM generate_series(1, :n) i ON CONFLICT DO NOTHING",
            p=prefix,
            n=count,
        )

    def staging(self) -> list[str]:
        """Staging tables that are there."""
        return [
            name
            for (name,) in self.rows(
                "SELECT relname FROM pg_class WHERE relkind = 'r' AND relname ^@ 'statistics_staging_'"
            )
        ]

    def assert_ledger_agrees(self) -> None:
        """Table, chunks, metadata and audit tell the same story, and nobody's row lacks a user."""
        sums = self.rows(
            """SELECT m.run_id, m.inserted, m.updated, m.unchanged, coalesce(sum(b.inserted), 0),
                coalesce(sum(b.updated), 0), coalesce(sum(b.unchanged), 0)
            FROM processing_metadata m LEFT JOIN batch_jobs b ON b.run_id = m.run_id AND b.status = 'DONE'
            GROUP BY m.run_id"""
        )
        for run, *counts in sums:
            assert counts[:3] == [int(each) for each in counts[3:]], run
        audited = self.rows(
            """SELECT m.run_id, m.rejected, count(a.id) FROM processing_metadata m
            LEFT JOIN audit_logs a ON a.run_id = m.run_id AND a.event = 'ROW_REJECTED' AND a.rule <> 'header'
            WHERE m.status = 'DONE' GROUP BY m.run_id"""
        )
        assert all(rejected == written for _, rejected, written in audited)
        unfinished = (
            "SELECT run_id FROM processing_metadata WHERE status IN ('DONE', 'REFUSED') AND finished_at IS NULL"
        )
        assert not self.rows(unfinished)


def make_bench(cloud: Cloud, name: str) -> Iterator[Bench]:
    """A migrated database called `name`, dropped at the end."""
    url = sa.make_url(cloud.settings.postgres_url.get_secret_value())  # pyright: ignore[reportOptionalMemberAccess]
    server = sa.create_engine(url, isolation_level="AUTOCOMMIT", pool_pre_ping=True)
    with server.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    own = url.set(database=name).render_as_string(hide_password=False)
    settings = cloud.settings.model_copy(update={"postgres_url": type(cloud.settings.postgres_url)(own)})
    engine = postgres.engine(settings)
    migrate(engine)
    yield Bench(settings, engine, aws.s3(settings))
    engine.dispose()
    with server.connect() as connection:
        connection.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))
    server.dispose()


def emptied(bench: Bench) -> Bench:
    """The database without a row but for 100 users, as every test finds it."""
    tables = "audit_logs, batch_jobs, processing_metadata, job_locks, user_statistics, users"
    bench.write(f"TRUNCATE {tables}")
    for name in bench.staging():
        bench.write(f"DROP TABLE {name}")
    bench.add_users(100)
    bench.told.clear()
    return bench
