"""Events stored together against the same events stored one by one by Dagster's own code, on PostgreSQL."""

import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import dagster as dg
import pytest
import sqlalchemy as sa
from dagster_postgres import PostgresEventLogStorage

from data_platform.local.cloud import Cloud
from data_platform.resources.event_log import EventLog, stored_together
from data_platform.resources.instance_storage import InstanceStorage

pytestmark = pytest.mark.integration
DAYS = dg.DailyPartitionsDefinition("2024-01-01", end_date="2024-01-10")
KEYS = [f"2024-01-0{n}" for n in range(1, 6)]


@pytest.fixture(scope="module")
def url(cloud: Cloud) -> Iterator[str]:
    """An empty database of its own."""
    assert cloud.settings.postgres_url is not None
    server_url = sa.make_url(cloud.settings.postgres_url.get_secret_value())
    server, name = sa.create_engine(server_url, isolation_level="AUTOCOMMIT"), f"t_{uuid.uuid4().hex}"
    with server.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    yield server_url.set(drivername="postgresql", database=name).render_as_string(hide_password=False)
    with server.connect() as connection:
        connection.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))
    server.dispose()


@pytest.fixture
def log(url: str, monkeypatch: pytest.MonkeyPatch) -> EventLog:
    monkeypatch.setenv("DAGSTER_EVENT_BATCH_SIZE", "100")
    return EventLog(url)


def run(instance: dg.DagsterInstance, name: str, *, together: bool, fails: bool = False) -> str:
    """A range of days of one asset with a check, all that can become of a day among them; returns the run's id."""

    @dg.multi_asset(
        name=name,
        specs=[dg.AssetSpec(name, skippable=True)],
        check_specs=[dg.AssetCheckSpec("rows", asset=name, partitions_def=DAYS)],
        partitions_def=DAYS,
        backfill_policy=dg.BackfillPolicy.single_run(),
        can_subset=True,
    )
    def made(context: dg.AssetExecutionContext) -> Iterator[Any]:
        block: AbstractContextManager[None] = stored_together(context.instance) if together else nullcontext()
        with block:
            for n, day in enumerate(context.partition_keys):
                version = {"dagster/data_version": f"v{n}"}
                context.log_event(dg.AssetMaterialization(name, partition=day, metadata={"n": n}, tags=version))
                context.log_event(
                    dg.AssetCheckEvaluation(dg.AssetKey(name), "rows", passed=n != 1, partition=day, metadata={"n": n})  # type: ignore[arg-type]
                )
            context.log_event(dg.AssetObservation(name, partition=KEYS[0], metadata={"outcome": "failed"}))
            context.log_event(dg.AssetCheckEvaluation(dg.AssetKey(name), "rows", passed=True, partition="2024-01-09"))  # type: ignore[arg-type]
            context.log.warning("said in between")
            if fails:
                raise ValueError("in the middle")
        yield from ()

    result = dg.materialize(
        [made],
        instance=instance,
        tags={"dagster/asset_partition_range_start": KEYS[0], "dagster/asset_partition_range_end": KEYS[-1]},
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        raise_on_error=False,
    )
    assert result.success is not fails
    return result.run_id


def seen(instance: dg.DagsterInstance, name: str, run_id: str) -> dict[str, Any]:
    """All that Dagster and its UI read of an asset, without ids and times."""
    key, storage = dg.AssetKey(name), instance.event_log_storage
    (record,) = instance.get_asset_records([key])
    entry = record.asset_entry.last_materialization
    assert entry is not None
    newest = entry.asset_materialization
    assert newest is not None
    checks = storage.get_asset_check_execution_history(dg.AssetCheckKey(key, "rows"), limit=100)
    return {
        "log": sorted(
            (each.dagster_event_type.value, each.get_dagster_event().partition or "")
            if each.dagster_event_type
            else ("line", each.user_message.replace(name, ""))
            for each in instance.all_logs(run_id)
        ),
        "newest": (newest.partition, newest.metadata),
        "last run": record.asset_entry.last_run_id == run_id,
        "partitions": sorted(storage.get_materialized_partitions(key)),
        "versions": {
            day: dict(tags)
            for day, tags in storage.get_latest_tags_by_partition(
                key, dg.DagsterEventType.ASSET_MATERIALIZATION, ["dagster/data_version"]
            ).items()
        },
        "observed": [each.partition_key for each in instance.fetch_observations(key, limit=10).records],
        "checks": sorted(
            (each.partition or "", each.status.value, each.event.message.replace(name, ""), each.run_id == run_id)
            for each in checks
            if each.event is not None
        ),
    }


