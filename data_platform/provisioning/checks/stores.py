"""ClickHouse and Kafka: version, clock, rights, tables against the catalogue, reading S3, topics."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import uuid4

from data_platform.catalog import Catalog, live
from data_platform.catalog.ddl import qualified
from data_platform.clients import aws, clickhouse, kafka
from data_platform.provisioning.checks.aws import probe
from data_platform.provisioning.checks.finding import (
    PROVISION,
    Finding,
    failed,
    ok,
    skew_finding,
    version_finding,
    warning,
)
from data_platform.provisioning.topics import wanted_topics
from data_platform.settings import Settings

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

CLICKHOUSE_LEAST = (24, 8)
KAFKA_TIMEOUT_S = 5.0


def check_clickhouse(settings: Settings, catalog: Catalog) -> Iterator[Finding]:
    """Version, clock, CREATE TABLE, the catalogue's tables, and S3 as ClickHouse itself reaches it.

    Raises PlatformError when there is no connection.
    """
    with clickhouse.connect(settings) as client:
        yield version_finding("clickhouse", str(client.server_version), CLICKHOUSE_LEAST)
        epoch = float(client.query("SELECT toUnixTimestamp64Milli(now64(3)) / 1000").result_rows[0][0])
        yield skew_finding("clickhouse clock", datetime.fromtimestamp(epoch, UTC))
        existing = {str(name) for (name,) in client.query("SELECT name FROM system.databases").result_rows}
        missing = [domain for domain in catalog.domains if domain not in existing]
        if missing:
            yield failed("clickhouse databases", f"missing: {', '.join(missing)}", PROVISION)
        yield from _may_create(client, [domain for domain in catalog.domains if domain in existing])
        yield from _differences(client, settings, catalog)
        yield from _reads_s3(client, settings)


def check_kafka(settings: Settings, catalog: Catalog) -> Iterator[Finding]:
    """The brokers and the topics."""
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient

    # Its own log would repeat the failure twenty times a second.
    admin = AdminClient(kafka.client_config(settings) | {"log_level": 0})
    try:
        metadata = admin.list_topics(timeout=KAFKA_TIMEOUT_S)
    except KafkaException as error:
        yield failed(
            "kafka",
            f"{settings.kafka_bootstrap_servers}: {error.args[0].str()}",
            "are the brokers up? KAFKA_BOOTSTRAP_SERVERS, security protocol and SASL user right?",
        )
        return
    yield ok("kafka", f"brokers: {len(metadata.brokers)}")
    topics = wanted_topics(settings, catalog)
    missing = sorted(set(topics) - set(metadata.topics))
    if missing:
        yield failed("kafka topics", f"missing: {', '.join(missing)}", PROVISION)
    else:
        yield ok("kafka topics", f"all {len(topics)} are there")


def _may_create(client: "Client", databases: list[str]) -> Iterator[Finding]:
    from clickhouse_connect.driver.exceptions import DatabaseError

    refused = False
    for database in databases:
        table = qualified(database, f"doctor_{uuid4().hex}")
        try:
            client.command(f"CREATE TABLE {table} (a UInt8) ENGINE = Memory")
            client.command(f"DROP TABLE {table} SYNC")
        except DatabaseError as error:
            refused = True
            words = clickhouse.inner_code(error).message.splitlines()[0]
            yield failed(f"clickhouse {database}", words, f"GRANT CREATE TABLE, DROP TABLE ON {database}.* TO the user")
    if databases and not refused:
        yield ok("clickhouse rights", "tables can be made and dropped")


def _differences(client: "Client", settings: Settings, catalog: Catalog) -> Iterator[Finding]:
    changes = [
        change
        for change in live.diff(catalog, client, cluster=settings.clickhouse_cluster)
        if change.kind is not live.Kind.EXTRA
    ]
    if changes:
        named = ", ".join(sorted({change.target for change in changes})[:3])
        yield warning(
            "clickhouse tables",
            f"{len(changes)} differences to the catalogue ({named}{', ...' if len(changes) > 3 else ''})",
            "data-platform catalog diff",
        )
    else:
        yield ok("clickhouse tables", "are as the catalogue has them")


def _reads_s3(client: "Client", settings: Settings) -> Iterator[Finding]:
    """A probe object is put through our own S3 client and read by ClickHouse."""
    from botocore.exceptions import BotoCoreError, ClientError
    from clickhouse_connect.driver.exceptions import DatabaseError

    subject = "clickhouse reads S3"
    if settings.aws_region is None:
        yield warning(subject, "not tried: AWS_DEFAULT_REGION not set")
        return
    try:
        with probe(aws.s3(settings), settings.curated_bucket, b"1\n", ".csv") as key:
            source = clickhouse.s3_source(
                settings, settings.curated_bucket, key, structure="a UInt8", data_format="CSV"
            )
            client.query(f"SELECT a FROM {source} SETTINGS s3_retry_attempts = 1, max_execution_time = 5")
    except (ClientError, BotoCoreError):
        yield warning(subject, "not tried: the probe object could not be written (see the bucket's line)")
    except DatabaseError as error:
        facts = clickhouse.inner_code(error)
        collection = settings.clickhouse_s3_collection or "(none: the server's own role)"
        yield failed(
            subject,
            facts.message.splitlines()[0][:300],
            f"named collection {collection}: its keys, the endpoint {settings.clickhouse_s3_endpoint or 'of AWS'},"
            f" s3:GetObject on {settings.curated_bucket}",
        )
    else:
        yield ok(subject, f"through {settings.clickhouse_s3_collection or 'its own role'}")
