"""The statement that loads: INSERT ... SELECT FROM s3() of one object version, or a list of them, as one block.

Pure. Every setting here is there because its default lost, doubled or altered rows when it was tried.
"""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from data_platform.catalog.ddl import literal, qualified, quote
from data_platform.catalog.models import Dataset
from data_platform.clients.clickhouse import s3_source
from data_platform.loading.casts import cast_expression, read_type
from data_platform.loading.errors import CHANGED
from data_platform.loading.register import ObjectVersion, TablePartition
from data_platform.settings import Settings

if TYPE_CHECKING:
    import pyarrow as pa

# Part of every token: another way of cutting blocks must not match the tokens of this one.
BLOCK_EPOCH = 2
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
# For speed alone, so a server that does not know them goes without: the paths of a listed pattern are not turned into a
# HEAD for each.
LISTED_SETTINGS: Mapping[str, str | int] = {"s3_path_filter_limit": 0}
# Into a staging table nobody reads, where the rows are counted before they move: blocks may be small there.
STAGED_SETTINGS: Mapping[str, str | int] = {
    "insert_deduplicate": 0,
    "min_insert_block_size_rows": 65_536,
    "min_insert_block_size_bytes": 64 * 2**20,
    "max_insert_block_size": 65_536,
    "max_threads": 1,
    "input_format_parquet_max_block_size": 16_384,
}


@dataclass(frozen=True)
class InsertStatement:
    """SQL, settings (token included) and the deterministic id of one load."""

    sql: str
    settings: dict[str, str | int]
    query_id: str

    def known_to(self, server: Collection[str]) -> dict[str, str | int]:
        """The settings for a server with these settings: what only makes the load faster is left out where unknown."""
        return {name: value for name, value in self.settings.items() if name not in LISTED_SETTINGS or name in server}


def query_prefix(partition: TablePartition) -> str:
    """How the ids of all loads into a table partition begin."""
    return f"load-{hashlib.sha256(partition.name.encode()).hexdigest()[:16]}-"


def deduplication_token(partition: TablePartition, versions: Sequence[ObjectVersion], generation: int) -> str:
    """Object versions in their order and partition generation: after a rebuild the same object has another token.

    (The token outlives the rows: replayed after a REPLACE with the old token it inserted 0 rows and said nothing.)
    """
    listed = "|".join(f"{version.identity}|{version.etag}" for version in versions)
    text = f"{partition.name}|{listed}|{generation}|{BLOCK_EPOCH}"
    return f"{query_prefix(partition)}{hashlib.sha256(text.encode()).hexdigest()[:32]}"


def insert_objects(
    settings: Settings,
    dataset: Dataset,
    partition: TablePartition,
    versions: Sequence[ObjectVersion],
    schema: "pa.Schema",
    *,
    generation: int,
    max_memory: int,
    fence: str = "",
    staged: str | None = None,
    small_blocks: bool = False,
    listed: bool = False,
    threads: int | None = None,
) -> InsertStatement:
    """The insert of `versions`, all of one bucket and schema, into their table (or the quoted table `staged`).

    Guarded by every object's ETag, and by `fence`: an object that changed since, or a lease that was lost, inserts 0
    rows and leaves the token unused. `max_memory` in bytes. `listed`: S3's listing tells sizes and ETags of several
    objects, not a HEAD for each; one that has vanished is then left out, where a HEAD would fail the statement.
    `threads` read and cast, the server's number by default.
    """
    bucket = versions[0].bucket
    keys = [version.key for version in versions]
    listed = listed and len(keys) > 1
    key = keys[0] if len(keys) == 1 else listing(keys) if listed else brace_list(keys)
    source = s3_source(settings, bucket, key, structure=structure_of(schema), glob=len(versions) > 1)
    names = [quote(column.name) for column in dataset.columns]
    values = [select_expression(dataset, column.name, schema) for column in dataset.columns]
    if len(versions) == 1:
        identity = literal(versions[0].identity)
        guard = f"_etag = {literal(_quoted_etag(versions[0]))}"
    else:
        paths = [literal(f"{bucket}/{version.key}") for version in versions]
        identities = [literal(version.identity) for version in versions]
        identity = f"transform(_path, [{', '.join(paths)}], [{', '.join(identities)}], '')"
        numbers = _numbers([version.etag for version in versions])
        etags = [literal(_quoted_etag(version)) for version in versions]
        wanted = f"transform(_path, [{', '.join(paths)}], {numbers}, 0)"
        found = f"transform(_etag, [{', '.join(etags)}], {numbers}, -1)"
        # One object that changed withholds all: a list is loaded as it was frozen, or not at all. By number, for
        # ClickHouse finds that once a block, where it would look every row's text up in a set (a third of the time).
        guard = f"throwIf({wanted} != {found}, {literal(CHANGED)}) = 0"
        if listed:
            guard = f"{wanted} != 0 AND {guard}"
    token = deduplication_token(partition, versions, generation)
    sql = (
        f"INSERT INTO {staged or qualified(dataset.domain, dataset.storage_name)} ({', '.join(names)}, _ds, _object)\n"
        f"SELECT {', '.join(values)}, toDate({literal(partition.ds.isoformat())}), {identity}\n"
        f"FROM {source}\n"
        f"WHERE {guard}{f' AND {fence}' if fence else ''}"
    )
    chosen: dict[str, str | int] = {**INSERT_SETTINGS, **(STAGED_SETTINGS if small_blocks else {})}
    if not small_blocks:
        chosen["insert_deduplication_token"] = token
    if listed:
        chosen |= LISTED_SETTINGS
    if threads is not None:
        chosen["max_threads"] = threads
    query_id = token if staged is None else f"{token}-staged"
    chosen |= {
        "max_memory_usage": max_memory,
        "max_execution_time": settings.clickhouse_timeout_s,
        "log_comment": token,
        "query_id": query_id,
    }
    return InsertStatement(sql, chosen, query_id)


def brace_list(keys: Sequence[str]) -> str:
    """The keys, which are of one folder, as one pattern. Keys with a comma would be cut: `listable` says no."""
    folder = keys[0].rpartition("/")[0] + "/"
    return f"{folder}{{{','.join(key.removeprefix(folder) for key in keys)}}}"


def listing(keys: Sequence[str]) -> str:
    """The pattern of everything that begins as the keys do, which are of one folder."""
    first, last = min(keys), max(keys)
    same = next((n for n, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    return f"{first[:same]}*"


def listable(key: str) -> bool:
    """Whether the key can stand in a list: no comma, and nothing that a pattern or an escape could mean."""
    return not set(key) & set(",*?{}%+ ")


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


def _numbers(etags: Sequence[str]) -> list[int]:
    """One number an ETag, the same for the same, from 1."""
    return [etags.index(etag) + 1 for etag in etags]


def _quoted_etag(version: ObjectVersion) -> str:
    return f'"{version.etag}"'
