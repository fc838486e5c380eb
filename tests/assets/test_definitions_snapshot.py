"""The shipped assets, jobs and schedules as a page to read: a change of any shows in the golden file.

Refresh it after a wanted change: python -m tests.assets.test_definitions_snapshot
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from data_platform.build import build_defs
from data_platform.catalog import load_catalog
from data_platform.jobs import daily
from data_platform.jobs.daily import daily_jobs, job_name_of
from data_platform.settings import Settings
from tests.desk.conftest import catalog_of, dataset_of
from tests.flow import dataset_entry, day, write_catalog

pytestmark = pytest.mark.unit
GOLDEN = Path(__file__).with_name("golden") / "definitions.txt"
CATALOG = Path(__file__).resolve().parents[2] / "catalog"
LAYERS = ("unload", "curated", "clickhouse", "redshift", "raw", "summaries")


def shipped(settings: Settings | None = None) -> dg.Definitions:
    settings = settings or Settings(catalog=CATALOG)
    return build_defs(settings, catalog=load_catalog(CATALOG))


def page(definitions: dg.Definitions) -> str:
    """One paragraph an asset, then jobs and schedules."""
    repository = definitions.get_repository_def()
    graph = repository.asset_graph
    lines: list[str] = []
    for key in sorted(graph.get_all_asset_keys(), key=lambda key: key.to_user_string()):
        if key.path[0] not in LAYERS:
            continue
        node = graph.get(key)
        deps = ", ".join(sorted(parent.to_user_string() for parent in node.parent_keys)) or "-"
        days = node.partitions_def
        span = "-"
        if isinstance(days, dg.TimeWindowPartitionsDefinition):
            span = f"daily from {days.start:%Y-%m-%d}" + (f" before {days.end:%Y-%m-%d}" if days.end else "")
        text = (node.description or "").replace("\n\n", "\n").replace("\n", "\n  | ")
        owners, kinds = ", ".join(sorted(node.owners)) or "-", ", ".join(sorted(node.kinds)) or "-"
        lines += [
            key.to_user_string(),
            f"  group {node.group_name}; owners {owners}; kinds {kinds}",
            f"  days {span}; executable {node.is_executable}",
            f"  from {deps}",
            f"  columns {_columns(node.metadata)}",
            f"  | {text}",
            "",
        ]
    lines.append("jobs")
    for name in sorted(repository.job_names):
        if name.startswith("__"):
            continue
        keys = repository.get_job(name).asset_layer.selected_asset_keys
        mine = sorted(key.to_user_string() for key in keys if key.path[0] in LAYERS)
        if mine:
            lines.append(f"  {name}: {', '.join(mine)}")
    return "\n".join(lines) + "\n"


def _columns(metadata: Mapping[str, Any]) -> str:
    schema = metadata.get("dagster/column_schema")
    if isinstance(schema, dg.TableSchemaMetadataValue):
        schema = schema.schema
    columns = schema.columns if isinstance(schema, dg.TableSchema) else []
    return (
        ", ".join(f"{each.name} {each.type}{' null' if each.constraints.nullable else ''}" for each in columns) or "-"
    )


def test_the_shipped_assets_are_as_the_page_says() -> None:
    assert page(shipped()) == GOLDEN.read_text(encoding="utf-8"), __doc__


def test_every_asset_of_the_platform_is_cared_for() -> None:
    graph = shipped().get_repository_def().asset_graph
    for key in graph.get_all_asset_keys():
        node = graph.get(key)
        assert node.description, key
        assert node.group_name != "default", key
        assert node.kinds, key
        assert node.owners or not node.is_executable, key


def test_every_daily_job_has_a_schedule_and_none_starts_by_itself() -> None:
    repository = shipped().get_repository_def()
    scheduled = {schedule.job_name for schedule in repository.schedule_defs}
    jobs = {entry.job.name for entry in daily_jobs(load_catalog(CATALOG))}
    assert jobs <= scheduled
    assert {each.default_status for each in repository.schedule_defs} == {dg.DefaultScheduleStatus.STOPPED}
    assert {each.default_status for each in repository.sensor_defs} <= {dg.DefaultSensorStatus.STOPPED}


def test_the_setting_starts_what_the_site_wants() -> None:
    repository = shipped(Settings(catalog=CATALOG, schedules="all")).get_repository_def()
    assert {each.default_status for each in repository.schedule_defs} == {dg.DefaultScheduleStatus.RUNNING}


def test_datasets_of_the_same_days_share_a_job_and_others_do_not(tmp_path: Path) -> None:
    entries = [
        dataset_entry("shop", "items"),
        dataset_entry("shop", "orders"),
        dataset_entry("shop", "old", end=day(10)),
        dataset_entry("shop", "plans", mode="snapshot"),
        dataset_entry("shop", "sites", mode="snapshot"),
    ]
    catalog = write_catalog(tmp_path, "shop", entries)
    names = {key: job_name_of(catalog, dataset) for key, dataset in catalog.datasets.items()}
    assert names["shop/items"] == names["shop/orders"]
    assert names["shop/plans"] == names["shop/sites"] == "shop_snapshots"
    assert len({names["shop/items"], names["shop/old"], "shop_snapshots"}) == 3
    jobs = {entry.job.name: entry for entry in daily_jobs(catalog)}
    assert set(names.values()) <= set(jobs)
    assert (jobs[names["shop/items"]].partitioned, jobs["shop_snapshots"].partitioned) == (True, False)


def test_one_daily_group_is_called_after_its_domain(tmp_path: Path) -> None:
    catalog = write_catalog(tmp_path, "shop", [dataset_entry("shop", "items")])
    assert job_name_of(catalog, catalog.dataset("shop/items")) == "shop_daily"


def test_the_catalogue_is_not_read_through_once_per_dataset(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand datasets, each with a look at all of them, took the load from 4 to 10 s."""
    asked: list[int] = []
    groups = daily._groups  # pyright: ignore[reportPrivateUsage] - what is counted
    monkeypatch.setattr(daily, "_groups", lambda catalog: asked.append(1) or groups(catalog))
    datasets = [dataset_of(f"t{n:02}") for n in range(30)]
    build_defs(Settings(catalog=CATALOG), catalog=catalog_of(*datasets))
    assert len(asked) < 10


def main() -> None:
    """Write the page anew."""
    GOLDEN.parent.mkdir(exist_ok=True)
    GOLDEN.write_text(page(shipped()), encoding="utf-8")


if __name__ == "__main__":
    main()
