"""The UNLOAD statement: typed options, every conflict refused before Redshift sees it, literals quoted by the rules.

Pure functions. Executing the statement is execution.py; which SQL may be sent at all is the guard's decision.
"""

from enum import StrEnum
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

MIN_FILE_MB = 5
MAX_FILE_MB = 6348  # 6.2 GB, in units of 2**20 bytes
PARQUET_FILE_STEP_MB = 32
ColumnName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_$]*$")]
NullText = Annotated[str, Field(max_length=128)]
Region = Annotated[str, Field(pattern=r"^[a-z]{2}(-[a-z]+)+-\d$")]


class Format(StrEnum):
    """File formats; `legacy` is the delimited text of before FORMAT existed, with ADDQUOTES."""

    CSV = "csv"
    PARQUET = "parquet"
    JSON = "json"
    LEGACY = "legacy"


class Compression(StrEnum):
    """Compression of text formats; Parquet compresses itself."""

    NONE = "none"
    GZIP = "gzip"
    ZSTD = "zstd"
    BZIP2 = "bzip2"

    @property
    def suffix(self) -> str:
        """File name suffix Redshift adds, with the dot; empty without compression."""
        return {"none": "", "gzip": ".gz", "zstd": ".zst", "bzip2": ".bz2"}[self.value]


class UnloadOptions(BaseModel):
    """Options of one UNLOAD. Construction refuses what Redshift would refuse; MANIFEST VERBOSE is always there."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Format = Format.PARQUET
    compression: Compression = Compression.NONE
    header: bool = False
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] | None = None
    null_as: NullText | None = None
    parallel: bool = True
    max_file_size_mb: Annotated[int, Field(ge=MIN_FILE_MB, le=MAX_FILE_MB)] | None = None
    partition_by: tuple[ColumnName, ...] = ()
    region: Region | None = None

    @model_validator(mode="after")
    def _conflicts(self) -> Self:
        problems = list(self._refused())
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _refused(self) -> list[str]:
        problems: list[str] = []
        if self.format in {Format.PARQUET, Format.JSON}:
            name = self.format.value
            if self.header:
                problems.append(f"format {name} excludes header")
            if self.delimiter is not None:
                problems.append(f"format {name} excludes delimiter")
            if self.null_as is not None:
                problems.append(f"format {name} excludes nullAs")
        if self.format is Format.PARQUET:
            if self.compression is not Compression.NONE:
                problems.append(f"format parquet compresses itself and excludes compression {self.compression}")
            if self.max_file_size_mb is not None and self.max_file_size_mb % PARQUET_FILE_STEP_MB:
                problems.append(f"maxFileSizeMb of parquet is a multiple of {PARQUET_FILE_STEP_MB}")
        if self.delimiter is not None and (ord(self.delimiter) > 127 or self.delimiter in "\r\n\"'\\\0"):
            problems.append("delimiter is one ASCII character, no quote, backslash, newline or NUL")
        if self.null_as is not None and "\0" in self.null_as:
            problems.append("nullAs holds a NUL character")
        if len({name.lower() for name in self.partition_by}) != len(self.partition_by):
            problems.append("partitionBy names a column twice")
        return problems

    @property
    def extension(self) -> str | None:
        """EXTENSION to ask for: Redshift gives CSV and JSON files none of their own."""
        if self.format in {Format.CSV, Format.JSON}:
            return f"{self.format.value}{self.compression.suffix}"
        return None


def quote_literal(text: str) -> str:
    r"""`text` as a Redshift string literal: `\` and `'` are both escaped, since Redshift reads both.

    Doubling only the quote gives silently wrong rows when the text holds a backslash. NUL cannot be sent: ValueError.
    """
    if "\0" in text:
        raise ValueError("SQL text cannot hold a NUL character")
    return "'" + text.replace("\\", "\\\\").replace("'", "''") + "'"


def unquote_literal(literal: str) -> str:
    """The inverse of `quote_literal`, reading as Redshift reads. Raises ValueError for what is no whole literal."""
    if len(literal) < 2 or literal[0] != "'":
        raise ValueError("not a string literal")
    out: list[str] = []
    i = 1
    while i < len(literal):
        char = literal[i]
        if char == "'":
            if literal[i + 1 : i + 2] != "'":
                break
            out.append("'")
            i += 2
        elif char == "\\" and i + 1 < len(literal):
            out.append(literal[i + 1])
            i += 2
        else:
            out.append(char)
            i += 1
    if i != len(literal) - 1:
        raise ValueError(f"string literal ends at character {i} of {len(literal)}")
    return "".join(out)


def build_unload(sql: str, target: str, options: UnloadOptions, *, iam_role: str) -> str:
    """The UNLOAD statement that writes the rows of `sql` under the S3 prefix `target` (s3://bucket/prefix/).

    A newline before the closing quote keeps a trailing `--` comment of `sql` from eating it.
    """
    if not target.startswith("s3://") or not target.endswith("/"):
        raise ValueError(f"the target is an S3 prefix of its own, s3://bucket/.../: {target!r}")
    role = "default" if iam_role == "default" else quote_literal(iam_role)
    lines = [f"UNLOAD ({quote_literal(sql + chr(10))})", f"TO {quote_literal(target)}", f"IAM_ROLE {role}"]
    lines.extend(_format_clauses(options))
    if options.partition_by:
        lines.append("PARTITION BY (" + ", ".join(f'"{name}"' for name in options.partition_by) + ")")
    lines.append("MANIFEST VERBOSE")
    lines.append(f"PARALLEL {'ON' if options.parallel else 'OFF'}")
    if options.max_file_size_mb is not None:
        lines.append(f"MAXFILESIZE {options.max_file_size_mb} MB")
    if options.region is not None:
        lines.append(f"REGION {quote_literal(options.region)}")
    if options.extension is not None:
        lines.append(f"EXTENSION {quote_literal(options.extension)}")
    return "\n".join(lines)


def _format_clauses(options: UnloadOptions) -> list[str]:
    clauses: list[str] = []
    if options.format is not Format.LEGACY:
        clauses.append(f"FORMAT {options.format.value.upper()}")
    if options.format in {Format.CSV, Format.LEGACY}:
        clauses.append(f"DELIMITER {quote_literal(options.delimiter or ',')}")
    if options.format is Format.LEGACY:
        clauses.append("ADDQUOTES")
    if options.header:
        clauses.append("HEADER")
    if options.null_as is not None:
        clauses.append(f"NULL AS {quote_literal(options.null_as)}")
    if options.compression is not Compression.NONE:
        clauses.append(options.compression.value.upper())
    return clauses
