"""`data-platform doctor`: a healthy cloud is healthy, every kind of trouble has a sentence of its own, in time."""

import json
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from pydantic import SecretStr

from data_platform.catalog import load_catalog
from data_platform.catalog.models import RedshiftSource
from data_platform.clients import aws
from data_platform.local.process import free_port
from data_platform.provisioning import provision
from data_platform.provisioning.checks import Finding, Status, examine
from data_platform.provisioning.checks.aws import PROBE_PREFIX
from data_platform.provisioning.checks.databases import check_redshift
from data_platform.settings import Settings

pytestmark = pytest.mark.integration


def by_subject(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.subject: finding for finding in findings}


def failures(settings: Settings) -> dict[str, Finding]:
    return {name: each for name, each in by_subject(examine(settings)).items() if each.status is Status.FAILED}


def provisioned(cloud: Any) -> Settings:
    """AWS resources nobody else uses."""
    name = f"d{uuid.uuid4().hex[:8]}"
    settings: Settings = cloud.settings.model_copy(
        update={"env": name} | {f"{role}_bucket": f"{name}-{role}" for role in ("raw", "curated", "unload")}
    )
    provision(settings, only=["aws"])
    return settings


@pytest.fixture(scope="module")
def own(cloud: Any) -> Settings:
    """For tests that leave everything as it is."""
    return provisioned(cloud)


@pytest.fixture
def broken(cloud: Any) -> Settings:
    """Settings under which nothing is wrong yet."""
    return provisioned(cloud)


def test_a_provisioned_cloud_has_no_failures_and_no_probe_stays(own: Settings) -> None:
    findings = by_subject(examine(own))
    assert {name for name, each in findings.items() if each.status is Status.FAILED} == set()
    for subject in (f"bucket {own.raw_bucket}", "clickhouse reads S3", "clickhouse rights", "kafka topics", "ledger"):
        assert findings[subject].status is Status.OK, findings[subject]
    s3 = aws.s3(own)
    for bucket in (own.raw_bucket, own.curated_bucket, own.unload_bucket):
        left = s3.list_object_versions(Bucket=bucket, Prefix=PROBE_PREFIX)
        assert (left.get("Versions"), left.get("DeleteMarkers")) == (None, None)


def test_the_command_prints_json_and_ends_with_0(cloud: Any) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "data_platform.cli.main", "doctor", "--json"],
        env={"PATH": "/usr/bin:/bin", "DATA_PLATFORM_HOME": str(cloud.home), **cloud.env},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    findings = json.loads(result.stdout)
    assert result.returncode == 0, findings
    assert {"subject", "status", "detail", "hint"} == set(findings[0])


