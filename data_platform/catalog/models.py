"""The catalogue's vocabulary: frozen models of what moves. Pure data; reading YAML is load.py, DDL is ddl.py.

Every model forbids unknown keys, so that a misspelt key is a reported mistake and never a silent default.
"""

from collections.abc import Mapping
from datetime import date
from enum import StrEnum
from typing import Annotated, Literal, Self, cast

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from data_platform.catalog import types
from data_platform.errors import ConfigurationError

SNAPSHOT_SUFFIX = "_snapshots"

Identifier = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,62}$")]
Owner = Annotated[str, Field(pattern=r"^(team:[A-Za-z0-9_-]+|[^@\s]+@[^@\s]+\.[^@\s]+)$")]


class Model(BaseModel):
    """Base of all catalogue models."""

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)


class Mode(StrEnum):
    """How a dataset is partitioned: a partition a day, or the newest whole snapshot."""

    DAILY = "daily"
    SNAPSHOT = "snapshot"


class Overwrite(StrEnum):
    """What the loader does when an object is overwritten under the same key."""

    REPLACE = "replace"
    APPEND = "append"
    REJECT = "reject"


class Priority(StrEnum):
    """Whose messages go first when workers are scarce."""

    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"


class Batch(Model):
    """Messages a receive; `peak` while the queue is deep. SQS allows 10 at most."""

    min: Annotated[int, Field(ge=1, le=10)]
    max: Annotated[int, Field(ge=1, le=10)]
    peak: Annotated[int, Field(ge=1, le=10)] | None = None


class Domain(Model):
    """A business domain: one S3 prefix, one queue with its dead-letter queue, one ClickHouse database."""

    name: Identifier
    description: str
    owner: Owner
    priority: Priority
    batch: Batch
    peak_messages_per_hour: Annotated[int, Field(ge=1)]
    mean_file_mb: Annotated[float, Field(gt=0)]
    memory_mb: Annotated[int, Field(ge=64)]  # the sum of max_memory_usage of the domain's running inserts

    @property
    def prefix(self) -> str:
        """S3 prefix of the domain's curated objects, with the closing slash."""
        return f"{self.name}/"


def _known_type(text: str) -> str:
    parsed = types.parse(text)
    if parsed.nullable:
        raise ValueError(f"write `nullable: true` beside the type instead of '{text}'")
    return text


class Column(Model):
    """One column of a dataset: its name, its ClickHouse type, whether it may be null."""

    name: Annotated[Identifier, Field(description="Name in Redshift, in Parquet and in ClickHouse.")]
    type: Annotated[
        str, AfterValidator(_known_type), Field(description="ClickHouse type, e.g. Int32, LowCardinality(String).")
    ]
    nullable: Annotated[bool, Field(description="Whether the column may hold null.")] = False
    description: Annotated[str, Field(description="What the values mean, with their unit.")] = ""

    @model_validator(mode="after")
    def _null_fits(self) -> Self:
        _ = self.clickhouse_type
        return self

    @property
    def clickhouse_type(self) -> types.ColumnType:
        """The parsed type, with the column's nullability."""
        return types.parse(self.type).with_nullable(self.nullable)


class RedshiftSource(Model):
    """Rows from Redshift: a table, or one SELECT. A daily dataset names the DATE column that cuts it into days."""

    kind: Literal["redshift"] = "redshift"
    table: Annotated[
        str | None,
        Field(pattern=r"^[a-z_][a-z0-9_$]*\.[a-z_][a-z0-9_$]*$", description="schema.table to read."),
    ] = None
    sql: Annotated[str | None, Field(description="One SELECT to read instead of a table.")] = None
    partition_column: Annotated[
        Identifier | None, Field(description="DATE column whose value is the partition's day (daily only).")
    ] = None
    ready: Annotated[
        str | None,
        Field(description="SELECT with one boolean cell, true once the day is complete; :day is the day."),
    ] = None


class OtelLogsSource(Model):
    """Rows from OpenTelemetry logs on S3 (`<prefix>/year=YYYY/month=MM/day=DD/hour=HH/`); the columns are fixed."""

    kind: Literal["otel_logs"]
    prefix: Annotated[
        str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_./-]*[A-Za-z0-9]$", description="Key prefix in the raw bucket.")
    ] = "otel-logs"


def _source_kind(value: object) -> str | None:
    """`kind` may be left out for Redshift, where nearly every dataset comes from."""
    if isinstance(value, Mapping):
        return str(cast("Mapping[str, object]", value).get("kind", "redshift"))
    return getattr(value, "kind", None)


Source = Annotated[
    Annotated[RedshiftSource, Tag("redshift")] | Annotated[OtelLogsSource, Tag("otel_logs")],
    Discriminator(_source_kind),
]


class NotNull(Model):
    """No nulls in these columns (beyond what the types already forbid)."""

    kind: Literal["not_null"]
    columns: Annotated[tuple[Identifier, ...], Field(min_length=1)]


class Unique(Model):
    """No two rows of a partition agree in all of these columns."""

    kind: Literal["unique"]
    columns: Annotated[tuple[Identifier, ...], Field(min_length=1)]


class Range(Model):
    """Every non-null value lies in [min, max]."""

    kind: Literal["range"]
    column: Identifier
    min: float | None = None
    max: float | None = None


