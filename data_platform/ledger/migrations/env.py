"""Alembic's environment: the connection comes from ledger.schema, the tables from the ledger's modules."""

from alembic import context

from data_platform.ledger import api_tokens, dataset_unloads, locks, outbox, unloads, user_statistics
from data_platform.ledger.base import metadata
from data_platform.ledger.schema import VERSION_TABLE

# Importing them fills the metadata.
TABLE_MODULES = (api_tokens, dataset_unloads, locks, outbox, unloads, user_statistics)


def _ours(name: str | None, kind: str, _parents: object) -> bool:
    """Compare our own tables only: the database may hold others."""
    return kind != "table" or name in metadata.tables


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    include_name=_ours,
    compare_type=True,
    compare_server_default=True,
)
with context.begin_transaction():
    context.run_migrations()
