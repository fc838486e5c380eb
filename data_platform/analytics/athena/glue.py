"""The Glue tables of the metrics: made where missing, their partitions and locations swapped.

Swapping one partition or one table's location is one call and takes effect at once for the queries that begin after it.
"""

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Any

from data_platform.analytics.athena.layout import BLOCKS, EVENTS, PARTITION_KEYS, block_table
from data_platform.catalog.models import Dataset
from data_platform.clients import athena
from data_platform.clients.retry import retrying
from data_platform.errors import PlatformError

AT_ONCE = 25  # partitions in one call: Glue takes 100 to create and 25 to delete
Columns = Sequence[tuple[str, str]]
_FORMAT: Mapping[str, Any] = {
    "InputFormat": "org.apache.hadoop.hive.ql.io.parquet.MapredParquetInputFormat",
    "OutputFormat": "org.apache.hadoop.hive.ql.io.parquet.MapredParquetOutputFormat",
    "SerdeInfo": {"SerializationLibrary": "org.apache.hadoop.hive.ql.io.parquet.serde.ParquetHiveSerDe"},
}
_INTEGERS = {"Int8": "tinyint", "Int16": "smallint", "Int32": "int", "UInt8": "smallint", "UInt16": "int"}
FIRST_YEAR, LAST_YEAR = 2000, 2099  # of the projected partitions


def hive_type(clickhouse: str) -> str:
    """The Hive type by which Athena reads a column of curated Parquet.

    A time in nanoseconds is its number: Athena's own timestamps have milliseconds, and sessions are cut by nanoseconds.
    """
    wrapped = clickhouse.startswith("LowCardinality(")
    plain = clickhouse.removeprefix("LowCardinality(").removesuffix(")") if wrapped else clickhouse
    if plain.startswith("DateTime64(9"):
        return "bigint"
    if plain.startswith("DateTime"):
        return "timestamp"
    if plain.startswith("Map("):
        key, value = plain.removeprefix("Map(").removesuffix(")").split(", ", 1)
        return f"map<{hive_type(key)},{hive_type(value)}>"
    if plain.startswith("Array("):
        return f"array<{hive_type(plain.removeprefix('Array(').removesuffix(')'))}>"
    if plain.startswith("Decimal"):
        return plain.lower().replace(" ", "")
    known = {
        **_INTEGERS, "UInt32": "bigint", "Int64": "bigint", "UInt64": "bigint", "Float32": "float", "Float64": "double",
        "Bool": "boolean", "Date": "date", "Date32": "date",
    }  # fmt: skip
    return known.get(plain, "string")


def curated_table(dataset: Dataset, bucket: str) -> dict[str, Any]:
    """The TableInput of a dataset's curated Parquet: `ds=YYYY-MM-DD` as partitions year, month, day by projection."""
    base = f"s3://{bucket}/{dataset.domain}/{dataset.name}/"
    parameters = {
        "EXTERNAL": "TRUE",
        "classification": "parquet",
        "projection.enabled": "true",
        "projection.year.type": "integer",
        "projection.year.range": f"{FIRST_YEAR},{LAST_YEAR}",
        "projection.year.digits": "4",
        "projection.month.type": "integer",
        "projection.month.range": "1,12",
        "projection.month.digits": "2",
        "projection.day.type": "integer",
        "projection.day.range": "1,31",
        "projection.day.digits": "2",
        "storage.location.template": f"{base}ds=${{year}}-${{month}}-${{day}}/",
    }
    columns = [(column.name, hive_type(column.type)) for column in dataset.columns]
    return {
        **_table(f"{dataset.domain}_{dataset.name}", columns, PARTITION_KEYS, base),
        "Description": dataset.description,
        "Parameters": parameters,
    }


def block_input(block: str, output: str) -> dict[str, Any]:
    """The TableInput of a building block; its partitions are registered one by one, each where its newest data lies."""
    return _table(block_table(block), BLOCKS[block], ("service", *PARTITION_KEYS), f"{output}/athena/blocks/{block}/")


