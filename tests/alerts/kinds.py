"""The kinds of failures that the page of messages shows, made by the code that makes them in earnest."""

import uuid
from collections.abc import Iterator
from datetime import UTC, date, datetime

from botocore.exceptions import ClientError, EndpointConnectionError
from clickhouse_connect.driver.exceptions import DatabaseError

from data_platform.assets.checks import BoundaryError
from data_platform.assets.outcomes import outcome_of
from data_platform.catalog.models import RowDrift
from data_platform.clients import redshift
from data_platform.curation.manifest import CuratedFile, PartitionManifest, PartitionSource, StoredManifest
from data_platform.errors import ConfigurationError, PlatformError, ThrottledError, TransientError, UnknownOutcomeError
from data_platform.ledger.unload_requests import UnloadRequest, UnloadStatus
from data_platform.quality import layers
from data_platform.quality.finding import Finding
from data_platform.quality.rules import judge, rules_of
from data_platform.quality.standing import Left, expected_days, judge_failed, judge_latest
from data_platform.statistics.outcome import Difference, Outcome
from data_platform.statistics.source import FileVersion
from data_platform.unload.datasets import NotReadyError
from tests.desk.conftest import catalog_of, dataset_of

DAY = date(2024, 3, 9)
NOW = datetime(2024, 3, 10, 2, tzinfo=UTC)
LONG_AFTER = datetime(2024, 6, 1, 2, tzinfo=UTC)
LOOKBACK = 7
ORDERS = dataset_of(
    "orders",
    checks=[
        {"kind": "not_null", "columns": ["amount"]},
        {"kind": "unique", "columns": ["id"]},
        {"kind": "range", "column": "amount", "min": 0},
        {"kind": "row_drift", "tolerance": 0.5},
    ],
)
CATALOG = catalog_of(ORDERS)


def broken_layers() -> list[Finding]:
    """The boundary checks' findings where a layer is not what the one before it is, in each of their ways."""
    refused = PlatformError("2 of 8 files of attempt 1 are not on S3")
    return [
        layers.unload_broken(ORDERS, DAY, refused),
        layers.judge_curated(ORDERS, DAY, None, None),
        layers.judge_curated(ORDERS, DAY, _manifest(10, 9), None),
        layers.judge_curated(ORDERS, DAY, _manifest(10, 10), layers.made_from_another(_manifest(10, 10), 2, 12)),
        layers.never_unloaded(ORDERS, DAY, _manifest(10, 10)),
        layers.judge_loaded(
            ORDERS, DAY, {"s3://curated/market/orders/ds=2024-03-09/g1.parquet": 10}, {},
            {"s3://curated/market/orders/ds=2024-03-09/g1.parquet": 4},
        ),
    ]  # fmt: skip


def _manifest(source: int, rows: int) -> StoredManifest:
    file = CuratedFile(key="market/orders/ds=2024-03-09/g1.parquet", etag="e", bytes=9, rows=rows, uncompressed_bytes=9)
    made_from = PartitionSource(kind="unload", reference="s3://unload/x", version="attempt 1", rows=source)
    return StoredManifest(
        PartitionManifest(
            dataset="market/orders", ds=DAY, generation=1, schema_version="1", created_at=NOW, source=made_from,
            files=(file,),
        ),
        "etag",
    )  # fmt: skip


def findings() -> Iterator[Finding]:
    """The findings of the catalogue's rules and of the standing checks."""
    for rule, value in zip(rules_of(ORDERS), (12, 3, 7, (14, 1000.0)), strict=True):
        yield judge(ORDERS, DAY, rule, 400 if isinstance(rule.check, RowDrift) else 1000, value)
    now = datetime(2024, 3, 11, 6, tzinfo=UTC)
    yield judge_latest(ORDERS, expected_days(ORDERS, now, default_hours=24), {})
    nulls, away = ERRORS["the data do not fit"], ERRORS["ClickHouse is away"]
    assert isinstance(nulls, PlatformError)
    assert isinstance(away, PlatformError)
    left = Left("curated", nulls.message, nulls.hint or "")
    yield judge_failed(ORDERS, {"2024-03-07": left, "2024-03-09": left})
    other = Left("clickhouse", away.message, outcome_of(away).next_step)
    yield judge_failed(ORDERS, {"2024-03-07": left, "2024-03-08": other, "2024-03-09": left})


ERRORS: dict[str, Exception] = {
    "the data do not fit": PlatformError(
        "column amount holds nulls, and the catalogue says that it has none",
        hint="correct the rows at the source, or make the column nullable in the catalogue",
    ),
    "ClickHouse is away": TransientError("ClickHouse at ch:8443 was not reached"),
    "Redshift has no slot": ThrottledError(
        "Redshift dw:5439/dev takes no more sessions: connection limit 500 exceeded [53300]", hint=redshift.NO_SESSION
    ),
    "a grant is missing": ConfigurationError(
        "Redshift refuses the query: permission denied for relation orders [42501]"
    ),
    "nobody knows": UnknownOutcomeError("the UNLOAD of attempt 3 was sent and its answer never came"),
    "held back": NotReadyError(
        "market/orders of 2024-03-09 waits for its source: source.ready gave False, not true",
    ),
    "a layer disagrees": BoundaryError.of(broken_layers()[2]),
    "a bug": KeyError("carrier"),
    "S3 refuses": ClientError({"Error": {"Code": "AccessDenied", "Message": "Access Denied"}}, "PutObject"),
    "S3 is away": EndpointConnectionError(endpoint_url="https://s3.eu-central-1.amazonaws.com"),
    "ClickHouse refuses": DatabaseError("Code: 241. DB::Exception: Memory limit exceeded. (MEMORY_LIMIT_EXCEEDED)"),
}
LAYER = {
    "the data do not fit": "curated",
    "ClickHouse is away": "clickhouse",
    "ClickHouse refuses": "clickhouse",
    "a layer disagrees": "curated",
    "a bug": "curated",
}


def outcome_of_file() -> Outcome:
    """A CSV drop that loses a record, differs from the table, and was refused: each is told apart."""
    file = FileVersion("drops", "incoming/day.csv", "v1", "v1", "etag", 10_000, NOW)
    return Outcome(
        "DONE", file, uuid.UUID(int=1), 501, 400, 60, 39, 1, 0, 1, 3, None, "31 of 91 lines are bad, more than 10 %",
        1.0,
        differing=(
            Difference("U00003", (3, 3), (3, 99)),
            Difference("U00004", (4, 4), None),
            Difference("U00005", (5, 5), (7, 7), "s3://drops/incoming/newer.csv", NOW),
        ),
    )  # fmt: skip


def unload_request() -> UnloadRequest:
    """A request to the unload API that FAILED."""
    return UnloadRequest(
        "3f0c7a52", "reporting", b"", "SELECT 1", {}, UnloadStatus.FAILED, 1, None, None, (), "REDSHIFT_ERROR",
        'relation "public.ordrs" does not exist [42P01]', None, NOW, NOW, NOW, None,
    )  # fmt: skip
