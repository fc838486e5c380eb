"""The building blocks on Athena brought up to date: the changed days written to new places, then pointed to.

Every query has a key made of the service's generation and of what it reads, so that a run that was killed finds its
queries again. What the blocks were built from is committed last.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING

from data_platform.analytics.athena import layout, sources
from data_platform.analytics.athena.budget import Budget
from data_platform.analytics.athena.glue import Glue
from data_platform.analytics.athena.graph import DayGraph, Rebuild, rebuild_of
from data_platform.analytics.athena.state import Lease, ServiceState, Source, Stored, commit_state
from data_platform.analytics.athena.transpile import reads_of_blocks
from data_platform.analytics.metrics import METRICS
from data_platform.analytics.sql_files import statement
from data_platform.catalog.models import Service
from data_platform.clients.athena import Athena, Execution, QueryStoppedError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

DAYS_AT_ONCE = 90  # one CTAS may write 100 partitions
EVENT_BLOCKS = ("event_days", "user_days")
FILES = ("kept", "links", "linked_days", "event_days", "user_days", "sessions")
DAY = timedelta(days=1)


@dataclass
class Work:
    """One service's work: the clients, the places, what is built."""

    athena: Athena
    s3: "S3Client"
    glue: Glue
    service: Service
    bucket: str
    lease: Lease
    places: layout.Places
    stored: Stored
    budget: Budget
    found: Mapping[date, Source] = field(default_factory=dict[date, Source])

    @property
    def state(self) -> ServiceState:
        """What is built now."""
        return self.stored.state

    @property
    def database(self) -> str:
        """The Glue database."""
        return self.athena.database

    def min_data_date(self) -> date:
        """MIN_DATA_DATE: the service's, else the first day that can have events."""
        if self.service.min_data_date is not None:
            return self.service.min_data_date
        return min(self.found, default=date(2000, 1, 1)) - DAY

    def commit(self, state: ServiceState) -> None:
        """Write what is built."""
        self.lease.check()
        self.stored = commit_state(self.s3, self.places, self.stored, state)


def config_of(service: Service) -> str:
    """A digest of what the blocks depend on besides the events."""
    texts = [service.time_zone, str(service.min_data_date), service.conversion.view, service.conversion.cart]
    texts += [statement(f"athena/{name}") for name in FILES]
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]


def refresh_blocks(work: Work) -> frozenset[date]:
    """Build the days whose events changed; returns them. Raises as Athena does; what was built before stays."""
    state, service = work.state, work.service
    work.found = sources.current_sources(work.s3, work.bucket, state.sources)
    config = config_of(service)
    if config == state.config:
        changed = sources.changed_days(service, work.found, state.sources)
        graph = state.graph
    else:
        changed = sources.changed_days(service, work.found, {})
        changed |= {day for each in state.places.values() for day in each}
        graph = DayGraph()
    if not changed and config == state.config:
        return frozenset()
    if service.min_data_date is not None:
        held = {day for each in state.places.values() for day in each}
        changed = {day for day in changed if day >= service.min_data_date or day in held}
    builder = _Builder(work, config)
    builder.ask_budget(changed, graph)
    places = {block: dict(each) for block, each in state.places.items()}
    sizes = {block: dict(each) for block, each in state.block_bytes.items()}
    ties = builder.links(changed, places, sizes)
    after = graph.with_days(changed, ties)
    rebuild = rebuild_of(changed, graph.joined(after), service.time_zone)
    builder.ask_budget_for(rebuild)
    builder.build(rebuild, places, sizes)
    work.commit(
        state.model_copy(
            update={
                "generation": state.generation + 1,
                "config": config,
                "sources": dict(work.found),
                "places": places,
                "block_bytes": sizes,
                "records": {day: sorted(each) for day, each in after.records.items()},
                "sessions": {day: sorted(each) for day, each in after.sessions.items()},
                "fills": sorted(after.fills),
            }
        )
    )
    return rebuild.events | rebuild.sessions


