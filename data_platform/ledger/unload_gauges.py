"""How the requests stand as a whole: what alarms look at. Ages in seconds, 0 where there is nothing to be old."""

from dataclasses import dataclass

import sqlalchemy as sa  # noqa: TID253 - see base.py

from data_platform.ledger.outbox import outbox
from data_platform.ledger.unloads import unload_requests


@dataclass(frozen=True)
class UnloadGauges:
    """Ages of the oldest request that runs, that waits, and of the oldest event that is not published."""

    oldest_running_s: float
    oldest_pending_s: float
    outbox_age_s: float


def gauges(connection: sa.Connection, topic: str) -> UnloadGauges:
    """One look at the ledger; `topic` is the one whose events count."""
    table = unload_requests
    # A retry waits since its failure, which the history knows; for an alarm the request's own age will do.
    row = connection.execute(
        sa.select(
            _age(sa.select(sa.func.min(table.c.started_at)).where(table.c.status == "RUNNING")),
            _age(sa.select(sa.func.min(table.c.created_at)).where(table.c.status == "PENDING")),
            _age(
                sa.select(sa.func.min(outbox.c.created_at)).where(
                    outbox.c.published_at.is_(None), outbox.c.topic == topic
                )
            ),
        )
    ).one()
    return UnloadGauges(*(float(each) for each in row))


def _age(oldest: "sa.Select[tuple[object]]") -> sa.ColumnElement[float]:
    seconds = sa.extract("epoch", sa.func.clock_timestamp() - oldest.scalar_subquery())
    return sa.func.greatest(sa.func.coalesce(seconds, 0), 0)