def instance_on(log: PostgresEventLogStorage, monkeypatch: pytest.MonkeyPatch) -> dg.DagsterInstance:
    """An instance that is thrown away, but for its event log."""
    instance = dg.DagsterInstance.ephemeral()
    monkeypatch.setattr(instance, "_event_storage", log)
    log.register_instance(instance)
    return instance


def test_events_stored_together_read_as_those_stored_one_by_one(
    url: str, log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, batches = instance_on(log, monkeypatch), list[int]()
    inner = log.store_event_batch
    monkeypatch.setattr(log, "store_event_batch", lambda events: (batches.append(len(events)), inner(events)))
    found = seen(ours, "together", run(ours, "together", together=True))
    assert batches == [len(KEYS) + 1, 2 * len(KEYS) + 3], "what the run announces, and what the block reports"
    monkeypatch.delenv("DAGSTER_EVENT_BATCH_SIZE")
    dagsters = instance_on(PostgresEventLogStorage(url), monkeypatch)
    wanted = seen(dagsters, "by_one", run(dagsters, "by_one", together=True))
    assert found["partitions"] == KEYS
    assert len(found["checks"]) == len(KEYS) + 1, "the day that was not announced has its record, too"
    assert found == wanted


def test_what_happened_is_stored_when_the_block_ends_by_an_exception(
    log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance = instance_on(log, monkeypatch)
    run(instance, "failing", together=True, fails=True)
    assert sorted(instance.event_log_storage.get_materialized_partitions(dg.AssetKey("failing"))) == KEYS


def test_a_batch_is_stored_whole_or_not_at_all(log: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    instance = instance_on(log, monkeypatch)
    with monkeypatch.context() as patch:
        patch.delenv("DAGSTER_EVENT_BATCH_SIZE")
        patch.setattr(log, "_store_checks", lambda *_: (_ for _ in ()).throw(OSError("the connection is gone")))
        run(instance, "lost", together=True, fails=True)
    assert instance.event_log_storage.get_materialized_partitions(dg.AssetKey("lost")) == set()
    run(instance, "lost", together=True)
    assert sorted(log.get_materialized_partitions(dg.AssetKey("lost"))) == KEYS


def test_a_connection_that_postgresql_has_closed_is_replaced(url: str) -> None:
    storage = InstanceStorage(url)

    def ask() -> tuple[set[str], list[Any]]:
        runs = storage.run_storage.get_runs()
        return storage.event_log_storage.get_materialized_partitions(dg.AssetKey("nothing")), list(runs)

    assert ask() == (set(), [])
    server = sa.create_engine(sa.make_url(url).set(drivername="postgresql+psycopg"))
    with server.connect() as connection:
        others = "FROM pg_stat_activity WHERE datname = current_database() AND pid != pg_backend_pid()"
        ended = connection.execute(sa.text(f"SELECT count(pg_terminate_backend(pid)) {others}")).scalar_one()
    server.dispose()
    assert ended >= 2, "a connection for events and one for runs"
    assert ask() == (set(), [])
    storage.event_log_storage.dispose()
    storage.run_storage.dispose()


def test_assets_are_locked_in_the_order_of_their_keys(log: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    stored: list[str] = []
    upsert = EventLog._store_asset_event

    def told(self: EventLog, connection: Any, event: Any, number: int) -> None:
        stored.append(event.get_dagster_event().asset_key.to_user_string())
        upsert(self, connection, event, number)

    monkeypatch.setattr(EventLog, "_store_asset_event", told)

    @dg.op
    def tell(context: dg.OpExecutionContext) -> None:
        with stored_together(context.instance):
            for key in ("unload", "curated", "clickhouse", "unload"):
                context.log_event(dg.AssetMaterialization(key))

    @dg.job(logger_defs={})
    def tells() -> None:
        tell()

    assert tells.execute_in_process(instance=instance_on(log, monkeypatch)).success
    assert stored == ["clickhouse", "curated", "unload"]