@dataclass
class _Builder:
    work: Work
    config: str

    @property
    def service(self) -> Service:
        return self.work.service

    def ask_budget(self, changed: Iterable[date], graph: DayGraph) -> None:
        """Before the first query: what it will come to as far as the ties of yesterday tell."""
        self.ask_budget_for(rebuild_of(changed, graph, self.service.time_zone), links=self._bytes(changed))

    def ask_budget_for(self, rebuild: Rebuild, links: int = 0) -> None:
        """Raise ConfigurationError when what remains to be scanned is over the budget."""
        held = self.work.state.block_bytes
        raw = self._bytes(rebuild.read_for_events)
        metrics = 0  # read the blocks: their days as they are, and those built anew, at most the size of the events
        for block, times in reads_of_blocks().items():
            sizes = held.get(block, {})
            anew = rebuild.sessions if block == "sessions" else rebuild.events
            largest = max(sizes.values(), default=raw)
            kept = sum(size for day, size in sizes.items() if day not in anew)
            metrics += times * (kept + min(raw, largest * len(anew)))
        self.work.budget.ask(
            links + len(EVENT_BLOCKS) * raw + self._bytes(rebuild.read_for_sessions) + metrics,
            queries=len(EVENT_BLOCKS) + 1 + len(METRICS) + (2 if links else 0),
        )

    def _bytes(self, days: Iterable[date]) -> int:
        return sum(self.work.found[ds].bytes for ds in sources.partitions_of(self.service, days, self.work.found))

    # Links

    def links(
        self, changed: Iterable[date], places: dict[str, dict[date, str]], sizes: dict[str, dict[date, int]]
    ) -> list[tuple[str, date, date]]:
        """Write the links of the changed days and read which days they tie: (kind, day, other day)."""
        chunks = _chunks(changed)
        self._each([lambda chunk=chunk: self._write("links", chunk, chunk, places, sizes) for chunk in chunks])
        self._swap("links", changed, places)
        held = sorted(places.get("links", {}))
        found: list[tuple[str, date, date]] = []
        for chunk in chunks:
            days = [day for day in chunk if day in places.get("links", {})]
            if not days:
                continue
            sql = statement(
                "athena/linked_days",
                links=f'"{self.work.database}"."{layout.block_table("links")}"',
                service=layout.text(self.service.name),
                own_partitions=layout.partitions(days[0], days[-1]),
                partitions=layout.partitions(held[0], held[-1]),
                days=layout.days(days),
                min_data_date=layout.day(self.work.min_data_date()),
            )
            execution = self.work.athena.run(lambda _attempt, sql=sql: sql, self._key("linked_days", days))
            for kind, day, other in self.work.athena.rows(execution):
                found.append((str(kind), date.fromisoformat(str(day)), date.fromisoformat(str(other))))
        return found

    # Blocks

    def build(self, rebuild: Rebuild, places: dict[str, dict[date, str]], sizes: dict[str, dict[date, int]]) -> None:
        """Write the days of the blocks, all at the same time, then point the partitions to them."""
        wanted = {**dict.fromkeys(EVENT_BLOCKS, rebuild.events), "sessions": rebuild.sessions}
        reads = {**dict.fromkeys(EVENT_BLOCKS, rebuild.read_for_events), "sessions": rebuild.read_for_sessions}
        calls: list[Callable[[], None]] = []
        for block, days in wanted.items():
            calls += [
                lambda block=block, chunk=chunk: self._write(block, chunk, reads[block], places, sizes)
                for chunk in _chunks(days)
            ]
        self._each(calls)
        for block, days in wanted.items():
            self._swap(block, days, places)

    def _write(
        self,
        block: str,
        days: Sequence[date],
        read: Iterable[date],
        places: dict[str, dict[date, str]],
        sizes: dict[str, dict[date, int]],
    ) -> None:
        """One CTAS of the days; notes where each lies, and forgets those that are empty now."""
        work = self.work
        ds = sources.partitions_of(self.service, read, work.found)
        made: dict[date, tuple[str, int]] = {}
        if ds:
            key = self._key(block, days)
            stretches = layout.stretches_of(self.service, ds)
            files = [file for each in ds for file in work.found[each].files]
            cte = layout.kept(work.database, self.service, stretches, ds, files, work.min_data_date())
            sql = statement(
                f"athena/{block}",
                kept=cte,
                keys=layout.KEYS_OF_DAY,
                days=layout.days(days),
                min_data_date=layout.day(work.min_data_date()),
                view=layout.text(self.service.conversion.view),
                cart=layout.text(self.service.conversion.cart),
            )
            location, _ = create_table_as(
                work, sql, key, lambda run: work.places.block(block, run), layout.PARTITION_KEYS
            )
            made = self._partitions(location)
        held, bytes_ = places.setdefault(block, {}), sizes.setdefault(block, {})
        for day in days:
            if day in made:
                held[day], bytes_[day] = made[day]
            else:
                held.pop(day, None)
                bytes_.pop(day, None)

    def _swap(self, block: str, days: Iterable[date], places: Mapping[str, Mapping[date, str]]) -> None:
        self.work.lease.check()
        now = places.get(block, {})
        self.work.glue.swap_days(
            block,
            self.service.name,
            self.work.state.places.get(block, {}),
            {day: now.get(day) for day in days},
            self.work.places.output,
        )

    def _partitions(self, location: str) -> dict[date, tuple[str, int]]:
        """The days written below `location`, with their places and bytes."""
        found: dict[date, tuple[str, int]] = {}
        for written in objects_below(self.work.s3, location):
            folder = written.url.rpartition("/")[0]
            values = dict(part.split("=", 1) for part in folder.removeprefix(location).split("/") if "=" in part)
            day = date(*(int(values[key]) for key in layout.PARTITION_KEYS))
            found[day] = (f"{folder}/", found.get(day, ("", 0))[1] + written.bytes)
        return found

    def _key(self, what: str, days: Iterable[date]) -> str:
        """What a query's identity is made of: service, generation, what it is made from, which days."""
        versions = "".join(f"{ds}{source.etag}" for ds, source in sorted(self.work.found.items()))
        text = f"{self.config} {versions} {sorted(days)}"
        digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        return f"{self.service.name} {what} g{self.work.state.generation + 1} {digest}"

    def _each(self, calls: Sequence[Callable[[], None]]) -> None:
        together(self.work.athena, calls)


