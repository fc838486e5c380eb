"""What all ledger tables share: one MetaData, its naming convention, the columns every table writes alike.

Tables are module-level objects, so these modules import SQLAlchemy at the top: import them where they are used, as one
imports SQLAlchemy itself.
"""

from typing import Any

import sqlalchemy as sa  # noqa: TID253 - tables are module-level objects
from sqlalchemy.dialects import postgresql  # noqa: TID253 - as above

# Constraints get names by rule, or a later migration could not drop them.
metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def instant(name: str, *, now: bool = False) -> "sa.Column[Any]":
    """A timestamptz; with `now`, never null and the time of the insert (not of its transaction's start)."""
    if now:
        return sa.Column(name, sa.DateTime(timezone=True), nullable=False, server_default=sa.func.clock_timestamp())
    return sa.Column(name, sa.DateTime(timezone=True))


def document(name: str, default: str | None = None) -> "sa.Column[Any]":
    """A jsonb column; with a default it is never null."""
    if default is None:
        return sa.Column(name, postgresql.JSONB)
    return sa.Column(name, postgresql.JSONB, nullable=False, server_default=sa.text(f"'{default}'::jsonb"))


def one_of(column: str, values: tuple[str, ...]) -> sa.CheckConstraint:
    """CHECK that the column has one of these values."""
    listed = ", ".join(f"'{value}'" for value in values)
    return sa.CheckConstraint(f"{column} IN ({listed})", name=column)
