"""`data-platform sample ...`: the sample data into the embedded cloud."""

from dataclasses import asdict
from typing import Annotated

import typer

from data_platform.cli.output import JsonOption, err, print_json, print_rows
from data_platform.settings import load_settings

app = typer.Typer(no_args_is_help=True, add_completion=False)


@app.callback()
def _group() -> None:
    """Sample data for the embedded cloud."""


@app.command()
def load(
    *,
    only: Annotated[
        str | None, typer.Option("--only", metavar="PARTS", help="Comma-separated: flights, events, users, csv.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Load flights, shop events, users and a CSV drop into the embedded cloud. Run it as often as you like."""
    from data_platform.local.sample.load import PARTS, load_sample

    parts = None if only is None else [part.strip() for part in only.split(",") if part.strip()]
    if parts is not None and (not parts or not set(parts) <= set(PARTS)):
        raise typer.BadParameter(f"one or more of {', '.join(PARTS)}", param_hint="--only")
    loaded = load_sample(load_settings(), parts, tell=lambda line: err.print(line, markup=False, soft_wrap=True))
    rows = [asdict(each) for each in loaded]
    if as_json:
        print_json(rows)
    else:
        print_rows(rows, as_json=False, title="Sample data")
