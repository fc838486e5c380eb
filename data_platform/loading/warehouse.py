"""The handles one worker loads with, and the one way to work on a table partition: under its lease, with nothing
left under way by whoever held it before.
"""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from data_platform.catalog.models import Dataset
from data_platform.clients import aws, clickhouse
from data_platform.clients.objects import ObjectReader
from data_platform.loading.lock import Lease, PartitionLocks, worker_name
from data_platform.loading.register import Register, TablePartition, nothing_known
from data_platform.loading.running import wait_ended
from data_platform.loading.statement import query_prefix
from data_platform.loading.target import Target
from data_platform.settings import Settings

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client
    from mypy_boto3_s3 import S3Client

LEFT_BEHIND_PATIENCE_S = 5.0  # a finished insert is worth a short wait, a hanging one is killed


@dataclass(frozen=True)
class Warehouse:
    """ClickHouse, S3, the register and the locks of one worker."""

    settings: Settings
    client: "Client"
    s3: "S3Client"
    objects: ObjectReader
    register: Register
    locks: PartitionLocks

    @contextmanager
    def hold(self, dataset: Dataset, partition: TablePartition, *, wait_s: float = 120.0) -> Generator[Lease]:
        """The partition's lease, once nothing of an earlier holder can change the partition any more.

        A lease that is `first` guards a partition of which the register knows nothing.

        The epoch in the loading statement fences what begins later, ending what runs fences what has begun, and
        without its staging table a paused rebuild has nothing to swap. Raises LockHeldError, UnknownOutcomeError and
        the client's errors.
        """
        with self.locks.hold(partition.name, wait_s=wait_s, new=nothing_known(partition)) as lease:
            if lease.took_over:
                with lease.until_known():
                    wait_ended(self.client, self.settings, query_prefix(partition), patience_s=LEFT_BEHIND_PATIENCE_S)
                    Target(self.client, dataset).drop_stagings(partition.ds)
            yield lease

    def close(self) -> None:
        """Free the leases that have ended, close the connections."""
        self.locks.free_now()
        self.client.close()


def open_warehouse(
    settings: Settings, worker: str | None = None, *, s3: "S3Client | None" = None, linger_s: float = 0.0
) -> Warehouse:
    """The handles of one worker, on connections of its own but for `s3`, which takes 0.1 s of processor to make.

    `linger_s`: how long a lease that ended may wait to be freed together with others, by whoever has many of them.
    """
    owner = worker or worker_name()
    client = clickhouse.connect(settings)
    s3 = s3 or aws.s3(settings)
    return Warehouse(
        settings,
        client,
        s3,
        ObjectReader(s3),
        Register(client, owner),
        PartitionLocks(client, owner, settings.loader_lease_s, linger_s),
    )
