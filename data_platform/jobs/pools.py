"""How much each engine is asked to do at once, over all runs: the pools' limits with the reason beside each.

Dagster keeps a pool's limit in its storage, not in dagster.yaml; here is what a new installation begins with. A limit
that somebody has set (UI, `dagster instance concurrency set`) is theirs and is left alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import dagster as dg


@dataclass(frozen=True)
class Pool:
    """Ops at once, and why so many."""

    limit: int
    reason: str


POOLS: Mapping[str, Pool] = {
    "redshift": Pool(4, "an automatic queue grants 8 slots; analysts get the other half"),
    "clickhouse": Pool(4, "each INSERT may take 4 GiB and a core of a small server"),
    "athena": Pool(10, "half of the 20 active queries of a new account"),
    "postgres": Pool(2, "the statistics' upserts lock rows of one table"),
}


def ensure_pools(instance: dg.DagsterInstance) -> dict[str, int]:
    """Set the limit of every pool that has none of its own; returns what was set, by name."""
    storage = instance.event_log_storage
    if not storage.supports_global_concurrency_limits:
        return {}
    own = {limit.name for limit in storage.get_pool_limits() if not limit.from_default}
    missing = {name: pool.limit for name, pool in POOLS.items() if name not in own}
    for name, limit in missing.items():
        storage.set_concurrency_slots(name, limit)
    return missing
