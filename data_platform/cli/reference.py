"""docs/reference.md out of the code: every command with its options, every asset, check, job, schedule and sensor.

`python -m data_platform.cli.reference > docs/reference.md`; a test compares the two.
"""

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from typer.main import get_command

from data_platform.cli.main import app
from data_platform.settings import Settings

if TYPE_CHECKING:
    from data_platform.inventory import Entry

HEAD = """# Reference

Made by `python -m data_platform.cli.reference` from the code and the shipped catalogue; a test compares the two.
The settings have [a page of their own](settings.md), what to do with all of it is in [operations.md](operations.md).
"""
SECTIONS = {
    "asset": "What there is to see. A key is `<layer>/<domain>/<dataset>`; what is read and not made has no operation.",
    "check": "By asset. `rows_agree_*` stop the later layers of a partition that does not agree.",
    "job": "What runs belong to.",
    "schedule": "None starts by itself unless `DATA_PLATFORM_SCHEDULES` names it (or says `all`).",
    "sensor": "As schedules: off unless named.",
}


def reference() -> str:
    """The page."""
    return HEAD + "\n".join(["", "## Commands", *_commands(), *_definitions()]) + "\n"


def _commands() -> Iterator[str]:
    root: Any = get_command(app)
    context = root.make_context("data-platform", [], resilient_parsing=True)
    for name in root.list_commands(context):
        yield from _command(f"data-platform {name}", root.get_command(context, name), context)


def _command(path: str, command: Any, parent: Any) -> Iterator[str]:
    """A command with its arguments and options, or each of a group's commands."""
    context = type(parent)(command, info_name=path, parent=parent)
    if hasattr(command, "list_commands"):
        for name in command.list_commands(context):
            yield from _command(f"{path} {name}", command.get_command(context, name), context)
        return
    arguments = [param for param in command.params if param.param_type_name == "argument"]
    options = [param for param in command.params if param.param_type_name == "option" and param.name != "help"]
    shown = "".join(f" {param.metavar or param.name.upper()}" for param in arguments)
    text = (command.help or "").strip().partition("\n\n")[0].replace("\n", " ")
    yield from ("", f"### `{path}{shown}`", "", text)
    if command.epilog:
        yield from ("", f"    {command.epilog.partition(': ')[2]}")
    if options:
        yield from ("", "| option | what it is |", "| --- | --- |")
        for param in options:
            names = ", ".join(f"`{name}`" for name in (*param.opts, *param.secondary_opts))
            yield f"| {names} | {(param.help or '').replace('|', '/')} |"


def _definitions() -> Iterator[str]:
    from data_platform.inventory import inventory

    found: list[Entry] = inventory(Settings(_env_file=None))  # pyright: ignore[reportCallIssue] - pydantic-settings' own argument
    for kind, words in SECTIONS.items():
        yield from ("", f"## {kind.capitalize()}s", "", words, "", "| name | what it is |", "| --- | --- |")
        for entry in found:
            if entry.kind == kind:
                yield f"| `{entry.name}` | {entry.text.replace('|', '/')} |"


if __name__ == "__main__":
    sys.stdout.write(reference())
