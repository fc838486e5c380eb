"""The `clickhouse` child of the embedded cloud: configuration, database and HTTP front together.

The caller's query id is what `system.query_log` and `system.processes` show as query_id and what
`KILL QUERY WHERE query_id = ...` takes, although the engine uses ids of its own underneath; `log_comment` holds it too
unless the caller sets another comment.

Different from a server: no progress headers while a query runs (a client's read time-out sees a long query as silence),
no `compress=1` / `decompress=1` (ClickHouse's own block compression; Content-Encoding works), no Keeper and so no
Replicated tables and no clusters, one user, TRUNCATE of `system.query_log` (a view here).
"""

import shutil
import threading
from pathlib import Path

from data_platform.local.clickhouse import config
from data_platform.local.clickhouse.database import Database
from data_platform.local.clickhouse.front import FAULT_KINDS, Front
from data_platform.local.engine import EngineContext

USER = "default"
PASSWORD = "embedded"  # noqa: S105 - loopback only
CLOSE_TIMEOUT_S = 4.0


class ClickHouseEngine:
    """ClickHouse on loopback HTTP, its data in the state folder."""

    NAME = "clickhouse"
    PORTS = ("http",)
    FAULT_KINDS = FAULT_KINDS
    NEEDS = ("aws",)

    def __init__(self) -> None:
        self._database: Database | None = None
        self._front: Front | None = None

    def start(self, context: EngineContext) -> dict[str, str]:
        """Open the data and serve. Options: `env` (AWS keys of the named collection), `user`, `password`."""
        spool = context.state / "spool"
        shutil.rmtree(spool, ignore_errors=True)
        spool.mkdir(parents=True)
        data = context.state / "data"
        data.mkdir(exist_ok=True)
        settings = config.write(context.state, context.options.get("env", {}))
        user, password = context.options.get("user", USER), context.options.get("password", PASSWORD)
        self._database = Database(Path(data), settings, spool)
        self._front = Front(context.ports["http"], self._database, context.faults, spool, user=user, password=password)
        threading.Thread(target=self._front.serve_forever, name="clickhouse-http", daemon=True).start()
        return {
            "CLICKHOUSE_HOST": "127.0.0.1",
            "CLICKHOUSE_PORT": str(context.ports["http"]),
            "CLICKHOUSE_USER": user,
            "CLICKHOUSE_PASSWORD": password,
            "DATA_PLATFORM_CLICKHOUSE_SECURE": "false",
            "DATA_PLATFORM_CLICKHOUSE_S3_COLLECTION": config.S3_COLLECTION,
        }

    def stop(self) -> None:
        """Take no more requests, cancel what runs, close the data; gives up waiting after 4 s (data are on disk)."""
        if self._database is None or self._front is None:
            return  # it never came up: say why, and leave no other error
        self._front.shutdown()
        self._front.server_close()
        closing = threading.Thread(target=self._database.close, name="clickhouse-close", daemon=True)
        closing.start()
        closing.join(CLOSE_TIMEOUT_S)
