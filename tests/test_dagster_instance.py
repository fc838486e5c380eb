"""The instance files of the repository root, read by Dagster itself."""

import contextlib
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import sqlalchemy as sa
import yaml
from dagster import DagsterInstance
from dagster._core.remote_origin import InProcessCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._daemon.run_coordinator.queued_run_coordinator_daemon import QueuedRunCoordinatorDaemon

from data_platform.assets.keys import DATASET_TAG
from data_platform.build import build_defs
from data_platform.errors import ConfigurationError
from data_platform.jobs.pools import POOLS, ensure_pools
from data_platform.resources.event_log import EventLog

REPOSITORY = Path(__file__).resolve().parent.parent
QUEUED = dg.DagsterRunStatus.QUEUED
_CODE = InProcessCodeLocationOrigin(LoadableTargetOrigin(python_file="none.py"), location_name="none")
_ORIGIN = RemoteJobOrigin(RemoteRepositoryOrigin(_CODE, repository_name="none"), job_name="job")


@pytest.fixture(scope="module")
def instance(cloud: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DagsterInstance]:
    """The instance that dagster.yaml describes, on an empty database of the embedded PostgreSQL."""
    url = sa.make_url(cloud.settings.postgres_url.get_secret_value())
    server = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    name = f"t_{uuid.uuid4().hex}"
    with server.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    home = tmp_path_factory.mktemp("dagster_home")
    (home / "dagster.yaml").write_bytes((REPOSITORY / "dagster.yaml").read_bytes())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DAGSTER_HOME", str(home))
        own = url.set(drivername="postgresql", database=name)
        patch.setenv("DAGSTER_POSTGRES_URL", own.render_as_string(hide_password=False))
        with DagsterInstance.from_config(str(home)) as found:
            yield found
    with server.connect() as connection:
        connection.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))
    server.dispose()


@pytest.mark.integration
def test_runs_and_events_are_kept_in_postgresql(instance: DagsterInstance) -> None:
    assert type(instance.run_storage).__name__ == "PostgresRunStorage"
    assert isinstance(instance.event_log_storage, EventLog)
    assert instance.get_runs_count() == 0


@pytest.mark.integration
def test_a_permanent_failure_is_not_run_again(instance: DagsterInstance) -> None:
    assert instance.run_retries_enabled
    assert instance.run_retries_max_retries == 2
    assert not instance.run_retries_retry_on_asset_or_op_failure


@pytest.mark.integration
def test_a_killed_run_gives_its_slots_back(instance: DagsterInstance) -> None:
    assert instance.run_monitoring_enabled
    assert instance.get_settings("run_monitoring")["free_slots_after_run_end_seconds"] == 300


@pytest.mark.integration
def test_engines_are_protected_by_pools_and_the_queue_by_limits(instance: DagsterInstance) -> None:
    config = instance.get_concurrency_config()
    assert config.pool_config.default_pool_limit == 4
    assert config.run_queue_config is not None
    assert config.run_queue_config.max_concurrent_runs == 8
    limits = {limit["key"]: limit for limit in config.run_queue_config.tag_concurrency_limits}
    assert set(limits) == {"dagster/backfill", "data_platform/dataset"}
    assert limits["data_platform/dataset"]["value"] == {"applyLimitPerUniqueValue": True}, "one run a dataset, not one"
    assert type(instance.run_coordinator).__name__ == "QueuedRunCoordinator"


@pytest.mark.integration
def test_each_pool_gets_the_limit_it_was_given_a_reason_for_and_keeps_one_that_a_person_set(
    instance: DagsterInstance,
) -> None:
    storage = instance.event_log_storage
    storage.set_concurrency_slots("athena", 3)
    assert ensure_pools(instance) == {name: pool.limit for name, pool in POOLS.items() if name != "athena"}
    limits = {limit.name: limit.limit for limit in storage.get_pool_limits()}
    assert {name: limits[name] for name in POOLS} == {"redshift": 4, "clickhouse": 4, "athena": 3, "postgres": 2}
    assert ensure_pools(instance) == {}
    used = {op.pool for op in _ops() if op.pool is not None}
    assert used == set(POOLS) - {"athena"}, "every op's pool has a limit of its own; no shipped service is on Athena"


def _ops() -> list[dg.OpDefinition]:
    repository = build_defs().get_repository_def()
    return [node for name in repository.job_names for node in repository.get_job(name).all_node_defs]  # type: ignore[misc]


