"""`data-platform provision`: make what is missing, put right what differs, say what was done."""

from dataclasses import asdict
from typing import Annotated

import typer

from data_platform.cli.output import JsonOption, out, print_json
from data_platform.provisioning import PARTS, provision
from data_platform.settings import load_settings

app = typer.Typer(add_completion=False)


@app.command("provision")
def provision_command(
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, change nothing.")] = False,
    only: Annotated[
        str | None, typer.Option("--only", metavar="PARTS", help=f"Comma-separated: {', '.join(PARTS)}.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make buckets, queues, rules, alarms, topics, databases and tables. Run it as often as you like."""
    parts = None if only is None else [part.strip() for part in only.split(",") if part.strip()]
    if parts is not None and (not parts or not set(parts) <= set(PARTS)):
        raise typer.BadParameter(f"one or more of {', '.join(PARTS)}", param_hint="--only")
    settings = load_settings()
    tell = None if as_json else lambda line: out.print(line, markup=False, soft_wrap=True)
    report = provision(settings, report=tell, only=parts, dry_run=dry_run)
    if as_json:
        print_json(asdict(report))
        return
    count = len(report.changes)
    if not count:
        out.print("nothing to change")
    else:
        out.print(f"{count} change{'' if count == 1 else 's'}{' to make' if dry_run else ''}")
