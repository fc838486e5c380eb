"""`data-platform doctor`: reach every engine with the settings in force and say what is wrong and what to do."""

import logging
from dataclasses import asdict

import typer
from rich.table import Table

from data_platform.cli.output import JsonOption, out, print_json
from data_platform.provisioning.checks import Finding, Status, examine
from data_platform.settings import load_settings

app = typer.Typer(add_completion=False)
_STYLES = {Status.OK: "green", Status.WARNING: "yellow", Status.FAILED: "bold red"}


@app.command()
def doctor(*, as_json: JsonOption = False) -> None:
    """Reach every engine; check versions, rights and clocks. Exit 1 when something will not work."""
    # What the libraries log about a failure, a line of the diagnosis says in words.
    for library in ("clickhouse_connect", "botocore", "urllib3"):
        logging.getLogger(library).addHandler(logging.NullHandler())
    findings = examine(load_settings())
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        _print(findings)
    if any(finding.status is Status.FAILED for finding in findings):
        raise typer.Exit(1)


def _print(findings: list[Finding]) -> None:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column()
    table.add_column(overflow="fold")
    table.add_column(overflow="fold")
    for finding in findings:
        detail = finding.detail if finding.hint is None else f"{finding.detail}\n-> {finding.hint}"
        table.add_row(f"[{_STYLES[finding.status]}]{finding.status.value}[/]", finding.subject, _plain(detail))
    out.print(table)
    counts = {status: sum(finding.status is status for finding in findings) for status in Status}
    out.print(", ".join(f"{count} {status.value}" for status, count in counts.items()))


def _plain(text: str) -> str:
    """Brackets of messages are no markup."""
    return text.replace("[", "\\[")
