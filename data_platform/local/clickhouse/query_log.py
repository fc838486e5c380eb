"""The query log across restarts, and the view that shows the callers' ids.

chDB keeps the `system` database in memory and makes the log's table anew on each start, over the parts of the last one;
a server's log survives. So the parts are put aside before the engine opens and attached to the new table afterwards.
"""

import importlib
import logging
import shutil
from pathlib import Path
from typing import Any

from data_platform.local.clickhouse.config import QUERY_ID_SETTING, RAW_QUERY_LOG

TABLE = Path("data") / "system" / RAW_QUERY_LOG
ASIDE = "query_log_aside"

logger = logging.getLogger(__name__)


def put_aside(state: Path, data: Path) -> None:
    """Move the finished parts of the last run out of the new table's way."""
    aside = state / ASIDE
    aside.mkdir(exist_ok=True)
    for part in (data / TABLE).glob("[0-9]*_*_*_*"):
        part.rename(aside / f"{len(list(aside.iterdir()))}-{part.name}")


def restore(connection: Any, state: Path, data: Path) -> None:
    """Make the log's table, attach what was put aside, and show the callers' ids in `system.query_log`."""
    connection.query("SYSTEM FLUSH LOGS")  # makes the table
    aside = state / ASIDE
    for part in sorted(aside.iterdir()):
        name = part.name.partition("-")[2]
        shutil.rmtree(data / TABLE / "detached" / name, ignore_errors=True)
        part.rename(data / TABLE / "detached" / name)
        try:
            connection.query(f"ALTER TABLE system.{RAW_QUERY_LOG} ATTACH PART '{name}'")
        except (
            RuntimeError,
            importlib.import_module("chdb").ChdbError,
        ) as error:  # of another version, or cut off by a kill: a log, not data
            logger.warning("the query log's part %s is left out: %s", name, error)
    tag = f"Settings['{QUERY_ID_SETTING}']"
    columns = ", ".join(f"if({tag} = '', {name}, {tag}) AS {name}" for name in ("query_id", "initial_query_id"))
    rows = f"SELECT * REPLACE ({columns}) FROM system.{RAW_QUERY_LOG}"
    connection.query(f"CREATE OR REPLACE VIEW system.query_log AS {rows}")