@pytest.mark.integration
def test_a_step_waits_while_others_hold_every_slot_of_its_pool(instance: DagsterInstance) -> None:
    storage = instance.event_log_storage
    storage.set_concurrency_slots("postgres", 2)
    holders = [str(uuid.uuid4()) for _ in range(2)]
    late = str(uuid.uuid4())
    assert all(storage.claim_concurrency_slot("postgres", run_id, "step").is_claimed for run_id in holders)
    try:
        assert not storage.claim_concurrency_slot("postgres", late, "step").is_claimed
        assert storage.get_concurrency_info("postgres").pending_step_count == 1
        storage.free_concurrency_slots_for_run(holders[0])
        assert storage.claim_concurrency_slot("postgres", late, "step").is_claimed
    finally:
        for run_id in (*holders, late):
            storage.free_concurrency_slots_for_run(run_id)


@pytest.mark.integration
def test_runs_over_one_dataset_and_backfills_wait_in_the_queue(
    instance: DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    launched: list[dg.DagsterRun] = []
    monkeypatch.setattr(instance.run_launcher, "launch_run", lambda context: launched.append(context.dagster_run))
    datasets = ["market/a"] * 4 + [f"market/{n}" for n in range(2)]
    tags = [{DATASET_TAG: dataset} for dataset in datasets] + [{"dagster/backfill": f"b{n}"} for n in range(6)]
    for each in tags:
        instance.add_run(dg.DagsterRun("job", status=QUEUED, tags=each, remote_job_origin=_ORIGIN))
    dequeue(instance)
    going = {run.tags[DATASET_TAG]: run for run in launched if DATASET_TAG in run.tags}
    assert set(going) == {"market/a", "market/0", "market/1"}
    assert sum("dagster/backfill" in run.tags for run in launched) == 4
    dequeue(instance)
    assert len(launched) == 7, "those that are under way hold the others back"
    instance.report_run_failed(going["market/a"])
    dequeue(instance)
    assert [run.tags[DATASET_TAG] for run in launched[7:]] == ["market/a"]
    for run in instance.get_runs():
        instance.delete_run(run.run_id)


def dequeue(instance: DagsterInstance) -> None:
    """What the daemon does every few seconds."""

    class Workspace:
        def __init__(self) -> None:
            self.instance = instance

        def create_request_context(self) -> Any:
            return contextlib.nullcontext()

    workspace: Any = Workspace()
    for error in QueuedRunCoordinatorDaemon(interval_seconds=1).run_iteration(workspace):
        assert error is None, error


@pytest.mark.integration
def test_the_daemon_works_in_threads_and_forgets_old_ticks(instance: DagsterInstance) -> None:
    for part in ("sensors", "schedules", "backfills"):
        assert instance.get_settings(part)["use_threads"], part
    for part in ("sensor", "schedule", "auto_materialize"):
        assert instance.get_settings("retention")[part]["purge_after_days"], part


@pytest.mark.integration
def test_freshness_policies_are_evaluated(instance: DagsterInstance) -> None:
    assert instance.freshness_enabled


@pytest.mark.integration
def test_nothing_is_reported_to_anybody(instance: DagsterInstance) -> None:
    assert not instance.telemetry_enabled
    assert not instance.nux_enabled


@pytest.mark.integration
def test_logs_and_artifacts_stay_below_dagster_home(instance: DagsterInstance) -> None:
    home = Path(instance.root_directory)
    assert Path(instance.storage_directory()).is_relative_to(home)
    assert Path(instance.compute_log_manager._base_dir).is_relative_to(home)


@pytest.mark.unit
def test_every_way_in_names_the_same_code_location() -> None:
    workspace = yaml.safe_load((REPOSITORY / "workspace.yaml").read_text())
    cloud_file = yaml.safe_load((REPOSITORY / "dagster_cloud.yaml").read_text())
    module = "data_platform.definitions"
    assert [entry["python_module"]["module_name"] for entry in workspace["load_from"]] == [module]
    assert [entry["code_source"]["module_name"] for entry in cloud_file["locations"]] == [module]
    assert f'code_location_target_module = "{module}"' in (REPOSITORY / "pyproject.toml").read_text()


@pytest.mark.unit
def test_the_files_hold_no_secret() -> None:
    storage = yaml.safe_load((REPOSITORY / "dagster.yaml").read_text())["storage"]
    assert storage["custom"]["config"] == {}


@pytest.mark.unit
def test_an_instance_of_its_own_needs_its_database(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from data_platform.resources.instance_storage import InstanceStorage

    monkeypatch.delenv("DAGSTER_POSTGRES_URL", raising=False)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    with pytest.raises(ConfigurationError, match="DAGSTER_POSTGRES_URL"):
        InstanceStorage.from_config_value(None, {})


@pytest.mark.integration
@pytest.mark.parametrize("command", ["check", "list"])
def test_dg_needs_no_database_and_no_environment(command: str) -> None:
    environment = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")}
    dg = Path(sys.executable).parent / "dg"
    done = subprocess.run(
        [dg, command, "defs"], cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
