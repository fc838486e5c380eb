"""Operational tables in PostgreSQL: migrations, locks, outbox."""
