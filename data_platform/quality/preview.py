"""The first rows of a partition, for a person who wants to see what is in it."""

from dataclasses import dataclass
from datetime import date
from typing import Any

from data_platform.catalog.ddl import DS, qualified, quote
from data_platform.catalog.models import Dataset
from data_platform.clients import clickhouse
from data_platform.errors import PlatformError
from data_platform.settings import Settings


@dataclass(frozen=True)
class Preview:
    """Some rows of a partition, and how many it has."""

    day: date
    total: int
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]


def preview_rows(settings: Settings, dataset: Dataset, day: date | None, *, limit: int) -> Preview:
    """The first `limit` rows of the partition (default: the newest) in the order of the table's sorting key.

    Raises PlatformError when there is nothing, or what ClickHouse says (no such table: run provision).
    """
    from clickhouse_connect.driver.exceptions import DatabaseError

    table = qualified(dataset.domain, dataset.storage_name)
    columns = tuple(column.name for column in dataset.columns)
    client = clickhouse.connect(settings)
    try:
        if day is None:
            total, day = client.query(f"SELECT count(), max({quote(DS)}) FROM {table}").result_rows[0]
            if not total or day is None:
                fill = f"data-platform backfill {dataset.key} --from YYYY-MM-DD --to YYYY-MM-DD"
                raise PlatformError(f"{dataset.key} holds no rows", hint=fill)
        where = f"WHERE {quote(DS)} = {{ds:Date}}"
        count = client.query(f"SELECT count() FROM {table} {where}", parameters={"ds": day}).result_rows[0][0]
        found = client.query(
            f"SELECT {', '.join(map(quote, columns))} FROM {table} {where} "
            f"ORDER BY {', '.join(map(quote, dataset.order_by))} LIMIT {{n:UInt32}}",
            parameters={"ds": day, "n": limit},
        ).result_rows
    except DatabaseError as error:
        fault = clickhouse.classify(error)
        reason = clickhouse.inner_code(error).message.splitlines()[0]
        raise PlatformError(
            f"ClickHouse: {reason}", hint="data-platform provision makes the tables", fault=fault
        ) from error
    finally:
        client.close()
    return Preview(day, int(count), columns, tuple(tuple(row) for row in found))
