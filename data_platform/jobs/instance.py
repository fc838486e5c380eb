"""Dagster's instance of the settings, for commands that run jobs in their own process."""

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg

from data_platform.errors import ConfigurationError
from data_platform.jobs.pools import ensure_pools
from data_platform.settings import Settings, variable_of


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
            hint=f"copy dagster.yaml of the repository into the folder that {variable_of('dagster_home')} names",
        )
    # dagster.yaml reads these two; a command may have found them in the embedded cloud's file instead.
    os.environ["DAGSTER_HOME"] = str(Path(home).resolve())
    os.environ["DAGSTER_POSTGRES_URL"] = url.get_secret_value()
    with dg.DagsterInstance.get() as instance:
        ensure_pools(instance)  # an installation's first command, or its loader, sets what dagster.yaml cannot
        yield instance
