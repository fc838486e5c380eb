"""Every command looks the same: a verb first, --json where data is printed, a word about every option."""

from collections.abc import Iterator
from typing import Any

import pytest
from typer.main import get_command

from data_platform.cli.main import GROUPS, app

pytestmark = pytest.mark.unit
# What prints no data: it acts and tells of it on standard error, or runs until it is ended.
ACTIONS = {
    "cloud up", "cloud down", "cloud reset", "cloud kill", "cloud restart", "api", "api token revoke", "dev",
    "catalog schema",  # prints JSON whether asked or not
}  # fmt: skip
VERBS = {
    "Apply", "Bring", "Delete", "End", "Kill", "List", "Load", "Make", "Move", "Print", "Reach", "Receive", "Revoke",
    "Send", "Serve", "Show", "Start", "Stop", "Submit", "Trace", "Try", "Validate",
}  # fmt: skip


def commands() -> Iterator[tuple[str, Any]]:
    """Every command that does something, by its path."""
    root: Any = get_command(app)
    context = root.make_context("data-platform", [], resilient_parsing=True)

    def walk(path: str, command: Any) -> Iterator[tuple[str, Any]]:
        if not hasattr(command, "list_commands"):
            yield path, command
            return
        if command.invoke_without_command:
            yield path, command
        for name in command.list_commands(context):
            yield from walk(f"{path} {name}", command.get_command(context, name))

    for name in GROUPS:
        yield from walk(name, root.get_command(context, name))


COMMANDS = dict(commands())


@pytest.mark.parametrize("path", COMMANDS)
def test_what_prints_data_prints_it_for_programs_too(path: str) -> None:
    has = any("--json" in param.opts for param in COMMANDS[path].params)
    assert has != (path in ACTIONS)


@pytest.mark.parametrize("path", COMMANDS)
def test_help_begins_with_a_verb_and_is_a_sentence(path: str) -> None:
    if path == "api":
        return  # told by its group's line
    text = (COMMANDS[path].help or "").partition("\n\n")[0].strip()
    assert text.split()[0].rstrip(",;") in VERBS, text
    assert text.endswith("."), text


@pytest.mark.parametrize("path", COMMANDS)
def test_every_option_is_explained(path: str) -> None:
    silent = [param.name for param in COMMANDS[path].params if param.param_type_name == "option" and not param.help]
    assert silent == []


def test_examples_are_commands_there_are() -> None:
    examples = [command.epilog for command in COMMANDS.values() if command.epilog]
    assert len(examples) >= 5
    for path, command in COMMANDS.items():
        if command.epilog:
            assert command.epilog.startswith(f"Example: data-platform {path} "), command.epilog
