"""`data-platform statistics ...`: the CSV batch by hand, and what it did."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from data_platform.cli.output import JsonOption, err, out, print_json, print_rows
from data_platform.errors import PlatformError
from data_platform.settings import load_settings

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from data_platform.statistics.errors import Level
    from data_platform.statistics.outcome import Outcome
    from data_platform.statistics.outcome import Progress as Step

app = typer.Typer(no_args_is_help=True, add_completion=False)
AUDIT_COLUMNS = ("at", "level", "event", "error_class", "line", "column", "value", "rule", "message")


@app.callback()
def _group() -> None:
    """The CSV batch: user statistics from S3 into PostgreSQL."""


@app.command()
def apply(
    url: Annotated[str, typer.Argument(metavar="S3_URL", help="s3://<bucket>/incoming/<file>.csv[?versionId=ID]")],
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Validate and count, write nothing.")] = False,
    max_rejected: Annotated[
        float | None, typer.Option(min=0, max=100, metavar="PERCENT", help="Instead of the catalogue's.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Apply one file, or take up its unfinished run. A file that is applied already is compared with the table."""
    from data_platform.catalog import load_catalog
    from data_platform.clients import aws, postgres
    from data_platform.statistics.apply import apply_file
    from data_platform.statistics.source import find, parse_url

    settings = load_settings()
    options = load_catalog(settings.catalog).statistics
    if max_rejected is not None:
        options = options.model_copy(update={"max_rejected_percent": max_rejected})
    s3 = aws.s3(settings)
    file = find(s3, *parse_url(url))
    engine = postgres.engine(settings)
    try:
        with _progress() as step:
            outcome = apply_file(engine, s3, file, options, again=True, dry_run=dry_run, tell=_tell, on_progress=step)
    finally:
        engine.dispose()
    _print(outcome, as_json=as_json)
    if outcome.reason is not None:
        hint = "correct the file and drop it again" if outcome.reject_url is None else f"see {outcome.reject_url}.csv"
        verb = "would be" if dry_run else "was"
        raise PlatformError(f"nothing of {file.url} {verb} applied: {outcome.reason}", hint=hint)
    if outcome.inconsistencies:
        raise PlatformError(outcome.breach, hint=outcome.breach_step)


@app.command()
def history(
    *,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="The newest so many.")] = 20,
    status: Annotated[str | None, typer.Option(help="RUNNING, DONE, REFUSED, FAILED or ABANDONED.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List what was done with which file, newest first."""
    from data_platform.statistics import runs

    with _ledger() as connection:
        rows = runs.history(connection, limit=limit, status=None if status is None else status.upper())
    if not as_json:
        rows = [_history_row(row) for row in rows]
    print_rows(rows, as_json=as_json, title="Files")


@app.command()
def audit(
    file: Annotated[str, typer.Argument(metavar="FILE", help="S3 address, key, name, or id of a run.")],
    *,
    limit: Annotated[int, typer.Option(min=1, max=1_000_000, help="At most so many lines.")] = 1000,
    as_json: JsonOption = False,
) -> None:
    """Show every word about a file: starts, rejected rows with line, value and reason, ends."""
    from data_platform.statistics import runs

    with _ledger() as connection:
        rows = runs.audit(connection, file, limit=limit)
    if not rows:
        raise PlatformError(f"the ledger knows no file {file!r}", hint="data-platform statistics history")
    if not as_json:
        rows = [{name: row[name] for name in AUDIT_COLUMNS} for row in rows]
    print_rows(rows, as_json=as_json, title=file)


def _history_row(row: dict[str, Any]) -> dict[str, Any]:
    """What fits on a line; --json has all of it."""
    return {
        "started": f"{row['started_at']:%Y-%m-%d %H:%M:%S}",
        "file": row["key"].rpartition("/")[2],
        "status": row["status"],
        "records": row["records"],
        "changed": row["inserted"] + row["updated"],
        "unchanged": row["unchanged"],
        "rejected": row["rejected"],
        "seconds": row["duration_s"],
    }


@contextmanager
def _ledger() -> "Generator[Connection]":
    from data_platform.clients import postgres

    engine = postgres.engine(load_settings(), pool_size=1)
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


class _Bars:
    """What the run tells, as progress bars on standard error."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, step: "Step") -> None:
        names = {"reading": "reading", "committed": "applying", "comparing": "comparing with the file"}
        name = names.get(step.step)
        if name is None:
            return
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(name, total=step.total)
        self._progress.update(self._tasks[name], completed=step.done)


@contextmanager
def _progress() -> Generator[_Bars]:
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed:,}"), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True) as progress:
        yield _Bars(progress)


def _tell(_level: "Level", line: str) -> None:
    err.print(line, markup=False, soft_wrap=True)


def _print(outcome: "Outcome", *, as_json: bool) -> None:
    facts: dict[str, Any] = {
        "file": outcome.file.url,
        "version": outcome.file.version,
        "status": outcome.status,
        "run_id": outcome.run_id,
        "records": outcome.records,
        "inserted": outcome.inserted,
        "updated": outcome.updated,
        "unchanged": outcome.unchanged,
        "rejected": outcome.rejected,
        "withheld": outcome.withheld,
        "inconsistencies": outcome.inconsistencies,
        "differing": [asdict(each) for each in outcome.differing] if as_json else None,
        "reject_url": outcome.reject_url,
        "reason": outcome.reason,
        "seconds": outcome.seconds,
    }
    if as_json:
        rejects = [
            {"class": each.error_class, "line": each.line, "column": each.column, "value": each.value,
             "rule": each.rule, "reason": each.reason}
            for each in outcome.rejects
        ]  # fmt: skip
        print_json({**facts, "rejects": rejects})
        return
    for name, value in facts.items():
        if value is not None:
            out.print(f"{name:<16}{value:,}" if isinstance(value, int) else f"{name:<16}{value}", markup=False)
