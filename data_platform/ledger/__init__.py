"""Operational tables in PostgreSQL: migrations, locks, outbox, unloads. One module per group of tables."""

from data_platform.ledger.schema import migrate

__all__ = ["migrate"]
