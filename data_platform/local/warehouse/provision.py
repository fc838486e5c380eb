"""What the embedded server holds before anybody works with it: roles, databases, Redshift's functions and views.

Idempotent; run at every start, so that a new version of the SQL files reaches old state folders.
"""

from importlib.resources import files
from typing import TYPE_CHECKING, LiteralString, cast

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from data_platform.local.warehouse.postgres import SUPERUSER, PostgresServer

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

USER = "data_platform"
PASSWORD = "embedded"  # noqa: S105 - a loopback engine; the superuser's password is random
DATABASES = ("data_platform", "dagster", "warehouse")
WAREHOUSE = "warehouse"


def superuser_dsn(server: PostgresServer, database: str) -> str:
    """libpq connection string of the superuser."""
    return make_conninfo(
        host="127.0.0.1", port=server.port, user=SUPERUSER, password=server.superuser_password, dbname=database
    )


def provision(server: PostgresServer) -> None:
    """Make what is missing. The platform's role is no superuser, as an administrator of Redshift is none."""
    with psycopg.connect(superuser_dsn(server, "postgres"), autocommit=True) as connection:
        if connection.execute("SELECT FROM pg_roles WHERE rolname = %s", [USER]).fetchone() is None:
            connection.execute(
                sql.SQL("CREATE ROLE {} LOGIN CREATEDB CREATEROLE PASSWORD {}").format(
                    sql.Identifier(USER), sql.Literal(PASSWORD)
                )
            )
            connection.execute(sql.SQL("GRANT pg_read_all_stats, pg_signal_backend TO {}").format(sql.Identifier(USER)))
        for database in DATABASES:
            if connection.execute("SELECT FROM pg_database WHERE datname = %s", [database]).fetchone() is None:
                connection.execute(
                    sql.SQL("CREATE DATABASE {} OWNER {} STRATEGY file_copy").format(
                        sql.Identifier(database), sql.Identifier(USER)
                    )
                )
    with psycopg.connect(superuser_dsn(server, WAREHOUSE)) as connection:
        for script in _scripts():
            connection.execute(cast("LiteralString", script.read_text()))


def _scripts() -> "list[Traversable]":
    folder = files("data_platform.local.warehouse") / "sql"
    return sorted((file for file in folder.iterdir() if file.name.endswith(".sql")), key=lambda file: file.name)
