"""What exactly-once rests on, asked at start: does this server keep one of two inserts with one token (releases have
ignored the token of INSERT SELECT), and has every partition the register knows its epoch?
"""

import logging
import secrets
from typing import TYPE_CHECKING

from data_platform.errors import ConfigurationError
from data_platform.loading.lock import PartitionLocks
from data_platform.loading.statement import INSERT_SETTINGS
from data_platform.settings import Settings

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

# By the names that TablePartition gives them.
_WITHOUT_EPOCH = """
SELECT DISTINCT concat(domain, '.', table, '/', toString(ds)) AS name
FROM (SELECT domain, table, ds FROM platform.objects UNION ALL SELECT domain, table, ds FROM platform.partitions)
WHERE name NOT IN (SELECT name FROM platform.locks)
"""
log = logging.getLogger(__name__)


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


def check_epochs(client: "Client", locks: PartitionLocks) -> int:
    """Give partitions whose epochs were lost, as by a partial restore, one again: nobody may take them for new.

    Returns how many there were. Raises LockHeldError where an epoch cannot be had.
    """
    names = [str(name) for (name,) in client.query(_WITHOUT_EPOCH).result_rows]
    for name in names:
        log.warning("platform.locks has lost the epoch of %s, which the register knows", name)
        with locks.hold(name):
            pass
    return len(names)
