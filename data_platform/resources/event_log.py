"""Dagster's event log in PostgreSQL, written with fewer transactions: what happens together is stored together.

Belongs here: how events are stored. Which events there are is Dagster's and the assets' to say.
"""

import threading
from collections.abc import Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import dagster as dg
import sqlalchemy as sa  # noqa: TID253 - only what opens an instance comes here

# Dagster imports this module only to open an instance; neither of these names is public.
from dagster._core.events import ASSET_CHECK_EVENTS, ASSET_EVENTS
from dagster._core.storage.event_log.schema import SqlEventLogStorageTable
from dagster_postgres import PostgresEventLogStorage  # noqa: TID253

if TYPE_CHECKING:
    from dagster._core.events.log import EventLogEntry

# The record that a run made for each check and partition when it announced them, for many at once.
_FILL_IN_CHECKS = sa.text("""
UPDATE asset_check_executions AS record
SET execution_status = told.status,
    evaluation_event = told.event,
    evaluation_event_timestamp = told.at,
    evaluation_event_storage_id = told.id,
    materialization_event_storage_id = told.materialization
FROM unnest(
    CAST(:asset_key AS text[]), CAST(:check_name AS text[]), CAST(:run_id AS text[]), CAST(:partition AS text[]),
    CAST(:status AS text[]), CAST(:event AS text[]), CAST(:at AS timestamp[]), CAST(:id AS bigint[]),
    CAST(:materialization AS bigint[])
) AS told (asset_key, check_name, run_id, partition, status, event, at, id, materialization)
WHERE record.asset_key = told.asset_key
  AND record.check_name = told.check_name
  AND record.run_id = told.run_id
  AND record.partition = told.partition
""")


class EventLog(PostgresEventLogStorage):
    """PostgresEventLogStorage that stores a batch of events in one transaction, and can gather one.

    Dagster stores each event by itself: an insert, a notification nobody listens to, its tags, the asset's newest
    event, the check's record, each its own transaction. A day of a backfill has nine to fourteen events.
    """

    def __init__(self, postgres_url: str) -> None:
        self._of_thread = threading.local()
        self._tables: dict[str, bool] = {}
        super().__init__(postgres_url)

    @contextmanager
    def together(self) -> Generator[None]:
        """Store what this thread reports inside at the end, at once; also when the block ends by an exception.

        Raises what the database raises; then none of the events is stored.
        """
        gathered = list["EventLogEntry"]()
        self._of_thread.gathered = gathered
        try:
            yield
        finally:
            self._of_thread.gathered = None
            if gathered:
                self.store_event_batch(gathered)

    def store_event(self, event: "EventLogEntry") -> None:
        """Store one event, or keep it for the end of `together`."""
        gathered: list[EventLogEntry] | None = getattr(self._of_thread, "gathered", None)
        if gathered is None:
            super().store_event(event)
        else:
            gathered.append(event)

    def store_event_batch(self, events: "Sequence[EventLogEntry]") -> None:
        """Store events of any type in their order, all or none. Raises what the database raises."""
        with self._one_transaction() as connection:
            rows = [self._event_to_row(event) for event in events]
            inserted = SqlEventLogStorageTable.insert().returning(
                SqlEventLogStorageTable.c.id, sort_by_parameter_order=True
            )
            ids = [int(row[0]) for row in connection.execute(inserted, rows)]
            stored = list(zip(events, ids, rows, strict=True))
            self._store_assets(
                connection, [(event, number) for event, number, row in stored if row["asset_key"] is not None]
            )
            self._store_checks(
                connection, [each for each in stored if each[0].dagster_event_type in ASSET_CHECK_EVENTS]
            )

    def _store_assets(self, connection: sa.Connection, stored: "Sequence[tuple[EventLogEntry, int]]") -> None:
        """Tags of the events, and each asset's newest one of every type: of a batch only its last can be that."""
        stored = [each for each in stored if each[0].dagster_event_type in ASSET_EVENTS]
        self._store_asset_event_tags(connection, [event for event, _ in stored], [number for _, number in stored])
        newest = {(event.dagster_event_type, event.get_dagster_event().asset_key): number for event, number in stored}
        last = [each for each in stored if each[1] in set(newest.values())]
        # In the order of their keys, as Dagster announces a run's: two transactions that lock the same assets in
        # different orders wait for each other for ever.
        for event, number in sorted(last, key=_by_asset):
            self._store_asset_event(connection, event, number)

    def _store_checks(
        self, connection: sa.Connection, stored: "Sequence[tuple[EventLogEntry, int, Mapping[str, Any]]]"
    ) -> None:
        """Records of checks: one statement for the partitions a run has announced, one each for all others."""
        records = {number: _record(event, number, row) for event, number, row in stored}
        announced = [record for record in records.values() if record is not None]
        if announced:
            columns = {name: [record[name] for record in announced] for name in announced[0]}
            if connection.execute(_FILL_IN_CHECKS, columns).rowcount != len(announced):
                records = dict.fromkeys(records)  # somebody else's runs: each is looked at by itself
        for event, number, _ in stored:
            if records[number] is None:
                self.store_asset_check_event(event, number)

    @contextmanager
    def _one_transaction(self) -> Generator[sa.Connection]:
        """A transaction that every method of this class called by this thread takes part in."""
        with self.index_transaction() as connection:
            self._of_thread.connection = connection
            try:
                yield connection
            finally:
                self._of_thread.connection = None

    def _connect(self) -> AbstractContextManager[sa.Connection]:
        shared: sa.Connection | None = getattr(self._of_thread, "connection", None)
        return super()._connect() if shared is None else nullcontext(shared)

    def has_table(self, table_name: str) -> bool:
        """Whether the table is there. Dagster asks at every event; tables come with migrations only."""
        if not self._tables.get(table_name):
            self._tables[table_name] = super().has_table(table_name)
        return self._tables[table_name]


def stored_together(instance: dg.DagsterInstance) -> AbstractContextManager[None]:
    """Around what reports several events: one transaction for all where the instance's storage can, else one each."""
    storage = instance.event_log_storage
    return storage.together() if isinstance(storage, EventLog) else nullcontext()


def _by_asset(stored: "tuple[EventLogEntry, int]") -> tuple[str, int]:
    key = stored[0].get_dagster_event().asset_key
    return "" if key is None else key.to_string(), stored[1]


def _record(event: "EventLogEntry", number: int, row: Mapping[str, Any]) -> dict[str, Any] | None:
    """A run's evaluation of a partition as its record's columns; None for what is announced or stored otherwise."""
    told = event.get_dagster_event().event_specific_data
    if not isinstance(told, dg.AssetCheckEvaluation) or told.partition is None or not event.run_id:
        return None
    target = told.target_materialization_data
    return {
        "asset_key": told.asset_key.to_string(),
        "check_name": told.check_name,
        "run_id": event.run_id,
        "partition": told.partition,
        "status": "SUCCEEDED" if told.passed else "FAILED",
        "event": row["event"],
        "at": row["timestamp"],
        "id": number,
        "materialization": None if target is None else target.storage_id,
    }
