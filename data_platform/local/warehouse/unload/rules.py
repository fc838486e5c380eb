"""What Redshift refuses in an UNLOAD before it runs: options that exclude each other, bounds, an outer LIMIT.

Pure; needs neither the engine nor S3.
"""

import re
from collections.abc import Mapping

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from data_platform.local.warehouse.unload.contract import (
    MAX_FILE_SIZE_DEFAULT,
    MEGABYTE,
    UnloadStatement,
    WarehouseError,
)

EXCLUDED_BY_FORMAT: Mapping[str, tuple[str, ...]] = {
    "parquet": (*("delimiter", "fixedwidth", "addquotes", "escape", "null as", "header", "gzip", "bzip2", "zstd"),),
    "json": ("delimiter", "header", "fixedwidth", "addquotes", "escape", "null as"),
    "csv": ("fixedwidth", "addquotes", "escape"),
    "text": (),
}
EXCLUDED_PAIRS = (
    ("cleanpath", "allowoverwrite"),
    ("fixedwidth", "delimiter"),
    ("fixedwidth", "header"),
    ("fixedwidth", "addquotes"),
    ("fixedwidth", "escape"),
    ("encrypted auto", "kms_key_id"),
)
MAX_FILE_SIZE_BOUNDS = (5 * MEGABYTE, MAX_FILE_SIZE_DEFAULT)
ROW_GROUP_SIZE_BOUNDS = (32 * MEGABYTE, 128 * MEGABYTE)

_BUCKET = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/.*)?", re.DOTALL)
_ROLE_ARN = re.compile(r"arn:aws[a-z-]*:iam::\d{12}:role/[\w+=,.@/-]+?(?=,arn:|$)")


def check_statement(statement: UnloadStatement, given: set[str]) -> None:
    """Refuse what the manual refuses. `given` names the options that were written. Raises WarehouseError."""
    if not _BUCKET.fullmatch(statement.prefix):
        raise WarehouseError("0A000", "UNLOAD destination is not supported.", hint="Only S3 is supported: s3://bucket/")
    _check_role(statement.iam_role)
    names = given | ({statement.compression} if statement.compression else set())
    names |= {"encrypted auto"} if statement.encrypted_auto else set()
    for option in EXCLUDED_BY_FORMAT[statement.format]:
        if option in names:
            raise _conflict(f"{option.upper()} is not supported for UNLOAD to {statement.format.upper()}")
    for one, other in EXCLUDED_PAIRS:
        if one in names and other in names:
            raise _conflict(f"{one.upper()} and {other.upper()} cannot be used together")
    if statement.kms_key_id is not None and not statement.encrypted:
        raise _conflict("KMS_KEY_ID needs ENCRYPTED")
    if len(statement.delimiter) != 1 or not statement.delimiter.isascii() or statement.delimiter in '"\\\r\n':
        raise WarehouseError("22023", "DELIMITER must be a single ASCII character other than quote, escape or newline")
    if "partition by" in given and len(set(statement.partition_by)) < len(statement.partition_by):
        raise WarehouseError("42701", "a column is named twice in PARTITION BY")
    _check_sizes(statement, given)


def _check_role(role: str) -> None:
    rest = role
    while rest != "default":
        found = _ROLE_ARN.match(rest)
        if not found:
            raise WarehouseError("22023", f'IAM_ROLE "{role}" is not a well-formed role ARN')
        rest = rest[found.end() :].removeprefix(",")
        if not rest:
            return


def _check_sizes(statement: UnloadStatement, given: set[str]) -> None:
    low, high = MAX_FILE_SIZE_BOUNDS
    if not low <= statement.max_file_size <= high:
        raise WarehouseError("22023", "MAXFILESIZE must be between 5 MB and 6.2 GB")
    if "rowgroupsize" in given:
        low, high = ROW_GROUP_SIZE_BOUNDS
        if statement.format != "parquet":
            raise _conflict("ROWGROUPSIZE is only supported for UNLOAD to PARQUET")
        if not low <= (statement.row_group_size or 0) <= high:
            raise WarehouseError("22023", "ROWGROUPSIZE must be between 32 MB and 128 MB")


def _conflict(message: str) -> WarehouseError:
    return WarehouseError("42601", message)


def check_query(query: str) -> None:
    """Refuse an outer LIMIT, TOP or FETCH, several statements, and what is no SELECT. Raises WarehouseError 42601.

    A text sqlglot cannot read is let through: the engine judges it, and with its own words.
    """
    try:
        statements = [each for each in sqlglot.parse(query, dialect="redshift") if each is not None]
    except SqlglotError:
        return
    if len(statements) != 1:
        raise WarehouseError("42601", "UNLOAD takes exactly one SELECT statement")
    root = statements[0]
    while True:
        if not isinstance(root, exp.Query):
            raise WarehouseError("42601", "UNLOAD takes a SELECT statement only")
        if root.args.get("limit") is not None:
            raise WarehouseError(
                "42601", "Limit clause is not supported", hint="nest the query: select * from (select ... limit n)"
            )
        if not isinstance(root, exp.Subquery):
            return
        root = root.this
