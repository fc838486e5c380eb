"""Statements of ours that may still run in the server although whoever sent them is gone, or hears nothing of them.

A lost connection ends no INSERT. Before a partition is judged by its rows, nothing may be under way in it.
"""

import time
from typing import TYPE_CHECKING

from data_platform.catalog.ddl import literal
from data_platform.errors import UnknownOutcomeError
from data_platform.settings import Settings

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

POLL_S = 0.1  # a look costs the server 5 ms; an INSERT, whose end it is, 60 and more
KILL_WAIT_S = 60.0


def running(client: "Client", settings: Settings, prefix: str) -> list[str]:
    """Ids of the running statements whose id begins with `prefix`, on every replica of a cluster."""
    rows = client.query(
        f"SELECT query_id FROM {_processes(settings)} WHERE startsWith(query_id, {{prefix:String}})",
        parameters={"prefix": prefix},
    ).result_rows
    return [str(query_id) for (query_id,) in rows]


def wait_ended(client: "Client", settings: Settings, prefix: str, *, patience_s: float) -> None:
    """Return when no statement of `prefix` runs; those that outlast `patience_s` are killed.

    Raises UnknownOutcomeError when one does not even end then; the client's errors when the server cannot be asked.
    """
    kill_at = time.monotonic() + patience_s
    give_up_at = kill_at + KILL_WAIT_S
    killed: set[str] = set()
    while found := running(client, settings, prefix):
        now = time.monotonic()
        if now >= give_up_at:
            raise UnknownOutcomeError(
                f"ClickHouse still runs {', '.join(found)} although it was told to stop",
                hint="see it: SELECT query_id, elapsed, query FROM system.processes; nothing is repeated until it ends",
            )
        if now >= kill_at:
            for query_id in set(found) - killed:
                client.command(f"KILL QUERY{_on_cluster(settings)} WHERE query_id = {literal(query_id)} ASYNC")
                killed.add(query_id)
        time.sleep(POLL_S)


def _processes(settings: Settings) -> str:
    cluster = settings.clickhouse_cluster
    return "system.processes" if cluster is None else f"clusterAllReplicas({literal(cluster)}, system.processes)"


def _on_cluster(settings: Settings) -> str:
    return "" if settings.clickhouse_cluster is None else f" ON CLUSTER {literal(settings.clickhouse_cluster)}"
