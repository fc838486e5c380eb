"""The catalogue's vocabulary: frozen models of what moves. Pure data; reading YAML is load.py, DDL is ddl.py.

Every model forbids unknown keys, so that a misspelt key is a reported mistake and never a silent default.
"""

from datetime import date
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

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


class Column(Model):
    """One column of a dataset. `type` is a ClickHouse type (types.py lists them)."""

    name: Identifier
    type: str
    nullable: bool = False
    description: str = ""


class Source(Model):
    """Where the rows come from in Redshift: a table, or one SELECT; a daily one names its partition column.

    `ready` is SQL with one boolean cell that must be true before a day is unloaded; `:day` stands for the day.
    """

    table: Annotated[str, Field(pattern=r"^[a-z_][a-z0-9_$]*\.[a-z_][a-z0-9_$]*$")] | None = None
    sql: str | None = None
    partition_column: Identifier | None = None
    ready: str | None = None


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
    """One dataset: a Redshift source, its curated Parquet and its ClickHouse table `<domain>.<name>`."""

    name: Identifier
    domain: Identifier
    description: str
    owner: Owner
    mode: Mode = Mode.DAILY
    source: Source
    start: date | None = None  # the first day (daily only)
    end: date | None = None  # the last day, for a history that is closed
    columns: Annotated[tuple[Column, ...], Field(min_length=1)]
    order_by: Annotated[tuple[Identifier, ...], Field(min_length=1)]
    partition_by: str = "_ds"  # nothing else is accepted; the key exists so that a mistake gets a reason
    freshness_hours: Annotated[float, Field(gt=0)] | None = None
    checks: tuple[Check, ...] = ()
    overwrite: Overwrite = Overwrite.REPLACE
    retention_days: Annotated[int, Field(ge=1)] | None = None

    @property
    def key(self) -> str:
        """`<domain>/<name>`: the dataset's name everywhere outside SQL."""
        return f"{self.domain}/{self.name}"


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

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,62}$")]
    time_zone: str = "UTC"
    min_data_date: date | None = None
    owner: Owner = "team:product-analytics"
    conversion: ConversionSteps = ConversionSteps()
    cohorts: CohortAges = CohortAges()

    @property
    def prefix(self) -> str:
        """Prefix of the service's tables: every `-` becomes `_`."""
        return self.name.replace("-", "_")
