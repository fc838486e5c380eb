"""One layer of one partition, done by the package that knows how, with what the UI is told about it."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from typing import TYPE_CHECKING, Any

import dagster as dg

from data_platform.assets.keys import Stage, source_tables
from data_platform.assets.metadata import read_of
from data_platform.catalog.models import Dataset, OtelLogsSource
from data_platform.clients import aws, postgres
from data_platform.clients.classify import classify, explain
from data_platform.clients.retry import retrying
from data_platform.curation.manifest import PartitionManifest, StoredManifest, manifest_key
from data_platform.curation.partition import SourceFile
from data_platform.curation.unloads import curate_unload
from data_platform.loading.rebuild import rebuild_partition
from data_platform.loading.warehouse import Warehouse, open_warehouse
from data_platform.settings import Settings
from data_platform.unload.datasets import PartitionUnload, proven_unload, unload_partition

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from sqlalchemy import Engine

Metadata = dict[str, Any]
ATTEMPTS = 3


@dataclass(frozen=True)
class StageResult:
    """What one layer of one partition came to: rows, bytes, a version of its content, metadata for the UI."""

    rows: int
    bytes: int
    version: str
    metadata: Metadata


@dataclass
class StageRunner:
    """Runs layers for one Dagster run, from several threads; connections are made when first used and kept."""

    settings: Settings
    run_id: str
    log: Callable[[str], None] = field(default=print)
    _proven: dict[tuple[str, date], PartitionUnload] = field(
        default_factory=dict[tuple[str, date], PartitionUnload], init=False
    )
    _local: threading.local = field(default_factory=threading.local, init=False)
    _opening: threading.Lock = field(default_factory=threading.Lock, init=False)
    _warehouses: list[Warehouse] = field(default_factory=list[Warehouse], init=False)

    @cached_property
    def s3(self) -> "S3Client":
        """S3."""
        return aws.s3(self.settings)

    @cached_property
    def ledger(self) -> "Engine":
        """The ledger's database."""
        return postgres.engine(self.settings)

    @property
    def warehouse(self) -> Warehouse:
        """ClickHouse with its register and locks, one worker a thread."""
        warehouse: Warehouse | None = getattr(self._local, "warehouse", None)
        if warehouse is None:
            with self._opening:
                warehouse = self._local.warehouse = open_warehouse(self.settings, s3=self.s3)
                self._warehouses.append(warehouse)
        return warehouse

    def run(self, stage: Stage, dataset: Dataset, ds: date) -> StageResult:
        """Do one layer of one partition. Raises PlatformError or the client's error; all is then as before."""
        started = time.monotonic()
        work = {Stage.UNLOAD: self._unload, Stage.CURATED: self._curate, Stage.CLICKHOUSE: self._load}[stage]
        if stage is Stage.UNLOAD:  # counts its own attempts: each has a prefix and an entry in the ledger
            result = work(dataset, ds)
        else:
            result = retrying(
                lambda: work(dataset, ds),
                classify,
                attempts=ATTEMPTS,
                on_retry=lambda error, attempt: self._tell(f"{stage}/{dataset.key} {ds}", error, attempt),
            )
        common: Metadata = {
            "dagster/partition_row_count": result.rows,
            "bytes": dg.MetadataValue.int(result.bytes),
            "duration_s": dg.MetadataValue.float(round(time.monotonic() - started, 3)),
            "version": result.version,
        }
        return StageResult(result.rows, result.bytes, result.version, {**common, **result.metadata})

    def _tell(self, what: str, error: BaseException, attempt: int) -> None:
        self.log(f"{what}: attempt {attempt} failed, trying again: {explain(error)}")

    def close(self) -> None:
        """Close what was opened."""
        if "ledger" in self.__dict__:
            self.ledger.dispose()
        for warehouse in self._warehouses:
            warehouse.client.close()

    def _unload(self, dataset: Dataset, ds: date) -> StageResult:
        unload = unload_partition(
            self.settings,
            self.s3,
            self.ledger,
            dataset,
            ds,
            run_id=self.run_id,
            on_retry=lambda error, attempt: self._tell(f"unload/{dataset.key} {ds}", error, attempt),
        )
        result = unload.result
        self._proven[dataset.key, ds] = unload
        return StageResult(
            result.rows,
            result.bytes,
            f"attempt {unload.attempt}",
            {
                "dagster/uri": result.target.url,
                "files": len(result.files),
                "attempt": unload.attempt,
                "query_id": str(result.query_id),
                "warehouse_s": round(result.seconds, 3),
                "sql": dg.MetadataValue.md(f"```sql\n{unload.sql}\n```"),
                # Redshift gives a table no version: what was read is what this query saw.
                "read": read_of(source_tables(dataset), f"as of query {result.query_id}", result.rows),
            },
        )

    def _curate(self, dataset: Dataset, ds: date) -> StageResult:
        rejects = 0
        if isinstance(dataset.source, OtelLogsSource):
            from data_platform.curation.events import curate_events

            curated = curate_events(self.settings, self.s3, dataset, ds)
            stored, rejects = curated.stored, curated.rejects
        else:
            stored = self._curate_unload(dataset, ds)
        manifest = stored.manifest
        metadata = self._manifest_metadata(dataset, manifest)
        if rejects:
            metadata["rejected_records"] = rejects
        return StageResult(manifest.rows, manifest.bytes, _version(manifest), metadata)

    def _curate_unload(self, dataset: Dataset, ds: date) -> StoredManifest:
        unload = self._proven.pop((dataset.key, ds), None)  # what this run has just proven needs no second proof
        if unload is None:
            unload = proven_unload(self.settings, self.s3, self.ledger, dataset, ds)
        bucket = unload.result.target.bucket
        files = [SourceFile(bucket, file.key, file.rows, file.bytes) for file in unload.result.files]
        return curate_unload(
            self.settings,
            self.s3,
            dataset,
            ds,
            files=files,
            prefix=unload.result.target.prefix,
            attempt=unload.attempt,
        )

    def _manifest_metadata(self, dataset: Dataset, manifest: PartitionManifest) -> Metadata:
        key = manifest_key(dataset.domain, dataset.name, manifest.ds)
        return {
            "dagster/uri": f"s3://{self.settings.curated_bucket}/{key}",
            "files": len(manifest.files),
            "generation": manifest.generation,
            "schema_version": manifest.schema_version,
            "read": read_of(manifest.source.reference, manifest.source.version, manifest.source.rows),
        }

    def _load(self, dataset: Dataset, ds: date) -> StageResult:
        rebuilt = rebuild_partition(self.warehouse, dataset, ds)
        return StageResult(
            rebuilt.rows,
            rebuilt.bytes,
            f"generation {rebuilt.generation}",
            {
                "dagster/table_name": f"{dataset.domain}.{dataset.name}",
                "dagster/uri": f"clickhouse://{dataset.domain}.{dataset.storage_name}/{ds.isoformat()}",
                "objects": rebuilt.objects,
                "generation": rebuilt.generation,
                "read": read_of(f"curated/{dataset.key}", f"generation {rebuilt.curated_generation}", rebuilt.rows),
            },
        )


def _version(manifest: PartitionManifest) -> str:
    return f"generation {manifest.generation}"
