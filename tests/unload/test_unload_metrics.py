"""Metrics and alarms of the service: what is told once a minute, and that each thing that can hang has an alarm."""

import contextlib
import socket
import socketserver
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
import sqlalchemy as sa
from botocore.exceptions import EndpointConnectionError

from data_platform.clients import aws, postgres
from data_platform.ledger import outbox
from data_platform.ledger.unload_gauges import UnloadGauges, gauges
from data_platform.ledger.unload_requests import UnloadRequest
from data_platform.ledger.unloads import UnloadStatus, unload_requests
from data_platform.local.cloud import Cloud
from data_platform.local.process import free_port
from data_platform.provisioning.unload_alarms import unload_alarm_requests
from data_platform.settings import Settings
from data_platform.unload.metrics import NAMESPACE, UnloadMetrics, Window, cloudwatch_data


def ended(status: UnloadStatus, seconds: float) -> UnloadRequest:
    now = datetime.now(UTC)
    failed = status is UnloadStatus.FAILED
    begun = now - timedelta(seconds=seconds)
    return UnloadRequest(
        "r-1", "reports", bytes(32), "select 1", {}, status, 1, 12, 2**20, [],
        "42P01" if failed else None, "no such table" if failed else None, None, begun, begun, now, now,
    )  # fmt: skip


@pytest.fixture
def ledger(cloud: Cloud) -> Iterator[sa.Engine]:
    engine = postgres.engine(cloud.settings)
    yield engine
    engine.dispose()


@pytest.mark.unit
def test_every_alarm_looks_at_a_metric_that_is_told() -> None:
    settings = Settings()
    told = cloudwatch_data(settings.env, Window(durations=[1.0]), UnloadGauges(0, 0, 0), 0)
    names = {each["MetricName"] for each in told}
    requests = list(unload_alarm_requests(settings))
    assert {request["MetricName"] for request in requests} <= names
    assert {request["Namespace"] for request in requests} == {NAMESPACE}
    assert {"FailedRequests", "OldestRunning", "OutboxAge", "ListenerLag", "UnloadDuration"} <= {
        request["MetricName"] for request in requests
    }
    dimensions = [{"Name": "Environment", "Value": settings.env}]
    assert all(each["Dimensions"] == dimensions for each in (*told, *requests))


@pytest.mark.unit
def test_alarms_follow_the_longest_query_and_go_to_the_topic() -> None:
    topic = "arn:aws:sns:us-east-1:000000000000:alarms"
    settings = Settings(unload_max_seconds=1000, alarm_topic=topic)
    by_name = {request["AlarmName"]: request for request in unload_alarm_requests(settings)}
    assert by_name["dev-UnloadOldestRunning"]["Threshold"] == 1600
    assert by_name["dev-UnloadDurationHigh"]["Threshold"] == 500
    assert {tuple(request["AlarmActions"]) for request in by_name.values()} == {(topic,)}


@pytest.mark.integration
def test_ends_ages_and_lag_reach_cloudwatch(cloud: Cloud, ledger: sa.Engine) -> None:
    env = f"m{uuid4().hex[:8]}"
    settings = cloud.settings.model_copy(update={"env": env})
    metrics = UnloadMetrics(settings, ledger)
    metrics.ended(ended(UnloadStatus.DONE, 4))
    metrics.ended(ended(UnloadStatus.DONE, 8))
    metrics.ended(ended(UnloadStatus.FAILED, 1))
    assert metrics.push() == 8
    assert metrics.push() == 7  # nothing has ended since: no durations
    cloudwatch = aws.cloudwatch(settings)

    def statistic(name: str, which: str) -> float:
        now = datetime.now(UTC)
        points = cloudwatch.get_metric_statistics(
            Namespace=NAMESPACE, MetricName=name, Dimensions=[{"Name": "Environment", "Value": env}], Period=3600,
            StartTime=now - timedelta(hours=2), EndTime=now + timedelta(hours=1), Statistics=[which],  # type: ignore[list-item]
        )["Datapoints"]  # fmt: skip
        return sum(point[which] for point in points)  # type: ignore[literal-required]

    assert (statistic("FailedRequests", "Sum"), statistic("DoneRequests", "Sum")) == (1, 2)
    assert statistic("UnloadDuration", "Maximum") == pytest.approx(8)
    assert statistic("UnloadDuration", "Sum") == pytest.approx(12)
    listed = cloudwatch.list_metrics(Namespace=NAMESPACE, Dimensions=[{"Name": "Environment", "Value": env}])
    assert {"OldestRunning", "OldestPending", "OutboxAge", "ListenerLag"} <= {
        each["MetricName"] for each in listed["Metrics"]
    }


class _Forwarder(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        target = urlsplit(getattr(self.server, "target", ""))
        with socket.create_connection((target.hostname or "", target.port or 0)) as there:
            threading.Thread(target=_pump, args=(self.request, there), daemon=True).start()
            _pump(there, self.request)


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(65536):
            target.sendall(piece)


@pytest.mark.integration
def test_what_cloudwatch_did_not_take_is_told_with_the_next_push(cloud: Cloud, ledger: sa.Engine) -> None:
    env, port = f"m{uuid4().hex[:8]}", free_port()
    settings = cloud.settings.model_copy(update={"env": env, "aws_endpoint_url": f"http://127.0.0.1:{port}"})
    metrics = UnloadMetrics(settings, ledger)
    metrics.ended(ended(UnloadStatus.FAILED, 1))
    with pytest.raises(EndpointConnectionError):
        metrics.push()
    metrics.ended(ended(UnloadStatus.FAILED, 1))
    with socketserver.ThreadingTCPServer(("127.0.0.1", port), _Forwarder) as away_no_more:
        away_no_more.daemon_threads = True
        away_no_more.target = cloud.settings.aws_endpoint_url  # type: ignore[attr-defined]
        threading.Thread(target=away_no_more.serve_forever, args=(0.05,), daemon=True).start()
        metrics.push()
        away_no_more.shutdown()
    now = datetime.now(UTC)
    points = aws.cloudwatch(cloud.settings).get_metric_statistics(
        Namespace=NAMESPACE, MetricName="FailedRequests", Dimensions=[{"Name": "Environment", "Value": env}],
        StartTime=now - timedelta(hours=2), EndTime=now + timedelta(hours=1), Period=3600, Statistics=["Sum"],
    )["Datapoints"]  # fmt: skip
    assert sum(point.get("Sum", 0) for point in points) == 2


@pytest.mark.integration
def test_ages_are_those_of_the_oldest(ledger: sa.Engine) -> None:
    """In a transaction that is rolled back: nobody runs what is written here."""
    old = sa.func.now() - sa.text("interval '1 hour'")
    with ledger.connect() as connection:
        common = {"caller": "nobody", "body_hash": bytes(32), "sql": "select 1", "created_at": old}
        connection.execute(sa.insert(unload_requests).values(request_id=f"m-{uuid4().hex}", status="PENDING", **common))
        connection.execute(
            sa.insert(unload_requests).values(
                request_id=f"m-{uuid4().hex}",
                status="RUNNING",
                started_at=old,
                lease_owner="x",
                lease_until=sa.func.now(),
                **common,
            )
        )
        topic = f"topic-{uuid4().hex}"
        connection.execute(sa.insert(outbox.outbox).values(event_id=uuid4(), topic=topic, key="k", created_at=old))
        found = gauges(connection, topic)
        assert gauges(connection, "another topic").outbox_age_s == 0
        connection.rollback()
    assert min(found.oldest_pending_s, found.oldest_running_s, found.outbox_age_s) >= 3600
