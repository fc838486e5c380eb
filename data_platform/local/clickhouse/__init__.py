"""The embedded ClickHouse: one chDB path behind an HTTP front that speaks ClickHouse's HTTP interface."""

from data_platform.local.clickhouse.engine import ClickHouseEngine

ENGINE = ClickHouseEngine

__all__ = ["ENGINE"]
