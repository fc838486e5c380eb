"""Questions to the register for people: what became of objects, and how the last hour went."""

from datetime import date
from typing import TYPE_CHECKING, Any

from data_platform.errors import ConfigurationError
from data_platform.loading.register import State

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

_HISTORY = """
SELECT concat(domain, '/', table) AS dataset, ds, key, version, state, rows, bytes, attempts, code, reason,
    if(state = 'loaded', dateDiff('millisecond', event_at, finished_at) / 1000, NULL) AS latency_s,
    plan, generation, query_id, toString(greatest(started_at, finished_at)) AS changed_at, worker
FROM (
    SELECT * FROM platform.objects
    WHERE {conditions}
    ORDER BY generation DESC, revision DESC LIMIT 1 BY domain, table, ds, object
)
WHERE ({{state:String}} = '' OR state = {{state:String}})
ORDER BY revision DESC
LIMIT {{limit:UInt32}}
"""
_LAST_HOUR = """
SELECT domain, countIf(state = 'loaded') AS loaded, sumIf(rows, state = 'loaded') AS rows,
    countIf(state = 'failed') AS failed,
    if(loaded = 0, NULL, quantileIf(0.95)(dateDiff('millisecond', event_at, finished_at) / 1000, state = 'loaded'))
FROM platform.objects FINAL
WHERE finished_at > now() - INTERVAL 1 HOUR AND state IN ('loaded', 'failed')
GROUP BY domain
"""


def object_history(
    client: "Client",
    *,
    dataset: str | None = None,
    ds: date | None = None,
    key: str | None = None,
    state: str | None = None,
    limit: int = 50,
) -> list[dict[str, Any]]:
    """The newest word on every object version that fits, newest first."""
    if state is not None and state not in set(State):
        raise ConfigurationError(f"no state {state}", hint=f"states: {', '.join(State)}")
    conditions = ["1"]
    parameters: dict[str, Any] = {"state": state or "", "limit": limit}
    if dataset is not None:
        domain, _, table = dataset.partition("/")
        conditions.append("domain = {domain:String} AND table = {table:String}")
        parameters |= {"domain": domain, "table": table}
    if ds is not None:
        conditions.append("ds = {ds:Date}")
        parameters["ds"] = ds
    if key is not None:
        conditions.append("position(key, {key:String}) > 0")
        parameters["key"] = key
    result = client.query(_HISTORY.format(conditions=" AND ".join(conditions)), parameters=parameters)
    return [dict(zip(result.column_names, row, strict=True)) for row in result.result_rows]


def last_hour(client: "Client") -> dict[str, dict[str, Any]]:
    """Loads, rows, failures and the 95th percentile of the latency in seconds, by domain."""
    return {
        str(domain): {
            "loaded": loaded,
            "rows": rows,
            "failed": failed,
            "p95_latency_s": None if p95 is None else round(float(p95), 2),
        }
        for domain, loaded, rows, failed, p95 in client.query(_LAST_HOUR).result_rows
    }
