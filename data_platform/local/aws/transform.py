"""What EventBridge makes of an event for a target: Input, InputPath, InputTransformer. Pure functions over JSON values.

The rules are AWS's: a placeholder that stands for a value keeps its JSON type, one inside a quoted string is pasted
without quotes, and a path that finds nothing gives an empty string.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

Event = Mapping[str, Any]

_STEP = re.compile(r"\.?([^.\[\]]+)|\[(\d+)\]|\['([^']+)'\]")
_PLACEHOLDER = re.compile(r"<([A-Za-z0-9_.\-]+)>")
_NOTHING = object()


def target_input(target: Mapping[str, Any], event: Event, *, rule_name: str, rule_arn: str, ingested: str) -> str:
    """The text a target receives for `event`; `ingested` is the time EventBridge got it."""
    if target.get("Input"):
        return str(target["Input"])
    if target.get("InputPath"):
        found = at_path(event, str(target["InputPath"]))
        return json.dumps("" if found is _NOTHING else found)
    transformer = target.get("InputTransformer")
    if not transformer:
        return json.dumps(event)
    values = {name: at_path(event, path) for name, path in (transformer.get("InputPathsMap") or {}).items()}
    predefined = {
        "aws.events.rule-arn": rule_arn,
        "aws.events.rule-name": rule_name,
        "aws.events.event.ingestion-time": ingested,
        "aws.events.event": event,
        "aws.events.event.json": event,
    }
    return fill(str(transformer["InputTemplate"]), predefined | values)


def at_path(event: Event, path: str) -> Any:
    """The value at a JSONPath of names and indexes (`$.detail.object.key`, `$.resources[0]`), or a marker for none."""
    found: Any = event
    for step in _STEP.finditer(path.removeprefix("$")):
        name, index, quoted = step.groups()
        try:
            found = found[int(index)] if index is not None else found[name or quoted]
        except (KeyError, IndexError, TypeError):
            return _NOTHING
    return found


def fill(template: str, values: Mapping[str, Any]) -> str:
    """The template with its placeholders replaced. Raises ValueError when the outcome is not JSON."""
    out: list[str] = []
    quoted = False
    position = 0
    for match in _PLACEHOLDER.finditer(template):
        literal = template[position : match.start()]
        quoted ^= len(re.findall(r'(?<!\\)"', literal)) % 2 == 1
        out += (literal, _spelled(values.get(match[1], _NOTHING), quoted=quoted))
        position = match.end()
    text = "".join((*out, template[position:]))
    # A template may also be lines of quoted strings; each line is checked, the text goes out as it is.
    for part in [text] if text.lstrip().startswith(("{", "[")) else text.splitlines():
        json.loads(part)
    return text


def _spelled(value: Any, *, quoted: bool) -> str:
    if value is _NOTHING:
        return "" if quoted else '""'
    if not quoted:
        return json.dumps(value)
    if isinstance(value, str):
        return json.dumps(value)[1:-1]
    return json.dumps(value).replace('"', "")
