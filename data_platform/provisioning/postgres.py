"""The PostgreSQL databases of the ledger and of Dagster, and the ledger's migrations. Dagster makes its own tables."""

from typing import TYPE_CHECKING

from data_platform.catalog import Catalog
from data_platform.clients import postgres
from data_platform.errors import ConfigurationError, Fault, PlatformError
from data_platform.ledger import schema
from data_platform.provisioning.report import Recorder
from data_platform.settings import Settings

if TYPE_CHECKING:
    import psycopg
    from sqlalchemy import URL

MAINTENANCE_DATABASE = "postgres"  # CREATE DATABASE needs a session in another database
CONNECT_TIMEOUT_S = 5


def provision_postgres(settings: Settings, _catalog: Catalog, recorder: Recorder) -> None:
    """Make the databases that are missing and bring the ledger to its newest schema.

    Raises PlatformError naming the database and the right that is missing.
    """
    from sqlalchemy import make_url

    urls = [settings.postgres_url, settings.dagster_postgres_url]
    present = [ensure_database(make_url(url.get_secret_value()), recorder) for url in urls if url is not None]
    if present[0]:  # a dry run has not made it
        _migrate(settings, recorder)


def ensure_database(url: "URL", recorder: Recorder) -> bool:
    """Whether the database is there now, made if it was missing."""
    import psycopg

    name = url.database or ""
    try:
        _connect(url).close()
    except psycopg.OperationalError as error:
        if f'database "{name}" does not exist' not in str(error):
            raise _unreachable(url, error) from None
        recorder.change("database", name, "create", lambda: _create(url))
        return not recorder.dry_run
    return True


def _migrate(settings: Settings, recorder: Recorder) -> None:
    from sqlalchemy.exc import DBAPIError

    engine = postgres.engine(settings, pool_size=1)
    try:
        with engine.connect() as connection:
            pending = schema.pending(connection)
        if pending:
            recorder.change("ledger schema", pending[-1], "update", lambda: schema.migrate(engine))
    except DBAPIError as error:
        fault = postgres.classify(error)
        right = "CREATE on schema public" if postgres.sqlstate(error) == "42501" else None
        raise PlatformError(
            f"PostgreSQL {engine.url.database}: the ledger could not be migrated: {error.orig}",
            hint=None if right is None else f"grant {right} to {engine.url.username}",
            fault=fault,
        ) from error
    finally:
        engine.dispose()


def _connect(url: "URL", *, database: str | None = None) -> "psycopg.Connection":
    import psycopg

    plain = url.set(drivername="postgresql", database=database or url.database)
    return psycopg.connect(
        plain.render_as_string(hide_password=False), connect_timeout=CONNECT_TIMEOUT_S, autocommit=True
    )


def _create(url: "URL") -> None:
    import psycopg
    from psycopg import sql

    name = url.database or ""
    try:
        with _connect(url, database=MAINTENANCE_DATABASE) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    except psycopg.errors.DuplicateDatabase:
        return  # another provisioning run made it in between
    except psycopg.errors.InsufficientPrivilege:
        raise ConfigurationError(
            f"not allowed: CREATE DATABASE {name} as {url.username} on {url.host}",
            hint=f"let an administrator run: CREATE DATABASE {name} OWNER {url.username}",
        ) from None
    except psycopg.OperationalError as error:
        raise _unreachable(url, error) from None


def reason_of(error: Exception) -> str:
    """Why libpq got no session, in its words without the address, which stands beside it. Never the password."""
    first = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return first.rpartition("failed: ")[2].removeprefix("FATAL:").strip()


def _unreachable(url: "URL", error: Exception) -> PlatformError:
    fault = postgres.classify(error)
    configuration = fault is Fault.CONFIGURATION
    return PlatformError(
        f"PostgreSQL {url.host}:{url.port or 5432}/{url.database}: {reason_of(error)}",
        hint="check user, password and database in the URL" if configuration else "is the server up? is the port open?",
        fault=fault,
    )
