"""The embedded warehouse: PostgreSQL, and in front of it the protocol and the SQL of Redshift."""

from data_platform.local.warehouse.server import Warehouse

ENGINE = Warehouse
