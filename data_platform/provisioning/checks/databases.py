"""Redshift and PostgreSQL: version, clock, rights, the ledger's schema."""

from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, cast

from data_platform.catalog import Catalog
from data_platform.catalog.models import RedshiftSource
from data_platform.clients import postgres, redshift
from data_platform.ledger import schema
from data_platform.provisioning.checks.finding import (
    PROVISION,
    Finding,
    failed,
    ok,
    skew_finding,
    version_finding,
    warning,
)
from data_platform.provisioning.postgres import reason_of
from data_platform.settings import Settings

if TYPE_CHECKING:
    from sqlalchemy import URL

POSTGRES_LEAST = (14,)
CONNECT_TIMEOUT_S = 5


def check_redshift(settings: Settings, catalog: Catalog) -> Iterator[Finding]:
    """A session, and SELECT on every table the catalogue reads. Raises PlatformError when there is no session."""
    import redshift_connector

    with redshift.connect(settings) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT version()")
        yield ok("redshift", str(cast("list[str]", cursor.fetchone())[0]).split(",")[0])
        sources = [dataset.source for dataset in catalog.datasets.values()]
        tables = sorted({each.table for each in sources if isinstance(each, RedshiftSource) and each.table})
        refused: list[str] = []
        for table in tables:
            try:
                cursor.execute(f"SELECT 1 FROM {table} WHERE false")
                cursor.fetchall()
            except redshift_connector.Error as error:
                state, message = redshift.describe(error)
                refused.append(table)
                if state == "42501":
                    yield failed(f"redshift {table}", message, f"GRANT SELECT ON {table} TO {settings.redshift_user}")
                else:
                    yield warning(f"redshift {table}", message, "the catalogue names it; data-platform sample load")
        if not refused:
            yield ok("redshift tables", f"SELECT on all {len(tables)} source tables")


def check_postgres(settings: Settings, _catalog: Catalog) -> Iterator[Finding]:
    """Both databases, and whether the ledger's schema is this version's."""
    from sqlalchemy import make_url

    if settings.postgres_url is not None:
        yield from _session("postgres", make_url(settings.postgres_url.get_secret_value()))
        yield from _ledger(settings)


def check_dagster(settings: Settings, _catalog: Catalog) -> Iterator[Finding]:
    """Dagster's folder and its storage."""
    from sqlalchemy import make_url

    home = settings.dagster_home
    if home is None:
        yield warning("dagster home", "DAGSTER_HOME not set; runs would be kept in a temporary folder")
    elif not (home / "dagster.yaml").is_file():
        yield failed("dagster home", f"{home} holds no dagster.yaml", "copy the repository's dagster.yaml there")
    else:
        yield ok("dagster home", str(home))
    if settings.dagster_postgres_url is None:
        yield warning("dagster storage", "DAGSTER_POSTGRES_URL not set")
    else:
        yield from _session("dagster storage", make_url(settings.dagster_postgres_url.get_secret_value()))


def _session(subject: str, url: "URL") -> Iterator[Finding]:
    import psycopg

    where = f"{url.host}:{url.port or 5432}/{url.database}"
    plain = url.set(drivername="postgresql").render_as_string(hide_password=False)
    try:
        with psycopg.connect(plain, connect_timeout=CONNECT_TIMEOUT_S, autocommit=True) as connection:
            row = connection.execute(
                "SELECT current_setting('server_version'), clock_timestamp(),"
                " has_schema_privilege(current_schema(), 'CREATE')"
            ).fetchone()
    except psycopg.Error as error:
        words = reason_of(error)
        yield failed(subject, f"{where}: {words}", _hint(words))
        return
    version, now, may_create = cast("tuple[str, datetime, bool]", row)
    yield version_finding(subject, version, POSTGRES_LEAST)
    yield skew_finding(f"{subject} clock", now)
    if not may_create:
        yield failed(subject, f"{url.username} may not make tables", f"GRANT CREATE ON SCHEMA public TO {url.username}")


def _hint(words: str) -> str:
    if "password" in words or "role" in words:
        return "check user and password in POSTGRES_URL, DAGSTER_POSTGRES_URL"
    return PROVISION if "does not exist" in words else "is the server up, the port open, the URL right?"


def _ledger(settings: Settings) -> Iterator[Finding]:
    from sqlalchemy.exc import DBAPIError

    engine = postgres.engine(settings, pool_size=1)
    try:
        with engine.connect() as connection:
            pending, current = schema.pending(connection), schema.current(connection)
    except DBAPIError:
        return  # the session's check tells it
    finally:
        engine.dispose()
    if pending:
        yield failed("ledger", f"{len(pending)} migrations are not applied", PROVISION)
    elif current != schema.head():
        yield warning("ledger", f"schema {current} is newer than this program", "upgrade data-platform")
    else:
        yield ok("ledger", f"schema {current}")
