"""Does this server keep one of two inserts with one token? Releases have ignored the token of INSERT SELECT; asked at
start, because without it nothing here is exactly-once.
"""

import secrets
from typing import TYPE_CHECKING

from data_platform.errors import ConfigurationError
from data_platform.loading.statement import INSERT_SETTINGS
from data_platform.settings import Settings

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client


def check_deduplication(client: "Client", settings: Settings) -> None:
    """Insert the same block twice with one token. Raises ConfigurationError unless one of the two is kept."""
    name = f"platform.selftest_{secrets.token_hex(6)}"
    clustered = settings.clickhouse_cluster is not None
    engine = "ReplicatedMergeTree" if clustered else "MergeTree"
    window = "replicated_deduplication_window" if clustered else "non_replicated_deduplication_window"
    client.command(f"CREATE TABLE {name} (n UInt64) ENGINE = {engine} ORDER BY n SETTINGS {window} = 100")
    try:
        for _ in range(2):
            # No s3() in it: what is asked is whether INSERT SELECT honours the token under our settings.
            client.command(
                f"INSERT INTO {name} SELECT number FROM numbers(3)",
                settings={**INSERT_SETTINGS, "insert_deduplication_token": "selftest"},
            )
        rows = int(str(client.command(f"SELECT count() FROM {name}")))
    finally:
        client.command(f"DROP TABLE IF EXISTS {name} SYNC")
    if rows != 3:
        raise ConfigurationError(
            f"ClickHouse {client.server_version} kept {rows} rows of two inserts of the same 3 with one token",
            hint="this release ignores insert_deduplication_token of INSERT SELECT; 26.9 is known to honour it",
        )
