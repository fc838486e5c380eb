"""Dagster's instance of the settings, for commands that run jobs in their own process."""

import functools
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg

from data_platform.errors import ConfigurationError
from data_platform.jobs.pools import ensure_pools
from data_platform.settings import Settings, variable_of

STATEMENT_TIMEOUT_MS = 60_000
POOL_RECYCLE_S = 600
POOL_OVERFLOW = 20


@contextmanager
def open_instance(settings: Settings) -> Generator[dg.DagsterInstance]:
    """The instance in DAGSTER_HOME, on its PostgreSQL; closed at the end.

    Raises ConfigurationError naming what is not set or not there.
    """
    settings.require("dagster_home", "dagster_postgres_url")
    home, url = settings.dagster_home, settings.dagster_postgres_url
    if home is None or url is None:
        raise AssertionError("require() has checked both")
    if not (home / "dagster.yaml").is_file():
        raise ConfigurationError(
            f"{home} holds no dagster.yaml",
            hint=f"copy the repository's to {variable_of('dagster_home')}",
        )
    # dagster.yaml reads these two; a command may have found them in the embedded cloud's file instead.
    os.environ["DAGSTER_HOME"] = str(Path(home).resolve())
    os.environ["DAGSTER_POSTGRES_URL"] = url.get_secret_value()
    with dg.DagsterInstance.get() as instance:
        # Dagster opens a connection per statement outside its webserver: five an event, a third of a small backfill.
        for storage in (instance.event_log_storage, instance.run_storage):
            storage.optimize_for_webserver(STATEMENT_TIMEOUT_MS, POOL_RECYCLE_S, POOL_OVERFLOW)
        # It also looks into PostgreSQL's catalogue for a table at every materialisation and every check, eleven a day.
        events: Any = instance.event_log_storage
        events.has_table = functools.cache(events.has_table)
        ensure_pools(instance)  # an installation's first command, or its loader, sets what dagster.yaml cannot
        yield instance
