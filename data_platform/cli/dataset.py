"""`data-platform dataset`: look at a dataset as it is in ClickHouse."""

from datetime import datetime
from typing import Annotated, Any

import typer

from data_platform.cli.output import JsonOption, out, print_json, print_rows
from data_platform.settings import load_settings

app = typer.Typer(no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Look at a dataset as it is in ClickHouse."""


@app.command(epilog="Example: data-platform dataset preview market/flights")
def preview(
    dataset: Annotated[str, typer.Argument(metavar="DOMAIN/TABLE", help="The dataset, as in the catalogue.")],
    day: Annotated[
        datetime | None, typer.Option("--day", formats=["%Y-%m-%d"], help="The partition; default: the newest.")
    ] = None,
    limit: Annotated[int, typer.Option(help="Rows to show.", min=1, max=1000)] = 10,
    as_json: JsonOption = False,
) -> None:
    """Show the first rows of a partition, in the table's order, and how many there are."""
    from data_platform.catalog import load_catalog
    from data_platform.quality.preview import preview_rows

    settings = load_settings()
    found = preview_rows(
        settings, load_catalog(settings.catalog).dataset(dataset), None if day is None else day.date(), limit=limit
    )
    rows: list[dict[str, Any]] = [dict(zip(found.columns, row, strict=True)) for row in found.rows]
    if as_json:
        print_json({"dataset": dataset, "day": found.day, "rows_in_partition": found.total, "rows": rows})
        return
    print_rows(rows, as_json=False)
    out.print(f"{len(rows)} of {found.total:,} rows of {dataset}, {found.day}")
