"""A small cloud for the metrics: S3 and ClickHouse, tables as provisioned, events put in directly."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pytest

from data_platform.catalog.models import CohortAges, ConversionSteps, Service
from data_platform.clients import clickhouse
from data_platform.loading.lock import PartitionLocks, worker_name
from data_platform.local.cloud import Cloud
from data_platform.settings import Settings
from tests.analytics.random_logs import utc_day
from tests.analytics.reference import Definitions, Event


@dataclass
class Desk:
    """A ClickHouse of its own, and the handles the metrics work with."""

    settings: Settings
    client: Any
    locks: PartitionLocks

    def put(self, service: str, events: list[Event]) -> None:
        """Load events as the loader would: into the partition of their UTC day."""
        self.put_all({service: events})

    def put_all(self, logs: dict[str, list[Event]]) -> None:
        flat = [(service, event) for service, events in logs.items() for event in events]
        if not flat:
            return
        days = [utc_day(event) for _, event in flat]
        table = pa.table(
            {
                "service_name": [service for service, _ in flat],
                "event_time": pa.array([event.time_ns for _, event in flat], pa.timestamp("ns", tz="UTC")),
                "event_date": days,
                "event_name": [event.name for _, event in flat],
                "user_id": pa.array([event.user for _, event in flat], pa.string()),
                "session_id": pa.array([event.session for _, event in flat], pa.string()),
                "record_uid": pa.array([event.uid for _, event in flat], pa.string()),
                "source_object": [f"{service}/{event.source}" for service, event in flat],
                "source_position": pa.array([event.position for _, event in flat], pa.uint64()),
                "_ds": days,
                "_object": ["test"] * len(flat),
            }
        )
        self.client.insert_arrow(
            "analytics.events", table, settings={"max_partitions_per_insert_block": 0, "insert_deduplicate": 0}
        )

    def table(self, service: Service, metric: str) -> list[tuple[object, ...]]:
        """The rows of a summary without execution_date, sorted."""
        return sorted(
            self.client.query(
                f"SELECT * EXCEPT execution_date FROM analytics.{service.prefix}_{metric}_summary"
            ).result_rows
        )


@pytest.fixture(scope="package")
def standing_desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with Cloud(tmp_path_factory.mktemp("metrics")) as cloud:
        cloud.up(engines=["aws", "clickhouse"])
        client = clickhouse.connect(cloud.settings)
        yield Desk(cloud.settings, client, PartitionLocks(client, worker_name()))
        client.close()


@pytest.fixture
def desk(standing_desk: Desk) -> Iterator[Desk]:
    """An empty one: a service is brought up to date with every day that anybody has events on."""
    yield standing_desk
    standing_desk.client.command("TRUNCATE TABLE analytics.events")
    standing_desk.client.command("DROP DATABASE IF EXISTS analytics_blocks SYNC")


def service_of(name: str, definitions: Definitions) -> Service:
    recent, active, veteran = definitions.ages
    return Service(
        name=name,
        time_zone=definitions.time_zone,
        min_data_date=definitions.min_date,
        conversion=ConversionSteps(view=definitions.view, cart=definitions.cart),
        cohorts=CohortAges(recent=recent, active=active, veteran=veteran),
    )
