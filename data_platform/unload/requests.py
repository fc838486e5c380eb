"""The body of a request over HTTP: its names, defaults and conflicts; what is kept of it. Pure."""

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, StrictBool, StrictInt, ValidationError, model_validator

from data_platform.unload.guard import MAX_SQL_CHARACTERS, GuardedQuery
from data_platform.unload.sqltext import RefusedError
from data_platform.unload.statement import (
    MAX_FILE_MB,
    MIN_FILE_MB,
    ColumnName,
    Compression,
    Format,
    NullText,
    Region,
    UnloadOptions,
)

REQUEST_ID_PATTERN = r"^[A-Za-z0-9._-]{1,128}$"
_TEXT = frozenset({Format.CSV, Format.LEGACY, Format.JSON})


class UnloadBody(BaseModel):
    """`POST /api/unload`: what is to be unloaded, and how. Anything else than these fields is refused."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"example": {"requestId": "flights-2013-01", "sql": "select * from market.flights"}},
    )

    request_id: Annotated[
        str,
        Field(
            alias="requestId",
            pattern=REQUEST_ID_PATTERN,
            description="Chosen by the caller; becomes part of the S3 key.",
        ),
    ]
    sql: Annotated[
        str,
        Field(
            validation_alias=AliasChoices("sql", "query"),
            min_length=1,
            max_length=MAX_SQL_CHARACTERS,
            description="One read-only SELECT without an outer LIMIT; `query` is accepted for `sql`.",
        ),
    ]
    format: Annotated[Format, Field(description="`legacy`: delimited text with ADDQUOTES, without header.")] = (
        Format.CSV
    )
    header: Annotated[StrictBool | None, Field(description="Header lines; default: csv only.")] = None
    delimiter: Annotated[
        Annotated[str, Field(min_length=1, max_length=1)] | None,
        Field(description="One ASCII character; default a comma."),
    ] = None
    compression: Annotated[
        Compression | None, Field(description="Default: gzip for text formats; Parquet compresses itself.")
    ] = None
    parallel: Annotated[StrictBool, Field(description="One file or more per slice of the warehouse.")] = False
    max_file_size_mb: Annotated[
        Annotated[StrictInt, Field(ge=MIN_FILE_MB, le=MAX_FILE_MB)] | None,
        Field(alias="maxFileSizeMb", description="In MiB; parquet in steps of 32."),
    ] = None
    partition_by: Annotated[
        list[ColumnName], Field(alias="partitionBy", max_length=16, description="Columns that become folders.")
    ] = []
    null_as: Annotated[NullText | None, Field(alias="nullAs", description="Text of a null value.")] = None
    region: Annotated[Region | None, Field(description="Of the bucket, when it is not the warehouse's.")] = None

    @model_validator(mode="before")
    @classmethod
    def _one_statement(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and "sql" in data and "query" in data:
            raise ValueError("give sql or query, not both")
        return data

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.request_id in {".", ".."}:
            raise ValueError("requestId cannot be . or ..")
        self.options()
        return self

    def options(self) -> UnloadOptions:
        """The options with the defaults of the format: what a person downloads. Raises ValueError."""
        compressed = Compression.GZIP if self.format in _TEXT else Compression.NONE
        try:
            return UnloadOptions(
                format=self.format,
                header=self.format is Format.CSV if self.header is None else self.header,
                delimiter=self.delimiter,
                compression=self.compression or compressed,
                parallel=self.parallel,
                max_file_size_mb=self.max_file_size_mb,
                partition_by=tuple(self.partition_by),
                null_as=self.null_as,
                region=self.region,
            )
        except ValidationError as error:
            reasons = [
                f"{'.'.join(str(part) for part in each['loc'])}: {each['msg']}".removeprefix(": ")
                for each in error.errors()
            ]
            raise ValueError("; ".join(reasons).replace("Value error, ", "")) from None


def body_hash(sql: str, options: UnloadOptions) -> bytes:
    """Tells the same body from another: SHA-256 of statement and options, defaults filled in."""
    canonical = json.dumps({"sql": sql, "options": options.model_dump(mode="json")}, sort_keys=True)
    return hashlib.sha256(canonical.encode()).digest()


def check_columns(query: GuardedQuery, options: UnloadOptions) -> None:
    """What formats ask of the output columns, as far as they can be told. Raises RefusedError."""
    names = query.columns
    if names is None:
        return
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice and options.format in {Format.PARQUET, Format.JSON}:
        raise RefusedError(f"format {options.format} needs different column names; give an alias", part=twice[0])
    wanted = [name.lower() for name in options.partition_by]
    missing = [name for name in wanted if name not in names]
    if missing:
        raise RefusedError("partitionBy names a column the query does not return", part=missing[0])
    if wanted and not set(names) - set(wanted):
        raise RefusedError("partitionBy leaves no column for the files")
