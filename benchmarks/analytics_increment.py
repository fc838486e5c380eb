"""What the metrics cost: from the blocks, for one more day, and against dropping every table and computing it again.

Two engines, one with a tenth of the other's history. The old way is `whole_tables/`: the seven tables straight from the
raw events, each dropped and created; its results must equal ours. Every figure is a ratio or a time within this run on
this machine. `--quick` takes a tenth of the events; `--state FOLDER` keeps the generated events for the next run;
`--uids random` has record ids that tell nothing of their time, so that copies are looked for among all records.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import clickhouse_connect

from data_platform.analytics.blocks import refresh_blocks
from data_platform.analytics.metrics import METRICS
from data_platform.analytics.summaries import metric_sql, rebuild_summaries
from data_platform.catalog import load_catalog
from data_platform.catalog.ddl import database_ddl, literal, table_ddl
from data_platform.catalog.models import Service
from data_platform.loading.schema import platform_ddl
from data_platform.local.process import EngineProcess

EVENTS, USERS, DAYS = 20_000_000, 400_000, 60
FIRST = date(2024, 1, 5)  # the day after the history lies within a month, as most do
SERVICE = Service(name="bench")
SAMPLES, WARM_UP = 7, 2  # the first days pay for the merges that building all days at once left behind
LIMITS = {  # at most
    "seven tables from the blocks, s": 2.0,
    "rolling MAU from the bitmaps, ms": 50.0,
    "one more day / bare insert of it": 3.0,
    "ten times the history, without retention": 1.2,
}
LEAST = {"DROP + CTAS / one more day": 20.0}
# Every user has days of activity; a session has up to a dozen events; a tenth comes without a session or user id.
GENERATE = """
INSERT INTO {table} (service_name, event_time, event_date, event_name, user_id, session_id, attributes, trace_id,
    record_uid, source_object, source_position, _ds, _object)
SELECT 'bench', toDateTime64('{day} 00:00:00', 9, 'UTC') + toIntervalSecond(visit % 86200 + 40 * (number % 6)) AS time,
    toDate('{day}'), ['page_view', 'product_view', 'add_to_cart', 'search', 'purchase', 'login'][rand(1) % 6 + 1],
    if(visit % 10 = 0, NULL, concat('user-', leftPad(toString(visit % {users}), 12, '0'))),
    if(visit % 10 = 1, NULL, lower(hex(sipHash128('{seed}', visit)))),
    map('page', toString(number % 97)), lower(hex(sipHash128('t', visit))), {uid},
    '{day}/log', number, toDate('{day}'), 'bench'
