"""Any history of puts, deliveries, crashes, overwrites, vanished and poisoned objects, rebuilds and replays: a model.

The model knows what S3 holds by key and which versions the table must hold; the table is compared after every step.
"""

import contextlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any, cast

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from data_platform.catalog.models import Overwrite
from data_platform.loading.errors import diagnose
from data_platform.loading.footer import FooterError
from data_platform.loading.loader import Failure, LoadResult, load_objects
from data_platform.loading.message import ObjectEvent
from data_platform.loading.rebuild import rebuild_partition, verify_partition
from data_platform.loading.warehouse import Warehouse
from data_platform.local.cloud import Cloud
from tests.loading.conftest import Bench, make_bench, rows
from tests.scenarios.loader_history import LEASE_S, ROUNDS
from tests.scenarios.loader_history_faults import StruckHistory
from tests.scenarios.loader_mortal import Killed

DAYS = (date(2010, 1, 1) + timedelta(days=number) for number in itertools.count())
KEYS = st.sampled_from(["a.parquet", "b.parquet", "c.parquet"])
# Numbers, not events, are drawn: what is drawn must not depend on how the steps before it went.
PICKS = st.lists(st.integers(0, 99), min_size=1, max_size=5)
POISON = b"PAR1" + bytes(2000) + b"PAR1"


@dataclass(frozen=True)
class Stored:
    """One version of an object; `table` is None for poison."""

    event: ObjectEvent
    table: pa.Table | None

    @property
    def identity(self) -> str:
        return self.event.version.identity


@dataclass
class Model:
    """What S3 holds by file, and what the table must hold: by file, its versions."""

    overwrite: Overwrite
    stored: dict[str, Stored] = field(default_factory=dict[str, Stored])
    held: dict[str, dict[str, pa.Table]] = field(default_factory=dict[str, dict[str, pa.Table]])
    refused: set[str] = field(default_factory=set[str])

    def delivered(self, events: Sequence[ObjectEvent]) -> None:
        """Only the version S3 holds can be loaded; older events change nothing."""
        for event in events:
            current = self.stored.get(event.key.file)
            if current is None or current.identity != event.version.identity:
                continue
            if current.table is None:
                self.refused.add(current.identity)
            else:
                self.hold(event.key.file, current, current.table)

    def hold(self, file: str, current: Stored, table: pa.Table) -> None:
        versions = self.held.setdefault(file, {})
        if self.overwrite is Overwrite.REPLACE:
            versions.clear()
        if self.overwrite is Overwrite.APPEND or not versions:
            versions[current.identity] = table

    def rebuildable(self) -> bool:
        """Whether the rebuild meets no poison that is news to it; into a rejected overwrite it does not look."""
        return all(
            each.table is not None
            or each.identity in self.refused
            or (self.overwrite is Overwrite.REJECT and bool(self.held.get(file)))
            for file, each in self.stored.items()
        )

    def rebuilt(self) -> None:
        """What S3 holds, and under the other policies than `replace` what was loaded before."""
        if self.overwrite is Overwrite.REPLACE:
            self.held.clear()
        for file, current in self.stored.items():
            if current.table is not None:
                self.hold(file, current, current.table)

    def tables(self) -> dict[str, pa.Table]:
        return {identity: table for versions in self.held.values() for identity, table in versions.items()}


