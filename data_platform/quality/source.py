"""A fingerprint of each day at the source: rows, and a sum over the rows' digests that any changed value changes."""

import hashlib
from collections.abc import Mapping
from datetime import date
from typing import TYPE_CHECKING, Any

from data_platform.catalog.models import Column, Dataset
from data_platform.unload.datasets import quote_identifier

if TYPE_CHECKING:
    from redshift_connector import Connection

# Positions of the digest that are summed. One changed row goes unseen with probability 16^-8; sums need no sorting and
# no more memory than a row, whatever the day holds.
POSITIONS = 8


def fingerprint_sql(dataset: Dataset, first: date, last: date) -> str:
    """One SELECT with a row per day of `first`..`last` that has rows: day, rows, sums of the digests' characters."""
    source = dataset.redshift
    if source.partition_column is None:
        raise ValueError(f"{dataset.key} has no partition column")
    relation = source.table if source.table is not None else f"(\n{source.sql}\n) AS source"
    day = quote_identifier(source.partition_column)
    text = " || '|' || ".join(_text(column) for column in dataset.columns)
    sums = ", ".join(f"SUM(ASCII(SUBSTRING(digest, {n}, 1)))" for n in range(1, POSITIONS + 1))
    return (
        f"SELECT day, COUNT(*), {sums}\nFROM (\n  SELECT {day} AS day, MD5({text}) AS digest\n  FROM {relation}\n"
        f"  WHERE {day} BETWEEN DATE '{first.isoformat()}' AND DATE '{last.isoformat()}'\n"
        ") AS rows_of_days\nGROUP BY day"
    )


def fingerprints(connection: "Connection", dataset: Dataset, first: date, last: date) -> Mapping[str, str]:
    """Fingerprints by day; a day without rows is not in it. Raises the driver's errors."""
    with connection.cursor() as cursor:
        cursor.execute(fingerprint_sql(dataset, first, last))
        rows: list[Any] = list(cursor.fetchall())
    return {str(row[0])[:10]: fingerprint(row[1:]) for row in rows}


def fingerprint(numbers: Any) -> str:
    """`<rows>-<digest>` of a day's row count and sums."""
    rows, *sums = (int(number) for number in numbers)
    return f"{rows}-{hashlib.sha256(repr(sums).encode()).hexdigest()[:16]}"


EMPTY = fingerprint([0] * (POSITIONS + 1))


def _text(column: Column) -> str:
    """The column's value as text; a null is told from an empty text. Redshift casts no boolean to text."""
    name = quote_identifier(column.name)
    if column.type == "Bool":
        return f"CASE WHEN {name} IS NULL THEN '~' WHEN {name} THEN '=1' ELSE '=0' END"
    return f"COALESCE('=' || CAST({name} AS VARCHAR), '~')"
