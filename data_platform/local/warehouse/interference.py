"""The front's own fault switches: what they do to a connection or to one statement of a session."""

import asyncio
import contextlib
from dataclasses import dataclass
from typing import Any

from data_platform.local.faults import FaultBoard
from data_platform.local.warehouse.source import CANCELLED
from data_platform.local.warehouse.unload.contract import WarehouseError

FAULT_KINDS = (
    "redshift.refuse_connection",  # args: sqlstate, message; without them the socket is just closed
    "redshift.drop_connection",  # args: when = before | after the statement is executed
    "redshift.error",  # args: sqlstate, message, detail; without them Redshift's 1023
    "redshift.delay",  # args: seconds
)
"""Facts: user, database, application_name; for the last three also sql, the statement's text."""


@dataclass(frozen=True)
class Struck:
    """What is done: an error instead of the execution, or a connection that is gone before or after it."""

    error: WarehouseError | None = None
    drop: str | None = None


@dataclass(frozen=True)
class Interference:
    """Asks the board for one session."""

    faults: FaultBoard
    user: str
    database: str
    application_name: str

    def refuse(self) -> Struck | None:
        """What becomes of a new connection; None lets it in."""
        rule = self.faults.strike("redshift.refuse_connection", **self._facts())
        if rule is None:
            return None
        return Struck(_error(rule.args, rule.args.get("message", "connection refused")) if rule.args else None)

    async def strike(self, sql: str, cancelled: asyncio.Event) -> Struck:
        """What becomes of a statement that is about to be executed; a delay is spent in here, and can be cancelled."""
        facts = {**self._facts(), "sql": sql}
        delay = self.faults.strike("redshift.delay", **facts)
        if delay is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(cancelled.wait(), float(delay.args.get("seconds", 1)))
            if cancelled.is_set():
                return Struck(WarehouseError("57014", CANCELLED))
        drop = self.faults.strike("redshift.drop_connection", **facts)
        when = None if drop is None else str(drop.args.get("when", "before"))
        rule = None if when == "before" else self.faults.strike("redshift.error", **facts)
        if rule is None:
            return Struck(drop=when)
        args = rule.args or {"message": "1023", "detail": "Serializable isolation violation on table"}
        return Struck(_error(args, args.get("message", "injected error")), when)

    def _facts(self) -> dict[str, str]:
        return {"user": self.user, "database": self.database, "application_name": self.application_name}


def _error(args: dict[str, Any], message: str) -> WarehouseError:
    return WarehouseError(str(args.get("sqlstate", "XX000")), message, detail=args.get("detail"))