class Loading(RuleBasedStateMachine):
    """The rules draw numbers only."""

    def __init__(self, bench: Bench, cloud: Cloud) -> None:
        super().__init__()
        self.bench = bench
        self.cloud = cloud

    @initialize()
    def a_new_day(self) -> None:
        self.history = StruckHistory(self.bench, self.cloud, 0)
        self.bench.ds = next(DAYS)
        self.model = Model(self.bench.dataset.overwrite)
        self.events: list[ObjectEvent] = []
        self.start = 0

    @rule(file=KEYS, count=st.sampled_from([0, 1, 40, 300]))
    def put(self, file: str, count: int) -> None:
        table = rows(self.start, count)
        self.start += count
        self.store(file, self.bench.put(file, table), table)

    @rule(file=KEYS)
    def put_poison(self, file: str) -> None:
        self.store(file, self.bench.put(file, body=POISON), None)

    @rule(file=KEYS)
    def vanish(self, file: str) -> None:
        stored = self.model.stored.pop(file, None)
        if stored is not None:
            self.bench.delete(stored.event)

    @rule(picks=PICKS)
    def deliver(self, picks: list[int]) -> None:
        """Any events, in any order, any number of times: new, old, already loaded."""
        batch = self.picked(picks)
        if batch:
            self.until_final(batch)

    @rule(picks=PICKS, at=st.integers(1, 9), after=st.booleans())
    def crash_then_retry(self, picks: list[int], at: int, after: bool) -> None:
        batch = self.picked(picks)
        if not batch:
            return
        _, dying = self.history.mortal(at=at, after=after)
        with contextlib.suppress(Killed):
            self.load(dying, batch)
        self.until_final(batch)

    @rule()
    def replay_everything(self) -> None:
        if self.events:
            self.until_final(self.events)

    @rule()
    def rebuild(self) -> None:
        for _ in range(ROUNDS):
            try:
                rebuild_partition(self.bench.warehouse, self.bench.dataset, self.bench.ds)
            except FooterError:
                assert not self.model.rebuildable()
                return
            except Exception as error:
                if diagnose(error) is None:
                    raise
                continue
            assert self.model.rebuildable()
            self.model.rebuilt()
            return
        raise AssertionError("no rebuild succeeded")

    @rule(at=st.integers(1, 14), after=st.booleans())
    def crash_in_rebuild(self, at: int, after: bool) -> None:
        _, dying = self.history.mortal(at=at, after=after)
        try:
            rebuild_partition(dying, self.bench.dataset, self.bench.ds)
        except Killed:
            pass
        except Exception as error:
            if diagnose(error) is None:
                raise
        self.rebuild()

    @invariant()
    def the_table_is_as_the_model_says(self) -> None:
        if not hasattr(self, "model"):
            return
        assert self.history.found() == self.bench.expected(self.model.tables())
        verify_partition(self.bench.warehouse, self.bench.dataset, self.bench.ds)

    def store(self, file: str, event: ObjectEvent, table: pa.Table | None) -> None:
        self.model.stored[file] = Stored(event, table)
        self.events.append(event)

    def picked(self, picks: Sequence[int]) -> list[ObjectEvent]:
        return [self.events[pick % len(self.events)] for pick in picks] if self.events else []

    def until_final(self, batch: Sequence[ObjectEvent]) -> None:
        left = list(batch)
        for _ in range(ROUNDS):
            left = self.load(self.bench.warehouse, left)
            if not left:
                self.model.delivered(batch)
                return
        raise AssertionError(f"{len(left)} events never became final")

    def load(self, warehouse: Warehouse, batch: Sequence[ObjectEvent]) -> list[ObjectEvent]:
        """One receive; the events that come back."""
        try:
            told = load_objects(warehouse, self.bench.dataset, batch, wait_s=20)
        except Exception as error:
            if diagnose(error) is None:
                raise
            return list(batch)
        for each in told:
            assert isinstance(each, LoadResult | Failure)
        return [
            event for event, each in zip(batch, told, strict=True) if isinstance(each, Failure) and not each.for_good
        ]


def run(cloud: Cloud, overwrite: Overwrite, *, examples: int, steps: int, seeded: bool) -> None:
    bench = make_bench(cloud.settings.model_copy(update={"loader_lease_s": LEASE_S}), overwrite)
    chosen: dict[str, Any] = {"derandomize": True} if seeded else {}
    try:
        run_state_machine_as_test(
            cast("Any", lambda: Loading(bench, cloud)),
            settings=settings(
                max_examples=examples, stateful_step_count=steps, deadline=None, database=None, print_blob=True,
                suppress_health_check=cast("Any", list(HealthCheck)), phases=[Phase.generate], **chosen,
            ),
        )  # fmt: skip
    finally:
        bench.warehouse.client.command(f"DROP TABLE IF EXISTS {bench.table} SYNC")


@pytest.mark.scenario
@pytest.mark.timeout(240)
def test_a_history_ends_as_the_model_says(cloud: Cloud) -> None:
    run(cloud, Overwrite.REPLACE, examples=2, steps=10, seeded=True)


@pytest.mark.load
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("overwrite", list(Overwrite), ids=str)
def test_any_history_ends_as_the_model_says(cloud: Cloud, overwrite: Overwrite) -> None:
    run(cloud, overwrite, examples=40, steps=20, seeded=False)
