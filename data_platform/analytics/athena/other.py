"""The same table on ClickHouse, for the check of engine against engine. The only module here that knows ClickHouse."""

from datetime import date
from typing import TYPE_CHECKING

from data_platform.analytics.metrics import table_of
from data_platform.analytics.summaries import DATABASE
from data_platform.catalog.ddl import qualified
from data_platform.catalog.models import Service
from data_platform.clients import clickhouse
from data_platform.settings import Settings

if TYPE_CHECKING:
    import pyarrow as pa


def clickhouse_rows(settings: Settings, service: Service, metric: str, run_date: date) -> "pa.Table | None":
    """The rows of the table on ClickHouse, where a run of this day made it; None without ClickHouse or such a table."""
    if settings.clickhouse_host is None:
        return None
    table = qualified(DATABASE, table_of(service, metric))
    with clickhouse.connect(settings) as client:
        if not int(str(client.command(f"EXISTS TABLE {table}"))):
            return None
        rows = client.query_arrow(
            f"SELECT * FROM {table}",
            settings={
                "output_format_arrow_string_as_string": 1,
                "output_format_arrow_low_cardinality_as_dictionary": 0,
                "output_format_arrow_date_as_uint16": 0,
            },
        )
    dates: list[date] = rows.column("execution_date").to_pylist()
    return rows if dates and max(dates) >= run_date else None
