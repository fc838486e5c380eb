"""`data-platform settings`: the settings in force, secrets masked, and the reference page made from the code."""

import re
import sys
from collections.abc import Iterator
from typing import Annotated, Any, Literal, get_args, get_origin

import typer
from pydantic import SecretStr
from pydantic.fields import FieldInfo

from data_platform.cli.output import JsonOption, print_json, print_rows
from data_platform.settings import (
    ENDPOINT_VARIABLES,
    Settings,
    load_settings,
    origin_of,
    variable_of,
    variables_of,
)

app = typer.Typer(add_completion=False)
MASK = "***"
_URL_PASSWORD = re.compile(r"(?<=://)([^:@/]*):[^@/]*@")
_PAGE_TOP = """# Settings

Made by `data-platform settings --docs` from `data_platform/settings.py`; a test compares the two.

Every setting is an environment variable. `data-platform settings` prints the values in force, secrets masked, and where
each came from; a value that does not fit ends every command with a message that names the variable, never the value.

Where the environment names no engine, the settings of the embedded cloud running in `DATA_PLATFORM_HOME` are used
(`<home>/cloud/env`). One of these variables is enough to leave the embedded cloud out altogether, so that a half-set
environment can never mix it with production:
{endpoints}.
"""


@app.command()
def settings(
    *,
    as_json: JsonOption = False,
    docs: Annotated[bool, typer.Option("--docs", help="Print docs/settings.md instead of the values.")] = False,
) -> None:
    """Show the settings in force: variable, value, where it came from. Secrets are masked."""
    if docs:
        sys.stdout.write(reference())
        return
    rows = list(described(load_settings()))
    if as_json:
        print_json(rows)
    else:
        print_rows(
            [
                {
                    "variable": row["variable"],
                    "value": None if row["value"] is None else _spelt(row["value"]),
                    "from": row["origin"],
                }
                for row in rows
            ],
            as_json=False,
        )


def described(values: Settings) -> Iterator[dict[str, Any]]:
    """One row a setting: group, variable, value (masked), origin, description."""
    for name, field in Settings.model_fields.items():
        yield {
            "group": _extra(field)["group"],
            "variable": variable_of(name),
            "value": masked(getattr(values, name)),
            "origin": origin_of(values, name),
            "description": field.description,
        }


def masked(value: object) -> object:
    """The value as it may be shown: of a URL its password is hidden, of any other secret everything."""
    if not isinstance(value, SecretStr):
        return value if value is None or isinstance(value, bool | int) else str(value)
    text = value.get_secret_value()
    if not text:
        return ""
    if "://" not in text:
        return MASK
    # A password with a slash or an @ in it would escape the pattern: then nothing is shown.
    return _URL_PASSWORD.sub(rf"\1:{MASK}@", text) if text.count("@") <= 1 and text.count("/") <= 3 else MASK


def reference() -> str:
    """docs/settings.md."""
    lines = [_PAGE_TOP.format(endpoints=", ".join(f"`{name}`" for name in ENDPOINT_VARIABLES))]
    groups: dict[str, list[tuple[str, FieldInfo]]] = {}
    for name, field in Settings.model_fields.items():
        groups.setdefault(_extra(field)["group"], []).append((name, field))
    for group, members in groups.items():
        lines += [f"## {group}", "", "| variable | default | values | what it is |", "| --- | --- | --- | --- |"]
        for name, field in members:
            variables = " or ".join(f"`{variable}`" for variable in variables_of(name))
            cells = (variables, _default(field), _values(field), field.description or "")
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        lines.append("")
    return "\n".join(lines).rstrip("\n") + "\n"


def _spelt(value: object) -> str:
    """A value as the environment spells it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _extra(field: FieldInfo) -> dict[str, str]:
    extra = field.json_schema_extra
    return {key: str(value) for key, value in extra.items()} if isinstance(extra, dict) else {}


def _default(field: FieldInfo) -> str:
    shown = _extra(field).get("shown")
    if shown is not None:
        return shown
    default = field.default
    if default is None or (isinstance(default, SecretStr) and not default.get_secret_value()):
        return "-"
    return f"`{_spelt(default)}`"


def _values(field: FieldInfo) -> str:
    """The values a setting takes, in words."""
    kinds = [kind for kind in (get_args(field.annotation) or (field.annotation,)) if kind is not type(None)]
    if get_origin(field.annotation) is Literal:
        return ", ".join(f"`{kind}`" for kind in kinds)
    words = {"int": "whole number", "bool": "true, false", "Path": "folder", "SecretStr": "secret", "float": "number"}
    text = ", ".join(words.get(getattr(kind, "__name__", ""), "text") for kind in kinds)
    limits = {name: value for rule in field.metadata for name, value in _limits(rule)}
    if "ge" in limits and "le" in limits:
        return f"{text}, {limits['ge']} to {limits['le']}"
    if "ge" in limits:
        return f"{text}, at least {limits['ge']}"
    return f"{text}, `{limits['pattern']}`" if "pattern" in limits else text


def _limits(rule: object) -> Iterator[tuple[str, object]]:
    for name in ("ge", "le", "pattern"):
        value = getattr(rule, name, None)
        if value is not None:
            yield name, value
