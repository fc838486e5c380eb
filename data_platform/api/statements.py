"""How calls ask the ledger: single statements, one round trip each. Transactions are the engine's own."""

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from sqlalchemy.exc import DBAPIError

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

T = TypeVar("T")


class Statements:
    """Single statements on the ledger, each its own transaction: one round trip, without BEGIN, COMMIT or a ping.

    So a pooled connection may turn out to be dead, after a failover: the pool is then emptied and the statement sent
    once more. What is sent here can be sent twice.
    """

    def __init__(self, pool: "Engine") -> None:
        self._engine = pool.execution_options(isolation_level="AUTOCOMMIT")

    def __call__(self, statement: "Callable[[Connection], T]") -> T:
        """What `statement` returns. Raises the database's errors."""
        try:
            return self._once(statement)
        except DBAPIError as error:
            if not error.connection_invalidated:
                raise
        return self._once(statement)

    def _once(self, statement: "Callable[[Connection], T]") -> T:
        with self._engine.connect() as connection:
            return statement(connection)
