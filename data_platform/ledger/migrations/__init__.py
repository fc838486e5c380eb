"""Alembic environment of the ledger; versions/ holds one file per step."""
