"""ClickHouse: the loader's own tables, the domains' databases and tables. What a table must look like: catalog.ddl."""

import re
from typing import TYPE_CHECKING

from data_platform.catalog import Catalog, live
from data_platform.clients import clickhouse
from data_platform.errors import PlatformError
from data_platform.loading.schema import platform_ddl
from data_platform.provisioning.report import Action, Recorder
from data_platform.settings import Settings

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

_CREATES = re.compile(r"\s*CREATE\s+(DATABASE|TABLE|VIEW)\s+IF\s+NOT\s+EXISTS\s+([\w.`]+)", re.IGNORECASE)
_ACTIONS: dict[live.Kind, Action] = {live.Kind.CREATE: "create", live.Kind.ALTER: "update"}


def provision_clickhouse(settings: Settings, catalog: Catalog, recorder: Recorder) -> None:
    """Make databases and tables and apply what is safe; what a person must decide is reported as skipped.

    Raises PlatformError naming the object and, in the server's words, the right that is missing.
    """
    with clickhouse.connect(settings) as client:
        _make(client, platform_ddl(settings.clickhouse_cluster), recorder)
        for change in live.diff(catalog, client, cluster=settings.clickhouse_cluster):
            action = _ACTIONS.get(change.kind)
            if action is None or change.statement is None:
                recorder.skip(f"clickhouse {change.target}", change.detail)
            else:
                statement = change.statement
                recorder.change(
                    "clickhouse",
                    change.target,
                    action,
                    lambda statement=statement, target=change.target: _command(client, target, statement),
                )


def _make(client: "Client", statements: list[str], recorder: Recorder) -> None:
    """Run the CREATE ... IF NOT EXISTS of what is not there."""
    existing = {
        str(name)
        for (name,) in client.query(
            "SELECT name FROM system.databases UNION ALL SELECT concat(database, '.', name) FROM system.tables"
        ).result_rows
    }
    for statement in statements:
        created = _CREATES.match(statement)
        if created is None:
            raise PlatformError(f"not a CREATE ... IF NOT EXISTS: {statement[:80]}")
        name = created[2].replace("`", "")
        if name not in existing:
            recorder.change(
                "clickhouse",
                name,
                "create",
                lambda statement=statement, name=name: _command(client, name, statement),
            )


def _command(client: "Client", target: str, statement: str) -> None:
    from clickhouse_connect.driver.exceptions import DatabaseError

    try:
        client.command(statement)
    except DatabaseError as error:
        reason = clickhouse.inner_code(error).message.splitlines()[0]
        raise PlatformError(
            f"ClickHouse {target}: {reason}",
            hint="the right it names has to be granted to CLICKHOUSE_USER" if "grant" in reason else None,
            fault=clickhouse.classify(error),
        ) from error
