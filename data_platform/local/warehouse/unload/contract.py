"""What the warehouse's front and the UNLOAD executor agree on: the statement, the source of rows, the outcome, errors.

Types only. The parser is in parser.py, the executor in execution.py, both re-exported by the package.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal, Protocol

from data_platform.local.faults import FaultBoard

FAULT_KINDS: tuple[str, ...] = (
    "unload.die_after_files",  # args: files=k, drop=bool: k files are written, then XX000 or a dropped connection
    "unload.no_manifest",
    "unload.lying_manifest",  # args: what = missing_entry | extra_entry | wrong_count | wrong_length
    "unload.refuse_role",
    "unload.timeout",  # args: files=n: 57014 after n files
    "unload.s3_error",  # args: slice=j (default 0): that slice's upload fails, the files of the others stay
    "unload.slow",  # args: seconds=s per file
    "unload.wrong_count",  # args: by=n (default 1): the count returned is n too high
)
"""Every kind is struck with the facts `prefix` (the s3:// target) and `query` (the inner SELECT)."""

CopyFormat = Literal["binary", "csv", "text"]
OutputFormat = Literal["text", "csv", "json", "parquet"]
Compression = Literal["gzip", "bzip2", "zstd"]

MEGABYTE = 1024**2
MAX_FILE_SIZE_DEFAULT = int(6.2 * 1024 * MEGABYTE)


class WarehouseError(Exception):
    """An ErrorResponse to be: the front sends these fields to the client as they are."""

    def __init__(
        self,
        sqlstate: str,
        message: str,
        *,
        detail: str | None = None,
        hint: str | None = None,
        position: int | None = None,
    ) -> None:
        super().__init__(message)
        self.sqlstate = sqlstate
        self.message = message
        self.detail = detail
        self.hint = hint
        self.position = position  # 1-based character of the statement's text, as in the protocol's field P


class ConnectionDroppedError(WarehouseError):
    """The front closes the client's socket without an answer, as a died leader node does."""


@dataclass(frozen=True)
class UnloadStatement:
    """One UNLOAD, every option typed. Sizes are bytes; `query` is the inner SELECT as it is after un-quoting."""

    query: str
    prefix: str  # s3://bucket/key-prefix
    iam_role: str  # an ARN, several chained with commas, or "default"
    format: OutputFormat = "text"
    delimiter: str = "|"
    fixed_width: tuple[tuple[str, int], ...] | None = None  # (column label or position, width)
    add_quotes: bool = False
    escape: bool = False
    null_as: str | None = None
    header: bool = False
    compression: Compression | None = None
    parallel: bool = True
    max_file_size: int = MAX_FILE_SIZE_DEFAULT
    row_group_size: int | None = None
    manifest: bool = False
    manifest_verbose: bool = False
    partition_by: tuple[str, ...] = ()
    partition_include: bool = False
    allow_overwrite: bool = False
    clean_path: bool = False
    region: str | None = None
    encrypted: bool = False
    encrypted_auto: bool = False
    kms_key_id: str | None = None
    extension: str | None = None

    @property
    def bucket(self) -> str:
        """The target's bucket."""
        return self.prefix.removeprefix("s3://").partition("/")[0]

    @property
    def key_prefix(self) -> str:
        """The target's key prefix inside the bucket; may be empty."""
        return self.prefix.removeprefix("s3://").partition("/")[2]


@dataclass(frozen=True)
class ColumnFacts:
    """One output column of the inner SELECT, from PostgreSQL's RowDescription."""

    name: str
    type_oid: int
    type_name: str  # pg_type.typname: int4, varchar, numeric, timestamptz, ...
    length: int | None = None  # of char(n) and varchar(n), None when undeclared
    precision: int | None = None  # of numeric(p, s), None when undeclared
    scale: int | None = None


class Source(Protocol):
    """The inner SELECT inside the client's own session (its transaction, temporary tables, search path)."""

    def describe(self) -> list[ColumnFacts]:
        """The output columns, without running the query. Raises WarehouseError (42P01, 42501, ...)."""
        ...

    def copy(self, format: CopyFormat, **options: str) -> Iterator[bytes]:  # noqa: A002 - PostgreSQL's word
        """Stream `COPY (<query>) TO STDOUT (FORMAT ..., <options>)`; chunks of any size, bounded memory.

        `options` are COPY's own (DELIMITER, NULL, ...), values unquoted. Raises WarehouseError with PostgreSQL's
        SQLSTATE, 57014 when cancelled. The executor calls it once and closes the iterator.
        """
        ...

    def cancelled(self) -> bool:
        """Whether the client has sent a CancelRequest or the statement's time is over; asked between batches."""
        ...


def _no_progress(_rows: int, _bytes: int, _files: int) -> None:
    """Nobody watches."""


@dataclass(frozen=True)
class UnloadEnvironment:
    """Where an UNLOAD writes and who watches. `progress` receives running totals: rows, bytes, finished files."""

    s3_endpoint: str
    access_key_id: str
    secret_access_key: str
    region: str
    faults: FaultBoard = field(default_factory=lambda: FaultBoard(FAULT_KINDS))
    progress: Callable[[int, int, int], None] = _no_progress
    slices: int = 4


@dataclass(frozen=True)
class UnloadedFile:
    """One object written. `rows` counts the header line too, as Redshift's record_count does."""

    url: str
    rows: int
    bytes: int


@dataclass(frozen=True)
class UnloadOutcome:
    """What the session reports: `rows` is pg_last_unload_count() (no header lines); `parts` feeds STL_UNLOAD_LOG."""

    rows: int
    bytes: int
    files: int
    manifest_url: str | None
    parts: tuple[UnloadedFile, ...] = ()
