"""The one statement that loads: INSERT ... SELECT FROM s3() of one object version as one block with one token.

Pure. Every setting here is there because its default lost, doubled or altered rows when it was tried.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from data_platform.catalog.ddl import literal, qualified, quote
from data_platform.catalog.models import Dataset
from data_platform.loading.casts import cast_expression, read_type
from data_platform.loading.register import ObjectVersion, TablePartition

if TYPE_CHECKING:
    import pyarrow as pa

# Part of every token: another way of cutting blocks must not match the tokens of this one.
BLOCK_EPOCH = 1
BLOCK_BYTES = 16 * 2**30  # above any object that is loaded as one block
S3_RETRIES = 4  # the server's default of 500 makes an outage look like a hang

INSERT_SETTINGS: Mapping[str, str | int] = {
    # one block: one part, all or nothing, one token
    "max_insert_threads": 1,
    "min_insert_block_size_rows": 0,
    "min_insert_block_size_bytes": BLOCK_BYTES,
    "max_insert_block_size": 2**62,
    "insert_deduplicate": 1,
    "deduplicate_blocks_in_dependent_materialized_views": 1,
    "async_insert": 0,
    # silent damage: a null became 0. (A missing column would take its default: the footer check refuses it before,
    # and the ETag guard pins that footer. The setting against it refuses the virtual column _etag too, seen on 26.9.)
    "input_format_null_as_default": 0,
    "use_structure_from_insertion_table_in_table_functions": 0,
    "s3_retry_attempts": S3_RETRIES,
}


@dataclass(frozen=True)
class InsertStatement:
    """SQL, settings (token included) and the deterministic id of one load."""

    sql: str
    settings: dict[str, str | int]
    query_id: str


def deduplication_token(partition: TablePartition, version: ObjectVersion, generation: int) -> str:
    """Object version and partition generation: after a rebuild the same object has another token.

    (The token outlives the rows: replayed after a REPLACE with the old token it inserted 0 rows and said nothing.)
    """
    text = f"{partition.name}|{version.identity}|{version.etag}|{generation}|{BLOCK_EPOCH}"
    return f"load-{hashlib.sha256(text.encode()).hexdigest()[:40]}"


def insert_object(
    dataset: Dataset,
    partition: TablePartition,
    version: ObjectVersion,
    source: str,
    schema: "pa.Schema",
    *,
    generation: int,
    max_memory: int,
    max_seconds: int,
    target: str | None = None,
) -> InsertStatement:
    """The insert of `version` into its table (or `target`, quoted), guarded by the object's ETag.

    `source` is the s3() expression with the structure of `structure_of(schema)`. An object that changed since inserts
    0 rows and leaves the token unused.
    """
    table = target or qualified(dataset.domain, dataset.storage_name)
    names = [quote(column.name) for column in dataset.columns]
    values = [select_expression(dataset, column.name, schema) for column in dataset.columns]
    token = deduplication_token(partition, version, generation)
    sql = (
        f"INSERT INTO {table} ({', '.join(names)}, _ds, _object)\n"
        f"SELECT {', '.join(values)}, toDate({literal(partition.ds.isoformat())}), "
        f"{literal(version.identity)}\n"
        f"FROM {source}\n"
        f"WHERE _etag = {literal(chr(34) + version.etag + chr(34))}"
    )
    settings = {
        **INSERT_SETTINGS,
        "insert_deduplication_token": token,
        "max_memory_usage": max_memory,
        "max_execution_time": max_seconds,
        "log_comment": token,
    }
    return InsertStatement(sql, settings, token)


def structure_of(schema: "pa.Schema") -> str:
    """The explicit structure of s3(): inference would cost requests per file and guess. OPTIONAL becomes Nullable."""
    return ", ".join(f"{quote(field.name)} {read_type(field.type, nullable=field.nullable).sql}" for field in schema)


def select_expression(dataset: Dataset, name: str, schema: "pa.Schema") -> str:
    """The column as it goes in: itself where the types agree, else a cast that refuses what does not fit."""
    column = next(column for column in dataset.columns if column.name == name)
    field = schema.field(name)
    found = read_type(field.type, nullable=field.nullable)
    quoted = quote(name)
    expression = cast_expression(quoted, name, found, column.clickhouse_type)
    return quoted if expression == quoted else f"{expression} AS {quoted}"
