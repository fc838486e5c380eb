"""What the loader agent did, told to Dagster as runless materialisations: one per table and partition and interval.

Dagster is only told: when it cannot be reached the loader goes on, and the register in ClickHouse has it all.
"""

import logging
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field

import dagster as dg

from data_platform.assets.keys import Stage, partitions_of, stage_key
from data_platform.catalog import Catalog
from data_platform.errors import ConfigurationError
from data_platform.jobs.instance import open_instance
from data_platform.loading.agent import Loaded
from data_platform.loading.loader import Outcome
from data_platform.loading.plans import Plan
from data_platform.settings import Settings

log = logging.getLogger(__name__)

INTERVAL_S = 5.0
NAMED = 50  # objects of a report that are named; the register has them all
REPORTED = {Outcome.LOADED, Outcome.REPLACED}


@dataclass
class _Batch:
    """The objects of one table partition since the last report."""

    rows: int = 0
    bytes: int = 0
    objects: list[str] = field(default_factory=list[str])
    latency_s: float = 0.0
    batched: int = 0


class LoadReporter:
    """Collects finished loads and reports them every few seconds from a thread of its own."""

    def __init__(
        self,
        report: Callable[[dg.AssetMaterialization], None],
        catalog: Catalog,
        stack: ExitStack | None = None,
    ) -> None:
        self._report = report
        self._catalog = catalog
        self._stack = stack or ExitStack()
        self._batches: dict[tuple[str, str, str], _Batch] = {}
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="report", daemon=True)
        self._thread.start()

    @classmethod
    def open(cls, settings: Settings, catalog: Catalog) -> "LoadReporter | None":
        """A reporter to the settings' Dagster; None, with a warning, where none is configured."""
        stack = ExitStack()
        try:
            instance = stack.enter_context(open_instance(settings))
        except ConfigurationError as error:
            log.warning("loads are not reported to Dagster: %s", error.message)
            return None
        return cls(instance.report_runless_asset_event, catalog, stack)

    def loaded(self, loaded: Loaded) -> None:
        """Count one finished object. Called from worker threads; does no I/O."""
        if loaded.result.outcome not in REPORTED:
            return
        key = loaded.event.key
        with self._lock:
            batch = self._batches.setdefault((key.domain, key.table, key.ds.isoformat()), _Batch())
            batch.rows += loaded.result.rows
            batch.bytes += loaded.result.version.bytes
            batch.objects.append(loaded.result.version.identity)
            batch.batched += loaded.result.plan == Plan.LIST
            batch.latency_s = max(batch.latency_s, loaded.latency_s)

    def close(self) -> None:
        """Report what is left and let go of Dagster."""
        self._ended.set()
        self._thread.join()
        self._stack.close()

    def _run(self) -> None:
        last_round = False
        while not last_round:
            last_round = self._ended.wait(INTERVAL_S)
            with self._lock:
                batches, self._batches = self._batches, {}
            for (domain, table, day), batch in batches.items():
                self._tell(domain, table, day, batch)

    def _tell(self, domain: str, table: str, day: str, batch: _Batch) -> None:
        dataset = self._catalog.dataset(f"{domain}/{table}")
        event = dg.AssetMaterialization(
            stage_key(Stage.CLICKHOUSE, dataset),
            partition=None if partitions_of(dataset) is None else day,
            metadata={
                "loaded_rows": batch.rows,
                "bytes": batch.bytes,
                "objects": len(batch.objects),
                "latency_s": round(batch.latency_s, 3),
                "batched": batch.batched,
                "read": dg.MetadataValue.json(batch.objects[:NAMED]),  # as s3://bucket/key@version
                "loaded_by": "loader agent",
            },
        )
        try:
            self._report(event)
        except Exception as error:  # noqa: BLE001 - Dagster's storage raises what its driver raises; loading goes on
            log.warning("%s.%s %s was loaded but not reported to Dagster: %s", domain, table, day, error)
