"""Where Dagster keeps its runs and events: PostgreSQL, by DAGSTER_POSTGRES_URL. Named in dagster.yaml.

Dagster's own `postgres_url: {env: ...}` fails while the file is read, so `dg check defs` and `dg list defs` would need
a database. Without DAGSTER_HOME these commands make an instance that is thrown away; it gets a throw-away SQLite.
"""

import atexit
import os
import shutil
import tempfile
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa  # noqa: TID253 - only what opens an instance comes here

# Dagster imports this module only to open an instance. Neither of these has a public name.
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage
from dagster._serdes import ConfigurableClassData
from dagster_postgres import DagsterPostgresStorage  # noqa: TID253
from sqlalchemy import event  # noqa: TID253
from sqlalchemy.exc import DisconnectionError  # noqa: TID253

from data_platform.errors import ConfigurationError
from data_platform.resources.event_log import EventLog

URL_VARIABLE = "DAGSTER_POSTGRES_URL"
HOME_VARIABLE = "DAGSTER_HOME"
BATCH_VARIABLE = "DAGSTER_EVENT_BATCH_SIZE"  # how many events Dagster hands over at once; without it, one
BATCH_EVENTS = 1_000
STATEMENT_TIMEOUT_MS = 600_000  # longer than any statement of Dagster's should take, shorter than a hang
POOL_RECYCLE_S = 600
POOL_OVERFLOW = 20


class InstanceStorage(DagsterPostgresStorage):
    """DagsterPostgresStorage whose URL comes from the environment when the storage is made.

    It keeps a connection each for runs and events, where Dagster outside its webserver opens one per statement: five an
    event. A run announces its partitions in one batch.
    """

    def __init__(self, postgres_url: str, inst_data: ConfigurableClassData | None = None) -> None:
        super().__init__(postgres_url, inst_data=inst_data)
        self._event_log_storage = EventLog(postgres_url)
        for storage in (self._event_log_storage, self._run_storage):
            storage.optimize_for_webserver(STATEMENT_TIMEOUT_MS, POOL_RECYCLE_S, POOL_OVERFLOW)
            _check_before_use(storage._engine)  # pyright: ignore[reportPrivateUsage] - no option does it
        os.environ.setdefault(BATCH_VARIABLE, str(BATCH_EVENTS))

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        """No configuration of its own."""
        return {}

    @classmethod
    def from_config_value(  # pyright: ignore[reportIncompatibleMethodOverride] - either of two storages
        cls,
        inst_data: Any,
        config_value: Mapping[str, Any],  # noqa: ARG003 - Dagster's signature; the configuration is empty
    ) -> "InstanceStorage | DagsterSqliteStorage":
        """The storage of DAGSTER_POSTGRES_URL. Raises ConfigurationError when an instance of its own has none."""
        url = os.environ.get(URL_VARIABLE)
        if url:
            # Dagster listens for events through psycopg2; a SQLAlchemy URL of psycopg 3 would select another driver.
            return cls(url.replace("postgresql+psycopg://", "postgresql://", 1), inst_data=inst_data)
        if os.environ.get(HOME_VARIABLE):
            raise ConfigurationError(
                f"not set: {URL_VARIABLE}",
                hint='set it in the environment, or use the embedded cloud: eval "$(data-platform cloud env)"',
            )
        folder = tempfile.mkdtemp(prefix="dagster-throw-away-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        return DagsterSqliteStorage.from_local(folder)


def _check_before_use(engine: sa.Engine) -> None:
    """Replace a connection that PostgreSQL has closed meanwhile (a restart, a failover): it must not fail a run."""

    def alive(connection: Any, _record: object, _proxy: object) -> None:
        try:
            engine.dialect.do_ping(connection)
        except engine.dialect.loaded_dbapi.Error as error:
            raise DisconnectionError(str(error)) from error

    event.listen(engine, "checkout", alive)