FROM (SELECT number, cityHash64('{seed}', intDiv(number, 6)) AS visit FROM numbers({rows}))
"""
# What OpenTelemetry recommends, ULIDs: ten digits of time, sixteen of chance. Or 128 bits of chance, in any order.
UIDS = {
    "ulid": """concat(arrayStringConcat(arrayMap(n -> substring('0123456789ABCDEFGHJKMNPQRSTVWXYZ',
        bitAnd(bitShiftRight(toUnixTimestamp64Milli(time), 5 * (9 - n)), 31) + 1, 1), range(10))),
        substring(hex(sipHash128('{seed}', number)), 1, 16))""",
    "random": "lower(hex(sipHash128('{seed}', number)))",
}
SAVE = "INSERT INTO FUNCTION file('{file}', Parquet) SELECT * FROM analytics.events WHERE _ds = '{day}'"
BARE = "INSERT INTO analytics.bare SELECT * FROM {source}"
BUCKET = "benchmark"
COLUMNS = "SELECT name, type FROM system.columns WHERE database = 'analytics' AND table = 'events' ORDER BY position"


class NoLocks:
    """Nobody else works here."""

    def hold(self, name: str, *, wait_s: float = 0) -> Any:  # noqa: ARG002 - the interface's
        """No lease."""
        return nullcontext()

    def check(self, lease: Any) -> None:
        """Always held."""


LOCKS = NoLocks()


def seconds(call: Callable[[], object]) -> float:
    """How long a call takes."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def main() -> int:
    """Print the figures; 1 when a limit is broken."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--state", type=Path)
    parser.add_argument("--uids", choices=UIDS, default="ulid")
    options = parser.parse_args()
    scale = 10 if options.quick else 1
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        state: Path = options.state or Path(folder)  # of which each kind of ids has its own events
        with shop(state / options.uids / "short", DAYS // 10, scale, options.uids) as short:
            shorter = short.one_more_day().without_retention
        with shop(state / options.uids / "long", DAYS, scale, options.uids) as long:
            with long.bare_sources(Path(folder)) as sources:
                day = long.one_more_day(sources)
            found["ten times the history, without retention"] = day.without_retention / shorter
            remote, local = day.bare
            found["one more day / bare insert of it"] = day.whole / remote
            print(f"bare insert of a day's Parquet {remote:.2f} s, from a file beside the server {local:.2f} s")
            print(f"one more day / bare insert of it from a file beside the server: {day.whole / local:.2f}")
            times = long.warm()
            found["seven tables from the blocks, s"] = sum(times.values())
            found["rolling MAU from the bitmaps, ms"] = times["mau"] * 1000
            found["DROP + CTAS / one more day"] = long.old_way() / day.whole
    for name, limit in LIMITS.items():
        print(f"{name}: {found[name]:.2f} (limit {limit:g})")
    for name, limit in LEAST.items():
        print(f"{name}: {found[name]:.2f} (limit {limit:g}, at least)")
    broken = [name for name, limit in LIMITS.items() if found[name] > limit]
    broken += [name for name, limit in LEAST.items() if found[name] < limit]
    print("broken: " + ", ".join(broken) if broken else "every limit holds")
    return 1 if broken else 0


@contextmanager
def shop(state: Path, history: int, scale: int, uids: str) -> Generator["Shop"]:
    """A shop with so many days of events and everything built from them, in an engine of its own."""
    engine = EngineProcess.with_free_ports("clickhouse", state).start()
    try:
        client = clickhouse_connect.get_client(
            host=engine.env["CLICKHOUSE_HOST"],
            port=int(engine.env["CLICKHOUSE_PORT"]),
            username=engine.env["CLICKHOUSE_USER"],
            password=engine.env["CLICKHOUSE_PASSWORD"],
            autogenerate_session_id=False,
            send_receive_timeout=1800,
        )
        events = load_catalog(Path(__file__).resolve().parents[1] / "catalog").dataset("analytics/events")
        for statement in [database_ddl("analytics"), *platform_ddl(), table_ddl(events)]:
            client.command(statement)
        found = Shop(client, history, EVENTS // scale // DAYS, USERS // scale, UIDS[uids])
        found.fill()
        yield found
        client.close()
    finally:
        engine.stop()


@contextmanager
def s3_object(state: Path, file: Path) -> Generator[tuple[str, str, str]]:
    """The file as an object of the embedded S3: its URL, key id and secret."""
    import boto3

    engine = EngineProcess.with_free_ports("aws", state).start()
    try:
        env = engine.env
        endpoint, key, secret = (env[f"AWS_{name}"] for name in ("ENDPOINT_URL", "ACCESS_KEY_ID", "SECRET_ACCESS_KEY"))
        s3: Any = boto3.client(
            "s3", endpoint_url=endpoint, aws_access_key_id=key, aws_secret_access_key=secret, region_name="us-east-1"
        )
        s3.create_bucket(Bucket=BUCKET)
        s3.upload_file(str(file), BUCKET, file.name)
        yield f"{endpoint}/{BUCKET}/{file.name}", key, secret
    finally:
        engine.stop()


@dataclass(frozen=True)
class Costs:
    """Median seconds of one more day, of one without the retention, and of bare inserts by source."""

    whole: float
    without_retention: float
    bare: list[float]


class Shop:
    """`days` of history, `rows` events a day."""

    def __init__(self, client: Any, days: int, rows: int, users: int, uid: str) -> None:
        self.client, self.rows, self.users, self.uid = client, rows, users, uid
        self.history = [FIRST + timedelta(days=n) for n in range(days)]
        self.next = FIRST + timedelta(days=days)

    def fill(self) -> None:
        """Generate the days that are missing, build everything anew: days of earlier runs left traces."""
        self.client.command("DROP DATABASE IF EXISTS analytics_blocks SYNC")
        held = {row[0] for row in self.client.query("SELECT DISTINCT _ds FROM analytics.events").result_rows}
        for day in held - set(self.history):
            self.drop(day)
        for day in self.history:
            if day not in held:
                self.generate(day)
        took = seconds(self.increment)
        print(f"{len(self.history)} days of {self.rows:,} events: {took:.1f} s to bring the tables up to date")

    def generate(self, day: date, seed: str = "") -> None:
        """One day's events; others by another seed."""
        self.client.command(
            GENERATE.replace("{uid}", self.uid).format(
                table="analytics.events", day=day, seed=seed or day, rows=self.rows, users=self.users
            ),
            settings={"insert_deduplicate": 0},
        )

    def drop(self, day: date) -> None:
        """Its events gone again."""
        self.client.command(f"ALTER TABLE analytics.events DROP PARTITION '{day}'")

    def increment(self, metrics: Sequence[str] = tuple(METRICS)) -> None:
        """Bring blocks and tables up to date."""
        refresh_blocks(self.client, LOCKS, [SERVICE])
        rebuild_summaries(self.client, LOCKS, SERVICE, metrics, self.next)

    def one_more_day(self, sources: Sequence[str] = ()) -> "Costs":
        """What the day after the history costs, by turns with bare inserts of one; every day is one never seen."""
        whole: list[float] = []
        without: list[float] = []
        bare: dict[str, list[float]] = {source: [] for source in sources}
        for sample in range(SAMPLES + WARM_UP):
            for source, times in bare.items():
                self.client.command("TRUNCATE TABLE analytics.bare SYNC")
                times.append(seconds(partial(self.client.command, BARE.format(source=source))))
            for retention, times in ((True, whole), (False, without)):
                metrics = [name for name in METRICS if retention or name != "retention"]
                self.generate(self.next, f"{self.next} {sample} {retention}")
                self.settle()
                times.append(seconds(partial(self.increment, metrics)))
                self.drop(self.next)
                self.increment()
        whole, without, *others = (times[WARM_UP:] for times in (whole, without, *bare.values()))
        found = Costs(statistics.median(whole), statistics.median(without), [*map(statistics.median, others)])
        print(
            f"{len(self.history)} days: one more day {found.whole:.2f} s, "
            f"without the retention {found.without_retention:.2f} s"
        )
        return found

    def settle(self) -> None:
        """Wait until nothing is merged: what went before is not measured."""
        while int(str(self.client.command("SELECT count() FROM system.merges"))):
            time.sleep(0.05)

    @contextmanager
    def bare_sources(self, folder: Path) -> Generator[list[str]]:
        """The Parquet of one day on S3, where it lies, and in a file beside the server, for BARE.

        Its structure is known beforehand: the statement is not made to look for it.
        """
        file = folder / "day.parquet"
        self.generate(self.next)
        self.client.command("CREATE TABLE IF NOT EXISTS analytics.bare AS analytics.events")
        self.client.command(SAVE.format(day=self.next, file=file))
        self.drop(self.next)
        structure = literal(", ".join(f"{name} {kind}" for name, kind in self.client.query(COLUMNS).result_rows))
        with s3_object(folder / "aws", file) as (url, key, secret):
            yield [
                f"s3('{url}', '{key}', '{secret}', 'Parquet', {structure})",
                f"file('{file}', Parquet, {structure})",
            ]
        self.client.command("DROP TABLE analytics.bare SYNC")

    def warm(self) -> dict[str, float]:
        """Seconds of each metric over the whole history, from the blocks: the best of three."""
        parameters = {"services": [SERVICE.name], "days": self.history, "execution_date": self.next}

        def best(metric: str) -> float:
            sql = f"SELECT * FROM ({metric_sql(metric, SERVICE)}) FORMAT Null"
            return min(seconds(lambda: self.client.command(sql, parameters=parameters)) for _ in range(3))

        times = {metric: best(metric) for metric in METRICS}
        print("from the blocks: " + ", ".join(f"{metric} {took * 1000:.0f} ms" for metric, took in times.items()))
        return times

    def old_way(self) -> float:
        """Seconds to drop each table and create it from the raw events. Raises AssertionError where it differs."""
        folder = Path(__file__).resolve().parent / "whole_tables"
        times: dict[str, float] = {}
        for metric in METRICS:
            sql = (folder / f"{metric}.sql").read_text().replace("{sessions}", (folder / "sessions.sql").read_text())
            order = ", ".join((METRICS[metric].day, *METRICS[metric].key))
            started = time.perf_counter()
            self.client.command(f"DROP TABLE IF EXISTS analytics.old_{metric} SYNC")
            self.client.command(
                f"CREATE TABLE analytics.old_{metric} ENGINE = MergeTree ORDER BY ({order}) AS "
                f"SELECT *, toDate('{self.next}') AS execution_date FROM (\n{sql})"
            )
            times[metric] = time.perf_counter() - started
            ours, old = f"SELECT * FROM analytics.bench_{metric}_summary", f"SELECT * FROM analytics.old_{metric}"
            differing = self.client.command(
                f"SELECT (SELECT count() FROM ({ours} EXCEPT {old})) + (SELECT count() FROM ({old} EXCEPT {ours}))"
            )
            if int(str(differing)):
                raise AssertionError(f"{metric}: {differing} rows differ from the raw events'")
        print("DROP + CTAS: " + ", ".join(f"{metric} {took:.1f} s" for metric, took in times.items()))
        return sum(times.values())


if __name__ == "__main__":
    sys.exit(main())
