"""Athena's share: the Glue database, tables on curated Parquet and for the building blocks, the workgroup."""

from typing import Any

from data_platform.analytics.athena.glue import block_input, curated_table
from data_platform.analytics.athena.layout import BLOCKS
from data_platform.catalog import Catalog
from data_platform.catalog.models import Mode
from data_platform.clients import aws
from data_platform.clients.athena import output_location
from data_platform.provisioning.aws_calls import naming
from data_platform.provisioning.report import Recorder
from data_platform.settings import Settings

PRIMARY = "primary"  # every account has it


def provision_athena(settings: Settings, catalog: Catalog, recorder: Recorder) -> None:
    """Make and put right what is missing. Raises PlatformError naming the action that is not allowed."""
    glue = aws.client(settings, "glue", pool=2)
    with naming("glue", settings.athena_database):
        made = _database(glue, settings, recorder)
        wanted = [
            curated_table(dataset, settings.curated_bucket)
            for dataset in catalog.datasets.values()
            if dataset.mode is Mode.DAILY
        ]
        wanted += [block_input(block, output_location(settings)) for block in BLOCKS]
        found = {} if made and recorder.dry_run else _tables(glue, settings.athena_database)
        for table in wanted:
            _table(glue, settings.athena_database, table, found.get(table["Name"]), recorder)
    if settings.athena_workgroup != PRIMARY:
        athena = aws.client(settings, "athena", pool=1)
        with naming("athena", settings.athena_workgroup):
            _workgroup(athena, settings, recorder)


def _database(glue: Any, settings: Settings, recorder: Recorder) -> bool:
    name = settings.athena_database
    try:
        glue.get_database(Name=name)
    except glue.exceptions.EntityNotFoundException:
        wanted = {"Name": name, "Description": "Curated events and product metrics."}
        recorder.change("glue database", name, "create", lambda: glue.create_database(DatabaseInput=wanted))
        return True
    return False


def _tables(glue: Any, database: str) -> dict[str, Any]:
    pages = glue.get_paginator("get_tables").paginate(DatabaseName=database)
    return {table["Name"]: table for page in pages for table in page["TableList"]}


def _table(glue: Any, database: str, wanted: dict[str, Any], found: dict[str, Any] | None, recorder: Recorder) -> None:
    name = f"{database}.{wanted['Name']}"
    if found is None:
        recorder.change(
            "glue table", name, "create", lambda: glue.create_table(DatabaseName=database, TableInput=wanted)
        )
    elif _facts(found) != _facts(wanted):
        recorder.change(
            "glue table", name, "update", lambda: glue.update_table(DatabaseName=database, TableInput=wanted)
        )


def _facts(table: dict[str, Any]) -> tuple[Any, ...]:
    """What of a table is ours to keep right; the service adds fields of its own."""
    storage = table["StorageDescriptor"]

    def named(columns: list[dict[str, str]]) -> list[tuple[str, str]]:
        return [(column["Name"], column["Type"]) for column in columns]

    return (
        named(storage["Columns"]),
        named(table.get("PartitionKeys", [])),
        storage["Location"].rstrip("/"),
        {key: value for key, value in table.get("Parameters", {}).items() if key.startswith(("projection", "storage"))},
    )


def _workgroup(athena: Any, settings: Settings, recorder: Recorder) -> None:
    name = settings.athena_workgroup
    found = {group["Name"] for group in athena.list_work_groups()["WorkGroups"]}
    if name in found:  # its limits are an operator's
        return
    # A query past the whole run's budget is stopped by Athena itself; 10 MB is the least the service takes.
    cutoff = max(int(settings.athena_budget_usd / max(settings.athena_usd_per_tb, 1e-9) * 1000**4), 10_000_000)
    configuration = {
        "EnforceWorkGroupConfiguration": False,  # the platform names each query's output
        "PublishCloudWatchMetricsEnabled": True,
        "BytesScannedCutoffPerQuery": min(cutoff, 7_000_000_000_000_000),
        "EngineVersion": {"SelectedEngineVersion": "Athena engine version 3"},
    }
    recorder.change(
        "workgroup",
        name,
        "create",
        lambda: athena.create_work_group(Name=name, Configuration=configuration, Description="Product metrics."),
    )