def test_nothing_configured_is_a_failure_that_says_what_to_do(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "data_platform.cli.main", "doctor"],
        env={"PATH": "/usr/bin:/bin", "DATA_PLATFORM_HOME": str(tmp_path), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert result.returncode == 1
    assert "data-platform cloud up" in result.stdout


def test_missing_buckets_queues_and_rules_are_told_apart(broken: Settings) -> None:
    aws.s3(broken).delete_bucket(Bucket=broken.unload_bucket)
    sqs = aws.sqs(broken)
    sqs.delete_queue(QueueUrl=sqs.get_queue_url(QueueName=f"{broken.env}-market-load-dlq")["QueueUrl"])
    aws.events(broken).disable_rule(Name=f"{broken.env}-customer-load-rule")
    found = failures(broken)
    assert set(found) == {
        f"bucket {broken.unload_bucket}",
        f"queue {broken.env}-market-load-dlq",
        f"rule {broken.env}-customer-load-rule",
    }
    assert {each.hint for each in found.values()} == {"data-platform provision"}


def test_dead_letters_are_worth_a_warning(broken: Settings) -> None:
    sqs = aws.sqs(broken)
    url = sqs.get_queue_url(QueueName=f"{broken.env}-market-load-dlq")["QueueUrl"]
    sqs.send_message(QueueUrl=url, MessageBody="{}")
    finding = by_subject(examine(broken))[f"queue {broken.env}-market-load-dlq"]
    assert (finding.status, finding.hint) == (Status.WARNING, "data-platform dlq list")


@pytest.mark.security
def test_a_right_that_is_missing_on_a_bucket_is_named(cloud: Any, own: Settings) -> None:
    faults = cloud.faults("aws")
    fault = faults.arm("s3.error", match={"bucket": own.raw_bucket, "method": "PUT"}, times=None, status=403)
    try:
        found = failures(own)
        assert faults.struck(fault) >= 1
    finally:
        faults.clear()
    assert found[f"bucket {own.raw_bucket}"].detail.startswith(f"not allowed: s3:PutObject on {own.raw_bucket}")


@pytest.mark.security
def test_a_wrong_password_has_its_own_sentence_for_each_engine(own: Settings) -> None:
    url = sa.make_url(str(own.postgres_url and own.postgres_url.get_secret_value())).set(password="geheim")
    wrong = own.model_copy(
        update={
            "postgres_url": SecretStr(url.render_as_string(hide_password=False)),
            "redshift_password": SecretStr("geheim"),
            "clickhouse_password": SecretStr("geheim"),
        }
    )
    found = failures(wrong)
    assert {"postgres", "redshift", "clickhouse"} <= set(found)
    assert "password authentication failed" in found["postgres"].detail
    assert "REDSHIFT_PASSWORD" in str(found["redshift"].hint)
    assert "CLICKHOUSE_PASSWORD" in str(found["clickhouse"].hint)
    assert "geheim" not in str(found)


def test_engines_that_are_down_are_told_within_the_time(own: Settings) -> None:
    gone = free_port()
    down = own.model_copy(
        update={
            "aws_endpoint_url": f"http://127.0.0.1:{gone}",
            "redshift_port": gone,
            "clickhouse_port": gone,
            "kafka_bootstrap_servers": f"127.0.0.1:{gone}",
            "postgres_url": SecretStr(f"postgresql+psycopg://u:p@127.0.0.1:{gone}/d"),
        }
    )
    begin = time.monotonic()
    found = failures(down)
    assert time.monotonic() - begin < 10
    assert set(found) == {"aws", "redshift", "postgres", "clickhouse", "kafka"}
    assert all(each.hint and "Traceback" not in each.detail for each in found.values())


@pytest.fixture
def silent_port() -> Iterator[int]:
    """Takes connections and never answers, as a half-dead server does."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def test_engines_that_never_answer_are_told_at_the_deadline(own: Settings, silent_port: int) -> None:
    silent = own.model_copy(update={"redshift_port": silent_port, "clickhouse_port": silent_port})
    begin = time.monotonic()
    findings = by_subject(examine(silent, deadline_s=5))
    assert time.monotonic() - begin < 30  # neither ever ends by itself
    assert findings["redshift"].detail == findings["clickhouse"].detail == "no answer within 5 s"
    assert findings[f"bucket {own.raw_bucket}"].status is Status.OK


def test_a_named_collection_that_does_not_exist_is_named(own: Settings) -> None:
    found = failures(own.model_copy(update={"clickhouse_s3_collection": "no_such_collection"}))
    assert set(found) == {"clickhouse reads S3"}
    assert "no_such_collection" in found["clickhouse reads S3"].detail


@pytest.mark.security
def test_source_tables_that_are_missing_or_not_granted_are_told_apart(settings: Settings) -> None:
    name = f"t_{uuid.uuid4().hex[:12]}"
    catalog = load_catalog(settings.catalog)
    flights = catalog.datasets["market/flights"]
    datasets = {
        table: flights.model_copy(update={"source": RedshiftSource(table=f"{name}.{table}")})
        for table in ("secret", "missing")
    }
    assert settings.postgres_url is not None
    url = sa.make_url(settings.postgres_url.get_secret_value()).set(database=settings.redshift_database)
    server = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    with server.connect() as connection:
        for statement in (
            f"CREATE SCHEMA {name}",
            f"CREATE TABLE {name}.secret (a int)",
            f"CREATE ROLE {name} LOGIN PASSWORD 'geheim'",
            f"GRANT USAGE ON SCHEMA {name} TO {name}",
        ):
            connection.execute(sa.text(statement))
    limited = settings.model_copy(update={"redshift_user": name, "redshift_password": SecretStr("geheim")})
    try:
        found = by_subject(list(check_redshift(limited, replace(catalog, datasets=datasets))))
    finally:
        with server.connect() as connection:
            connection.execute(sa.text(f"DROP SCHEMA {name} CASCADE"))
            connection.execute(sa.text(f"DROP ROLE {name}"))
        server.dispose()
    secret, missing = found[f"redshift {name}.secret"], found[f"redshift {name}.missing"]
    assert secret.status is Status.FAILED
    assert "permission denied" in secret.detail
    assert secret.hint == f"GRANT SELECT ON {name}.secret TO {name}"
    assert missing.status is Status.WARNING
    assert "does not exist" in missing.detail