class RowDrift(Model):
    """The partition's rows differ from the median of the last `days` partitions by at most `tolerance` (0..1)."""

    kind: Literal["row_drift"]
    tolerance: Annotated[float, Field(gt=0)]
    days: Annotated[int, Field(ge=2, le=90)] = 14


Check = Annotated[NotNull | Unique | Range | RowDrift, Field(discriminator="kind")]


class Dataset(Model):
    """One dataset: where its rows come from, its curated Parquet and its ClickHouse table `<domain>.<name>`."""

    name: Annotated[Identifier, Field(description="Name of the dataset and of its table; the file is called so.")]
    domain: Annotated[Identifier, Field(description="Domain; the file lies in the folder of this name.")]
    description: Annotated[str, Field(min_length=1, description="What one row is.")]
    owner: Annotated[Owner, Field(description="team:<name>, or an e-mail address.")]
    mode: Annotated[Mode, Field(description="daily: a partition a day. snapshot: the newest whole copy.")] = Mode.DAILY
    source: Annotated[Source, Field(description="Where the rows come from.")]
    start: Annotated[date | None, Field(description="First day (daily only).")] = None
    end: Annotated[date | None, Field(description="Last day, for a history that is closed (daily only).")] = None
    columns: Annotated[tuple[Column, ...], Field(min_length=1, description="The columns, in order.")]
    order_by: Annotated[
        tuple[Identifier, ...], Field(min_length=1, description="Sorting key: what readers filter by comes first.")
    ]
    partition_by: Annotated[
        str, Field(description="Always _ds; the key exists so that another partitioning gets a reason.")
    ] = "_ds"
    freshness_hours: Annotated[
        float | None, Field(gt=0, description="Hours after the end of a day until its rows must be visible.")
    ] = None
    checks: Annotated[tuple[Check, ...], Field(description="What must hold for every partition.")] = ()
    overwrite: Annotated[Overwrite, Field(description="What happens to an object overwritten under the same key.")] = (
        Overwrite.REPLACE
    )
    retention_days: Annotated[
        int | None, Field(ge=1, description="Partitions older than this are dropped from ClickHouse; absent: never.")
    ] = None

    @property
    def key(self) -> str:
        """`<domain>/<name>`: the dataset's name everywhere outside SQL."""
        return f"{self.domain}/{self.name}"

    @property
    def storage_name(self) -> str:
        """Name of the table that stores the rows: loads, rebuilds and partitions work on this one.

        Readers always query `<domain>.<name>`: the same table for a daily dataset, the view of the newest snapshot
        over `<name>_snapshots` for a snapshot.
        """
        return f"{self.name}{SNAPSHOT_SUFFIX}" if self.mode is Mode.SNAPSHOT else self.name

    @property
    def redshift(self) -> RedshiftSource:
        """The Redshift source. Raises ConfigurationError where the rows come from elsewhere."""
        if isinstance(self.source, RedshiftSource):
            return self.source
        raise ConfigurationError(
            f"{self.key} comes from {self.source.kind} and not from Redshift", hint="data-platform catalog list"
        )


class ConversionSteps(Model):
    """Event names of the funnel's steps."""

    view: str = "product_view"
    cart: str = "add_to_cart"


class CohortAges(Model):
    """First day of age of each cohort; a user is `new` below `recent`."""

    recent: Annotated[int, Field(ge=1)] = 7
    active: Annotated[int, Field(ge=2)] = 30
    veteran: Annotated[int, Field(ge=3)] = 90


class Service(Model):
    """A product service whose events are analysed; `time_zone` decides what a day is."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,62}$")]
    time_zone: str = "UTC"
    min_data_date: date | None = None
    engine: Literal["clickhouse", "athena"] | None = None  # where its metrics are computed; None: as the settings say
    owner: Owner = "team:product-analytics"
    conversion: ConversionSteps = ConversionSteps()
    cohorts: CohortAges = CohortAges()

    @property
    def prefix(self) -> str:
        """Prefix of the service's tables: every `-` becomes `_`."""
        return self.name.replace("-", "_")


def _text_encoding(name: str) -> str:
    try:
        b"".decode(name)
    except LookupError:
        raise ValueError(f"'{name}' is no text encoding") from None
    return name


class UserStatistics(Model):
    """The CSV batch into PostgreSQL: what is refused, in which portions it is applied."""

    max_rejected_percent: Annotated[
        float, Field(ge=0, le=100, description="Bad lines in percent beyond which nothing of a file is applied.")
    ] = 10
    refuse_inactive_users: Annotated[bool, Field(description="Reject rows of users that are not active.")] = False
    encoding: Annotated[str, AfterValidator(_text_encoding), Field(description="Encoding of the files.")] = "utf-8"
    chunk_rows: Annotated[int, Field(ge=1, le=1_000_000, description="Rows of one transaction.")] = 50_000
    parallel_chunks: Annotated[int, Field(ge=1, le=5, description="Transactions at once.")] = 3
    max_bytes: Annotated[int, Field(ge=1, description="Largest text of a file, unpacked, in bytes.")] = 4 * 1024**3
    max_audit_errors: Annotated[
        int, Field(ge=0, description="Rejected rows of a file that are written to audit_logs.")
    ] = 1_000_000


class Topic(Model):
    """A Kafka topic the platform makes."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9.-]{0,120}$", description="Topic name.")]
    description: str = ""
    partitions: Annotated[int, Field(ge=1, le=1000)] = 3
    retention_days: Annotated[int, Field(ge=1)] = 7