def create_table_as(
    work: Work, sql: str, key: str, place: Callable[[str], str], keys: Sequence[str] = (), *, drop: bool = True
) -> tuple[str, Execution]:
    """Run a CTAS into a place of its own, once for every `key`; returns where its data lies, and the execution.

    Its table is dropped unless the caller does it.
    """
    digest = hashlib.sha256(key.encode()).hexdigest()[:12]

    used: list[str] = []

    def make(attempt: int) -> str:
        run = f"g{work.state.generation + 1}_{digest}_{attempt}"
        used.append(run)
        partitioned = f", partitioned_by = ARRAY[{', '.join(layout.text(each) for each in keys)}]" if keys else ""
        return (
            f'CREATE TABLE "{work.database}"."{temporary_table(work.service, run)}" WITH (format = \'PARQUET\', '
            f"write_compression = 'SNAPPY', external_location = {layout.text(place(run))}{partitioned}) AS\n{sql}"
        )

    execution = work.athena.run(make, key)
    if drop:
        work.glue.drop_table(temporary_table(work.service, used[-1]))
    return place(used[-1]), execution


def temporary_table(service: Service, run: str) -> str:
    """The table a CTAS makes on its way."""
    return f"tmp_{service.prefix}__{run}"


def together(athena: Athena, calls: Sequence[Callable[[], None]]) -> None:
    """Make the calls at the same time. What ends one, an interrupt of this thread too, stops the queries of all."""
    if not calls:
        return
    with ThreadPoolExecutor(len(calls), thread_name_prefix="athena") as pool:
        futures = [pool.submit(call) for call in calls]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
            failed = [future for future in futures if future.done() and future.exception() is not None]
            if failed:
                athena.cancel.set()
                # What was stopped because another failed does not tell why.
                errors = [error for future in failed if (error := future.exception()) is not None]
                raise next((error for error in errors if not isinstance(error, QueryStoppedError)), errors[0])
        except BaseException:
            athena.cancel.set()
            raise


@dataclass(frozen=True)
class Written:
    """An object: where, how many bytes, since when."""

    url: str
    bytes: int
    modified: datetime


def objects_below(s3: "S3Client", url: str) -> list[Written]:
    """The objects below a place."""
    bucket, prefix = layout.split_url(url)
    return [
        Written(f"s3://{bucket}/{item.get('Key', '')}", int(item.get("Size", 0)), item["LastModified"])  # pyright: ignore[reportTypedDictNotRequiredAccess] - S3 always has it
        for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        for item in page.get("Contents", [])
    ]


def _chunks(days: Iterable[date]) -> list[list[date]]:
    known = sorted(days)
    return [known[start : start + DAYS_AT_ONCE] for start in range(0, len(known), DAYS_AT_ONCE)]
