"""`data-platform lineage`: from a table back to its sources and on to what is made from it."""

from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.tree import Tree

from data_platform.cli.output import JsonOption, out, print_json
from data_platform.settings import load_settings

if TYPE_CHECKING:
    from data_platform.jobs.lineage import Lineage, Step

app = typer.Typer()


@app.command(epilog="Example: data-platform lineage market/flights --columns")
def lineage(
    key: Annotated[str, typer.Argument(metavar="KEY", help="An asset key, or DOMAIN/TABLE.")],
    columns: Annotated[bool, typer.Option("--columns", help="Show where every column comes from.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show what KEY is made from, up to the warehouse, and what is made from it. Needs no engine."""
    from data_platform.build import build_defs
    from data_platform.catalog import load_catalog
    from data_platform.jobs.lineage import lineage_of

    settings = load_settings()
    catalog = load_catalog(settings.catalog)
    found = lineage_of(build_defs(settings, catalog=catalog), catalog, key)
    if as_json:
        print_json(asdict(found))
        return
    _print(found, columns=columns)


def _print(found: "Lineage", *, columns: bool) -> None:
    asked = found.asked
    out.print(f"[bold]{asked.key}[/bold]  {asked.description}", soft_wrap=True)
    above = {step.key: step for step in (asked, *found.up)}
    up = Tree("made from")
    _grow(up, asked, lambda step: [above[name] for name in step.reads if name in above], columns=columns, seen=set())
    out.print(up if found.up else "made from nothing in the catalogue")
    if columns:
        for column, sources in asked.columns.items():
            out.print(f"  {column} <- {', '.join(sources) or '?'}", markup=False)
    below = {step.key: step for step in found.down}
    down = Tree("used by")
    _grow(down, asked, lambda step: [s for s in below.values() if step.key in s.reads], columns=False, seen=set())
    out.print(down if found.down else "used by nothing in the catalogue")


def _grow(
    tree: Tree, step: "Step", following: "Callable[[Step], list[Step]]", *, columns: bool, seen: set[str]
) -> None:
    """Hang what follows `step` under `tree`; what was shown already is not unfolded again."""
    for each in following(step):
        branch = tree.add(f"{each.key}  [dim]{each.description}[/dim]")
        if each.key in seen:
            continue
        seen.add(each.key)
        if columns:
            for column, sources in each.columns.items():
                branch.add(f"[dim]{column} <- {', '.join(sources) or '?'}[/dim]")
        _grow(branch, each, following, columns=columns, seen=seen)
