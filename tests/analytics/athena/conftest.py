"""A small cloud for the metrics on Athena: the aws engine, provisioned, and curated events as curation commits them."""

import itertools
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import pyarrow as pa
import pytest

from data_platform.analytics.athena.run import AthenaRun, rebuild_service
from data_platform.catalog import load_catalog
from data_platform.catalog.models import Service
from data_platform.catalog.types import curated_schema
from data_platform.clients import aws
from data_platform.curation.manifest import PartitionSource
from data_platform.curation.partition import curate_partition
from data_platform.local.process import EngineProcess
from data_platform.provisioning import provision
from data_platform.settings import Settings
from tests.analytics.random_logs import utc_day
from tests.analytics.reference import Event

RUN = date(2024, 9, 1)
_numbers = itertools.count(1)


@dataclass
class AthenaDesk:
    """Settings that lead to an aws engine, and what has been delivered so far."""

    process: EngineProcess
    settings: Settings
    delivered: dict[date, list[tuple[str, Event]]] = field(default_factory=lambda: defaultdict(list))

    def __post_init__(self) -> None:
        self.s3 = aws.s3(self.settings)
        self.athena = aws.client(self.settings, "athena")
        self.dataset = load_catalog(self.settings.catalog).datasets["analytics/events"]

    def service(self, **choices: Any) -> Service:
        """A service of a name that no other test has."""
        return Service(name=f"shop-{next(_numbers)}", **choices)

    def put(self, logs: dict[str, list[Event]]) -> None:
        """Deliver events: the partitions of their UTC days are committed anew, with all that was delivered."""
        touched: set[date] = set()
        for service, events in logs.items():
            for event in events:
                self.delivered[utc_day(event)].append((service, event))
                touched.add(utc_day(event))
        for ds in touched:
            self.commit(ds)

    def commit(self, ds: date) -> None:
        flat = self.delivered[ds]
        columns = {
            "service_name": [service for service, _ in flat],
            "event_time": [event.time_ns for _, event in flat],
            "event_date": [ds] * len(flat),
            "event_name": [event.name for _, event in flat],
            "user_id": [event.user for _, event in flat],
            "session_id": [event.session for _, event in flat],
            "attributes": [[] for _ in flat],
            "trace_id": [None] * len(flat),
            "record_uid": [event.uid for _, event in flat],
            "source_object": [f"{service}/{event.source}" for service, event in flat],
            "source_position": [event.position for _, event in flat],
        }
        table = pa.Table.from_pydict(columns, schema=curated_schema(self.dataset))
        source = PartitionSource(
            kind="otel_logs", reference="s3://test/", version=f"{ds}{len(flat)}{next(_numbers)}", rows=len(flat)
        )
        curate_partition(
            self.s3, self.settings.curated_bucket, self.dataset, ds, iter(table.to_batches()), lambda: source
        )

    def run(self, service: Service, **options: Any) -> AthenaRun:
        return rebuild_service(self.settings, service, options.pop("on", RUN), **options)

    def rows(self, service: Service, metric: str) -> list[tuple[object, ...]]:
        """The rows under the summary prefix, without execution_date."""
        import io

        import pyarrow.parquet as pq

        key = f"summary/{service.name}/{metric}/{metric}.parquet"
        body = self.s3.get_object(Bucket=self.settings.curated_bucket, Key=key)["Body"].read()
        table = pq.read_table(io.BytesIO(body)).drop_columns(["execution_date"])
        return sorted(zip(*(column.to_pylist() for column in table.columns), strict=True))

    def executions(self) -> list[str]:
        """The ids of every query so far."""
        ids: list[str] = self.athena.list_query_executions(WorkGroup="primary")["QueryExecutionIds"]
        return ids

    def statements(self, ids: list[str]) -> list[str]:
        """What was asked."""
        found: list[str] = []
        for start in range(0, len(ids), 50):
            answer = self.athena.batch_get_query_execution(QueryExecutionIds=ids[start : start + 50])
            found += [each["Query"] for each in answer["QueryExecutions"]]
        return found


@pytest.fixture(scope="package")
def athena_desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AthenaDesk]:
    process = EngineProcess.with_free_ports("aws", tmp_path_factory.mktemp("athena")).start()
    env = process.env
    settings = Settings(  # pyright: ignore[reportCallIssue]
        aws_endpoint_url=env["AWS_ENDPOINT_URL"],
        aws_access_key_id=env["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=env["AWS_SECRET_ACCESS_KEY"],
        aws_region=env["AWS_DEFAULT_REGION"],
    )
    provision(settings, only=["aws", "athena"])
    yield AthenaDesk(process, settings)
    process.stop()
