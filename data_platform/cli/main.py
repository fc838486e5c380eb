"""Entry point of `data-platform`: which groups of commands there are, and how a failure ends.

Groups are imported when they are called: `--help` of one must not pay for the engines of all.
"""

import importlib
import signal
import sys
from typing import Any

import typer
from typer.core import TyperGroup
from typer.main import get_command as typer_command

from data_platform.cli.output import err
from data_platform.errors import PlatformError

INTERRUPTED = 130
# name -> (module with `app`, help line). A module's `app` with a single command becomes that command.
GROUPS: dict[str, tuple[str, str]] = {
    "cloud": ("data_platform.cli.cloud", "The embedded cloud: every engine on this machine."),
    "sample": ("data_platform.cli.sample", "Sample data for the embedded cloud."),
    "provision": ("data_platform.cli.provision", "Make buckets, queues, rules, topics, databases, tables."),
    "doctor": ("data_platform.cli.doctor", "Reach every engine and say what is wrong."),
    "settings": ("data_platform.cli.settings", "The settings in force, secrets masked."),
    "catalog": (
        "data_platform.cli.catalog",
        "Check the catalogue; show and apply its difference to ClickHouse.",
    ),
    "backfill": ("data_platform.cli.backfill", "Move a range of days of a dataset through its stages."),
    "unload": ("data_platform.cli.unload", "Unload a query by request id: submit, wait, download."),
    "api": ("data_platform.cli.api", "The unload API with its workers; tokens of its callers."),
    "dataset": ("data_platform.cli.dataset", "Look at a dataset as it is in ClickHouse."),
    "lineage": ("data_platform.cli.lineage", "From a table back to its sources, and on to what is made from it."),
    "loader": ("data_platform.cli.loader", "The pull loader: S3 events from SQS into ClickHouse."),
    "statistics": ("data_platform.cli.statistics", "The CSV batch: user statistics into PostgreSQL."),
    "metrics": ("data_platform.cli.metrics", "The product metrics of the services: bring their tables up to date."),
    "dlq": ("data_platform.cli.dlq", "Dead letters of the loader: list, show, replay, drop."),
    "trace": ("data_platform.cli.trace", "From a row back to its object, partition, UNLOAD and SQL."),
    "demo": ("data_platform.cli.demo", "The whole flow on sample data, from nothing, and what came out."),
    "dev": ("data_platform.cli.dev", "Embedded cloud, loader and Dagster's UI, until Ctrl-C."),
}


class LazyGroups(TyperGroup):
    """A group whose sub-commands are imported on first use."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - typer's own signature
        """Names in the order of GROUPS."""
        return list(GROUPS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002 - typer's own signature
        """Import the group called `cmd_name`."""
        if cmd_name not in GROUPS:
            return None  # typer says "No such command" and ends with 2
        module, help_line = GROUPS[cmd_name]
        command = typer_command(importlib.import_module(module).app)
        command.name = cmd_name
        command.short_help = help_line
        command.help = command.help or help_line
        return command

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002 - typer's own signature
        """List the groups without importing any of them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, help_line) for name, (_, help_line) in GROUPS.items()])


app = typer.Typer(
    cls=LazyGroups,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Redshift to S3 to ClickHouse to product metrics.",
)


@app.callback()
def _root() -> None:
    """Redshift to S3 to ClickHouse to product metrics."""


def main() -> None:
    """Run the command line. Exit codes: 0 done, 1 failed with a reason, 2 wrong usage, 130 interrupted."""
    signal.signal(signal.SIGTERM, _terminate)
    try:
        app()
    except PlatformError as error:
        err.print(f"error: {error}", markup=False, soft_wrap=True)
        sys.exit(1)
    except SystemExit as end:
        if end.code == INTERRUPTED:  # typer has turned Ctrl-C into this code, without a word
            err.print("interrupted")
        raise
    except KeyboardInterrupt:  # between two calls of typer's
        err.print("interrupted")
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        sys.exit(1)


def _terminate(_signum: int, _frame: object) -> None:
    """SIGTERM ends a command as Ctrl-C does, so that `finally` blocks stop what was started."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
