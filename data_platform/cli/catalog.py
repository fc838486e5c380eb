"""`data-platform catalog ...`: check, list and show what moves; compare ClickHouse with it and update it."""

import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from data_platform.catalog import Catalog, CatalogError, ddl, load_catalog
from data_platform.catalog.models import Dataset
from data_platform.catalog.table_changes import Change, Kind
from data_platform.cli.output import JsonOption, err, out, print_json, print_rows
from data_platform.errors import PlatformError
from data_platform.settings import Settings, load_settings

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

app = typer.Typer(no_args_is_help=True, add_completion=False)
FolderArgument = Annotated[
    Path | None, typer.Argument(help="Folder of the catalogue; default: DATA_PLATFORM_CATALOG.", show_default=False)
]


@app.command()
def check(folder: FolderArgument = None, *, as_json: JsonOption = False) -> None:
    """Validate every file, SQL included. Exit 1 with all mistakes, one a line: file: path: reason."""
    where = folder or load_settings().catalog
    try:
        catalog = load_catalog(where, parse_sql=True)
    except CatalogError as error:
        _print_mistakes(error, where, as_json=as_json)
        raise typer.Exit(1) from None
    counts = {
        "datasets": len(catalog.datasets),
        "domains": len(catalog.domains),
        "services": len(catalog.services),
        "topics": len(catalog.topics),
    }
    if as_json:
        print_json({"folder": where, "problems": [], **counts})
    else:
        found = ", ".join(f"{count} {name if count != 1 else name.removesuffix('s')}" for name, count in counts.items())
        out.print(f"{where}: {found}; no mistakes", markup=False, soft_wrap=True)


def _print_mistakes(error: CatalogError, folder: Path, *, as_json: bool) -> None:
    if as_json:
        problems = [{"file": each.file, "path": each.path, "reason": each.reason} for each in error.problems]
        print_json({"folder": folder, "problems": problems})
        return
    for problem in error.problems:
        out.print(str(problem), markup=False, soft_wrap=True)
    count, files = len(error.problems), len({problem.file for problem in error.problems})
    summary = f"{count} mistake{'' if count == 1 else 's'} in {files} file{'' if files == 1 else 's'} of {folder}"
    err.print(f"error: {summary}", markup=False, soft_wrap=True)


@app.command("list")
def list_(*, as_json: JsonOption = False) -> None:
    """List the datasets: where they come from, how they are cut, who owns them."""
    rows = [
        {
            "dataset": dataset.key,
            "mode": dataset.mode.value,
            "source": _source(dataset),
            "start": dataset.start,
            "end": dataset.end,
            "owner": dataset.owner,
        }
        for dataset in _catalog().datasets.values()
    ]
    print_rows(rows if as_json else [_short(row) for row in rows], as_json=as_json, title="Datasets")


def _short(row: dict[str, Any]) -> dict[str, Any]:
    """As much of a row as fits a terminal of 80 columns."""
    days = "newest" if row["mode"] == "snapshot" else f"{row['start']} .. {row['end'] or ''}".rstrip()
    return {"dataset": row["dataset"], "days": days, "owner": row["owner"]}


@app.command()
def show(
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="<domain>/<name>")], *, as_json: JsonOption = False
) -> None:
    """Show one dataset: its columns in ClickHouse, Parquet and Redshift, and the DDL of its tables."""
    from data_platform.catalog import types

    found = _catalog().dataset(dataset)
    columns = [
        {
            "column": column.name,
            "clickhouse": column.clickhouse_type.sql,
            "parquet": str(types.arrow_type(column.clickhouse_type)),
            "redshift": types.redshift_type(column.clickhouse_type),
            "description": column.description,
        }
        for column in found.columns
    ]
    statements = list(ddl.statements(found, cluster=load_settings().clickhouse_cluster))
    if as_json:
        print_json({**found.model_dump(mode="json"), "key": found.key, "columns": columns, "ddl": statements})
        return
    out.print(f"{found.key}: {found.description}", markup=False, soft_wrap=True)
    print_rows(
        [{name: row[name] for name in ("column", "clickhouse", "description")} for row in columns], as_json=False
    )
    for statement in statements:
        sys.stdout.write(f"{statement};\n\n")


@app.command()
def schema() -> None:
    """Print the JSON Schema of a dataset file, for editors."""
    from data_platform.catalog.schema import schema_text

    sys.stdout.write(schema_text())


@app.command()
def diff(*, as_json: JsonOption = False) -> None:
    """Show what `apply` would change in the live ClickHouse, and what it would refuse. Changes nothing."""
    from data_platform.catalog import live

    settings = load_settings()
    catalog = load_catalog(settings.catalog, parse_sql=True)
    with _clickhouse(settings) as client:
        changes = live.diff(catalog, client, cluster=settings.clickhouse_cluster)
    _print_changes(changes, as_json=as_json, applied=False)


@app.command()
def apply(
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show, as `diff` does.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Bring the live ClickHouse up to date where no value can be lost. Exit 1 when something was refused."""
    from data_platform.catalog import live

    settings = load_settings()
    catalog = load_catalog(settings.catalog, parse_sql=True)
    act = live.diff if dry_run else live.apply
    with _clickhouse(settings) as client:
        changes = act(catalog, client, cluster=settings.clickhouse_cluster)
    _print_changes(changes, as_json=as_json, applied=not dry_run)
    refused = sum(change.kind is Kind.REFUSED for change in changes)
    if refused:
        raise PlatformError(
            f"{refused} difference{'' if refused == 1 else 's'} refused: values could be lost or invented",
            hint="change the catalogue, or make the table anew and load it again (data-platform backfill)",
        )


def _print_changes(changes: list[Change], *, as_json: bool, applied: bool) -> None:
    if as_json:
        print_json([_change(change, applied=applied) for change in changes])
    elif not changes:
        out.print("ClickHouse is as the catalogue says")
    else:
        rows: list[dict[str, Any]] = [
            {"change": change.kind.value, "of": change.target, "what": change.detail} for change in changes
        ]
        print_rows(rows, as_json=False, title="Applied" if applied else "Differences")


def _change(change: Change, *, applied: bool) -> dict[str, Any]:
    return {
        "kind": change.kind.value,
        "target": change.target,
        "detail": change.detail,
        "statement": change.statement,
        "applied": applied and change.statement is not None,
    }


def _source(dataset: Dataset) -> str:
    source = dataset.source
    if source.kind == "redshift":
        return f"redshift {source.table or 'sql'}"
    return f"{source.kind} {source.prefix}"


def _catalog() -> Catalog:
    return load_catalog(load_settings().catalog)


@contextmanager
def _clickhouse(settings: Settings) -> Generator["Client"]:
    """A connection whose errors a person can read: a missing grant is no traceback."""
    from clickhouse_connect.driver.exceptions import Error

    from data_platform.clients.clickhouse import classify, connect, inner_code

    client = connect(settings)
    try:
        yield client
    except Error as error:
        raise PlatformError(f"ClickHouse: {inner_code(error).message}", fault=classify(error)) from error
    finally:
        client.close()
