"""What the metrics cost: from the blocks, for one more day, and against dropping everything and computing it again.

Every figure is a ratio or a time within this run on this machine. `--quick` takes a tenth of the events.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import clickhouse_connect

from data_platform.analytics.blocks import refresh_blocks
from data_platform.analytics.metrics import METRICS
from data_platform.analytics.summaries import metric_sql, rebuild_summary
from data_platform.catalog import load_catalog
from data_platform.catalog.ddl import database_ddl, table_ddl
from data_platform.catalog.models import Service
from data_platform.loading.schema import platform_ddl
from data_platform.local.process import EngineProcess

EVENTS, USERS, DAYS = 20_000_000, 400_000, 60
FIRST = date(2024, 1, 1)
SERVICE = Service(name="bench")
LIMITS = {"seven tables, s": 2.0, "MAU, ms": 50.0, "increment / bare insert": 3.0, "DROP + CTAS / increment": 20.0}
# Every user has days of activity; a session has up to a dozen events; a tenth comes without a session or user id.
GENERATE = """
INSERT INTO {table} (service_name, event_time, event_date, event_name, user_id, session_id, attributes, trace_id,
    record_uid, source_object, source_position, _ds, _object)
SELECT 'bench', toDateTime64('{day} 00:00:00', 9, 'UTC') + toIntervalSecond(visit % 84000 + 40 * (number % 6)),
    toDate('{day}'), ['page_view', 'product_view', 'add_to_cart', 'search', 'purchase', 'login'][rand(1) % 6 + 1],
    if(visit % 10 = 0, NULL, concat('user-', leftPad(toString(visit % {users}), 12, '0'))),
    if(visit % 10 = 1, NULL, lower(hex(sipHash128('{day}', visit)))),
    map('page', toString(number % 97)), lower(hex(sipHash128('t', visit))), lower(hex(sipHash128('{day}', number))),
    '{day}/log', number, toDate('{day}'), 'bench'
FROM (SELECT number, cityHash64('{day}', intDiv(number, 6)) AS visit FROM numbers({rows}))
"""
SAVE = "INSERT INTO FUNCTION file('{file}', Parquet) SELECT * FROM analytics.events WHERE _ds = '{day}'"
BARE = "INSERT INTO analytics.bare SELECT * FROM file('{file}', Parquet)"


class NoLocks:
    """Nobody else works here."""

    def hold(self, name: str, *, wait_s: float = 0) -> Any:  # noqa: ARG002 - the interface's
        """No lease."""
        return nullcontext()

    def check(self, lease: Any) -> None:
        """Always held."""


def seconds(call: Callable[[], object]) -> float:
    """How long a call takes."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def main() -> int:
    """Print the figures; 1 when a limit is broken."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    scale = 10 if parser.parse_args().quick else 1
    catalog = load_catalog(Path(__file__).resolve().parents[1] / "catalog")
    with tempfile.TemporaryDirectory() as folder:
        engine = EngineProcess.with_free_ports("clickhouse", Path(folder) / "engine").start()
        try:
            client = clickhouse_connect.get_client(
                host=engine.env["CLICKHOUSE_HOST"],
                port=int(engine.env["CLICKHOUSE_PORT"]),
                username=engine.env["CLICKHOUSE_USER"],
                password=engine.env["CLICKHOUSE_PASSWORD"],
                autogenerate_session_id=False,
                send_receive_timeout=1800,
            )
            events = catalog.dataset("analytics/events")
            for statement in [database_ddl("analytics"), *platform_ddl(), table_ddl(events)]:
                client.command(statement)
            found = measure(client, EVENTS // scale // DAYS, USERS // scale, Path(folder) / "day.parquet")
            client.close()
        finally:
            engine.stop()
    broken = [name for name, limit in LIMITS.items() if (found[name] < limit) == name.startswith("DROP")]
    broken += [name for name, limit in {"history x 10, daily cost": 1.2}.items() if found[name] > limit]
    print("broken: " + ", ".join(broken) if broken else "every limit holds")
    return 1 if broken else 0


def measure(client: Any, rows: int, users: int, file: Path) -> dict[str, float]:
    """All figures; `rows` a day; `file` holds one day's Parquet for a while."""
    locks = NoLocks()
    days = [FIRST + timedelta(days=n) for n in range(DAYS + 1)]

    def generate(day: date) -> None:
        client.command(
            GENERATE.format(table="analytics.events", day=day, rows=rows, users=users),
            settings={"insert_deduplicate": 0},
        )

    def increment() -> None:
        refresh_blocks(client, locks, [SERVICE])
        for metric in METRICS:
            rebuild_summary(client, locks, SERVICE, metric, days[-1])

    history: dict[int, float] = {}
    for count in (DAYS // 10, DAYS):
        for day in days[:count]:
            if not int(str(client.command(f"SELECT count() FROM analytics.events WHERE _ds = '{day}'"))):
                generate(day)
        built = seconds(increment)
        samples: list[float] = []
        for _ in range(3):
            generate(days[count])
            samples.append(seconds(increment))
            client.command(f"ALTER TABLE analytics.events DROP PARTITION '{days[count]}'")
            increment()
        history[count] = statistics.median(samples)
        print(f"{count} days of {rows:,} events: built in {built:.1f} s, one more day {history[count]:.2f} s")
    daily = history[DAYS]
    generate(days[-1])
    client.command("CREATE TABLE analytics.bare AS analytics.events")
    client.command(SAVE.format(day=days[-1], file=file))
    bare: list[float] = []
    for _ in range(3):
        client.command("TRUNCATE TABLE analytics.bare SYNC")
        bare.append(seconds(lambda: client.command(BARE.format(file=file))))
    client.command(f"ALTER TABLE analytics.events DROP PARTITION '{days[-1]}'")
    increment()
    parameters = {"services": [SERVICE.name], "days": days[:DAYS], "execution_date": days[-1]}

    def warm(metric: str) -> float:
        sql = f"SELECT * FROM ({metric_sql(metric, SERVICE)}) FORMAT Null"
        return min(seconds(lambda: client.command(sql, parameters=parameters)) for _ in range(3))

    times = {metric: warm(metric) for metric in METRICS}
    for block in ("event_days", "user_days", "session_parts", "sessions", "session_days", "day_users", "record_uids",
                  "user_ids", "built", "changes", "published"):  # fmt: skip
        client.command(f"TRUNCATE TABLE analytics_blocks.{block}")
    for metric in METRICS:
        client.command(f"DROP TABLE analytics.bench_{metric}_summary")
    everything = seconds(increment)
    found = {
        "seven tables, s": sum(times.values()),
        "MAU, ms": times["mau"] * 1000,
        "increment / bare insert": daily / statistics.median(bare),
        "DROP + CTAS / increment": everything / daily,
        "history x 10, daily cost": history[DAYS] / history[DAYS // 10],
    }
    print(", ".join(f"{metric} {took * 1000:.0f} ms" for metric, took in times.items()))
    print(f"bare insert of a day's Parquet {statistics.median(bare):.2f} s, everything anew {everything:.1f} s")
    for name, value in found.items():
        print(f"  {name}: {value:.2f}")
    return found


if __name__ == "__main__":
    sys.exit(main())