class Glue:
    """The tables of one database."""

    def __init__(self, client: Any, database: str) -> None:
        self._client = client
        self.database = database

    def columns(self, table: str) -> Columns:
        """The columns of a table. Raises ConfigurationError's fault when it is not there."""
        found = self._call("get_table", Name=table)["Table"]["StorageDescriptor"]
        return tuple((each["Name"], each["Type"]) for each in found["Columns"])

    def location(self, table: str) -> str | None:
        """Where a table's data lies; None where there is no such table."""
        try:
            return str(
                self._client.get_table(DatabaseName=self.database, Name=table)["Table"]["StorageDescriptor"]["Location"]
            )
        except self._client.exceptions.EntityNotFoundException:
            return None

    def put_table(self, name: str, columns: Columns, location: str, description: str) -> None:
        """Make the table, or point it elsewhere."""
        wanted = {**_table(name, columns, (), location), "Description": description}
        if self.location(name) is None:
            try:
                self._call("create_table", TableInput=wanted)
            except self._client.exceptions.AlreadyExistsException:
                self._call("update_table", TableInput=wanted)
        else:
            self._call("update_table", TableInput=wanted)

    def tables_like(self, pattern: str, *, created_before: datetime) -> list[str]:
        """The names of the tables that a regular expression fits, made before an instant."""
        pages = self._client.get_paginator("get_tables").paginate(DatabaseName=self.database, Expression=pattern)
        tables = [table for page in pages for table in page["TableList"]]
        # Glue always tells when; a table that does not say so is old.
        return [str(table["Name"]) for table in tables if table.get("CreateTime", created_before) <= created_before]

    def drop_table(self, name: str) -> None:
        """Forget a table; its data stays."""
        try:
            self._call("delete_table", Name=name)
        except self._client.exceptions.EntityNotFoundException:
            return

    def swap_days(
        self, block: str, service: str, old: Mapping[date, str], new: Mapping[date, str | None], output: str
    ) -> None:
        """Point the partitions of days elsewhere; None removes one. `old` are those there are."""
        made = {day: place for day, place in new.items() if place is not None and day not in old}
        moved = {day: place for day, place in new.items() if place is not None and day in old and old[day] != place}
        # Also those `old` does not name: a run that was killed may have made them.
        gone = sorted(day for day, place in new.items() if place is None)
        table = block_table(block)
        for chunk in _chunks(sorted(made.items())):
            entries = [self._partition(block, service, day, place, output) for day, place in chunk]
            answer = self._call("batch_create_partition", TableName=table, PartitionInputList=entries)
            # What a killed run had made already is pointed to the same place or to this one.
            exist = {tuple(each["PartitionValues"]) for each in answer.get("Errors", [])}
            moved |= {day: place for day, place in chunk if tuple(_values(service, day)) in exist}
        for day, place in sorted(moved.items()):
            entry = self._partition(block, service, day, place, output)
            try:
                self._call(
                    "update_partition", TableName=table, PartitionValueList=entry["Values"], PartitionInput=entry
                )
            except self._client.exceptions.EntityNotFoundException:
                self._call("create_partition", TableName=table, PartitionInput=entry)
        for chunk in _chunks(gone):
            self._call(
                "batch_delete_partition",
                TableName=table,
                PartitionsToDelete=[{"Values": _values(service, day)} for day in chunk],
            )

    def _partition(self, block: str, service: str, day: date, place: str, output: str) -> dict[str, Any]:
        storage = block_input(block, output)["StorageDescriptor"]
        return {"Values": _values(service, day), "StorageDescriptor": {**storage, "Location": place}}

    def _call(self, call: str, **request: Any) -> Any:
        return retrying(lambda: getattr(self._client, call)(DatabaseName=self.database, **request), athena.classify)


def require_tables(glue: Glue) -> None:
    """Raise PlatformError naming the tables that provisioning has not made."""
    missing = [name for name in (EVENTS, *map(block_table, BLOCKS)) if glue.location(name) is None]
    if missing:
        raise PlatformError(
            f"Glue database {glue.database} has no {', '.join(missing)}", hint="make them: data-platform provision"
        )


def _table(name: str, columns: Columns, keys: Sequence[str], location: str) -> dict[str, Any]:
    return {
        "Name": name,
        "TableType": "EXTERNAL_TABLE",
        "Parameters": {"EXTERNAL": "TRUE", "classification": "parquet"},
        "PartitionKeys": [{"Name": key, "Type": "string"} for key in keys],
        "StorageDescriptor": {
            **_FORMAT,
            "Columns": [{"Name": column, "Type": kind} for column, kind in columns],
            "Location": location,
        },
    }


def _values(service: str, day: date) -> list[str]:
    return [service, *day.isoformat().split("-")]


def _chunks(items: Sequence[Any]) -> list[Sequence[Any]]:
    return [items[start : start + AT_ONCE] for start in range(0, len(items), AT_ONCE)]
