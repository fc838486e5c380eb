"""`data-platform metrics`: the product metrics of the services, without the UI."""

from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from data_platform.cli.output import JsonOption, err, out, print_json, print_rows
from data_platform.errors import PlatformError
from data_platform.settings import load_settings

if TYPE_CHECKING:
    from data_platform.jobs.summaries import RunSummary

app = typer.Typer(no_args_is_help=True)


class Engine(StrEnum):
    """Where the metrics are computed."""

    CLICKHOUSE = "clickhouse"
    ATHENA = "athena"


@app.callback()
def metrics() -> None:
    """The product metrics of the services."""


@app.command()
def rebuild(
    service: Annotated[list[str] | None, typer.Option("--service", help="Only this service; may be repeated.")] = None,
    first: Annotated[
        datetime | None,
        typer.Option("--from", formats=["%Y-%m-%d"], help="Curate and load no UTC day before this one."),
    ] = None,
    last: Annotated[
        datetime | None, typer.Option("--to", formats=["%Y-%m-%d"], help="Curate and load no UTC day after this one.")
    ] = None,
    engine: Annotated[
        Engine | None,
        typer.Option(help="Where the metrics are computed, instead of where the catalogue and the settings say."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Bring the seven tables up to date with the raw logs: curate and load what is missing, recompute what changed.

    --from and --to limit which changed days are taken in; the tables always show every day that is loaded.
    """
    from data_platform.build import build_defs
    from data_platform.catalog import load_catalog
    from data_platform.jobs.instance import open_instance
    from data_platform.jobs.summaries import chosen_services, rebuild_metrics

    if first is not None and last is not None and last < first:
        raise typer.BadParameter(f"{last:%Y-%m-%d} is before --from {first:%Y-%m-%d}", param_hint="--to")
    settings = load_settings()
    catalog = load_catalog(settings.catalog)
    services = chosen_services(catalog, service)
    with open_instance(settings) as instance:
        summary = rebuild_metrics(
            settings,
            catalog,
            build_defs(settings, catalog=catalog),
            instance,
            services,
            engine=None if engine is None else engine.value,
            first=None if first is None else first.date(),
            last=None if last is None else last.date(),
            tell=lambda line: err.print(line, markup=False, soft_wrap=True),
        )
    if as_json:
        print_json(summary.as_dict() | {"engine": "" if engine is None else engine.value})
    else:
        _print(summary)
    if summary.failed_checks:
        raise PlatformError(
            f"{len(summary.failed_checks)} checks failed:\n  " + "\n  ".join(summary.failed_checks),
            hint="run it again; if it stays, compute every row anew: in Dagster, Materialize with full: true",
        )


def _print(summary: "RunSummary") -> None:
    rows = [
        {"table": each.table, "rows": each.rows, "seconds": each.seconds, "bytes": each.bytes}
        for each in summary.tables
    ]
    print_rows(rows, as_json=False, title="summary tables")
    out.print(
        f"{summary.status}: {len(summary.services)} services, {len(summary.tables)} tables in "
        f"{summary.execution_time:.1f} s; {summary.curated_days} days curated, {summary.loaded_days} loaded"
        f"{f', {summary.left_days} changed days left out' if summary.left_days else ''}; "
        f"{summary.bytes_scanned:,} bytes read, {summary.estimated_cost_usd:.4f} USD; "
        f"{summary.output_location}",
        soft_wrap=True,
    )
