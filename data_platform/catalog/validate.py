"""Plain data -> a model, with every structural mistake told in the words of the file it came from.

A file with one misspelt key still gets its rules checked: what does not fit is mended for the time being (`mend`), and
the fields that were mended are told (`Draft.unsure`), so that no rule judges what nobody wrote.
"""

import copy
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from types import UnionType
from typing import Annotated, Any, Generic, Literal, TypeVar, Union, cast, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from data_platform.catalog.problems import path_text

M = TypeVar("M", bound=BaseModel)
Path = tuple[str | int, ...]
Mistake = tuple[Path, str]
MENDING_ROUNDS = 3
# Stand-ins for required values that are missing or do not fit; fields with a default take that instead.
_STAND_INS: Mapping[str, Any] = {
    "name": "unnamed",
    "domain": "unnamed",
    "description": "?",
    "owner": "team:unknown",
    "type": "String",
    "source": {"kind": "redshift", "table": "unknown.unknown"},
    "columns": [{"name": "unnamed", "type": "String"}],
    "order_by": ["unnamed"],
    "priority": "low",
    "batch": {"min": 1, "max": 1},
    "peak_messages_per_hour": 1,
    "mean_file_mb": 1,
    "memory_mb": 64,
}


@dataclass(frozen=True)
class Draft(Generic[M]):
    """A model, perhaps mended; `unsure` holds the dotted paths (without list positions) nobody may judge."""

    model: M
    unsure: frozenset[str]


def validate(model: type[M], data: object) -> tuple[Draft[M] | None, list[Mistake]]:
    """The model, mended where that is possible, and all structural mistakes of `data` as (path, reason)."""
    if not isinstance(data, Mapping):
        return None, [((), f"must be a mapping of keys, not {_kind(data)}")]
    try:
        return Draft(model.model_validate(data), frozenset()), []
    except ValidationError as error:
        errors = error.errors(include_url=False)
    mistakes = [_mistake(model, detail) for detail in errors]
    return _mend(model, dict(cast("Mapping[str, Any]", data)), errors), mistakes


def nearest(word: object, known: Sequence[str]) -> str:
    """`; did you mean x?` where a known word is near, else nothing."""
    near = get_close_matches(str(word), known, n=1, cutoff=0.7)
    return f"; did you mean '{near[0]}'?" if near else ""


def _mend(model: type[M], data: dict[str, Any], errors: list[ErrorDetails]) -> Draft[M] | None:
    mended = copy.deepcopy(data)
    unsure: set[str] = set()
    for _ in range(MENDING_ROUNDS):
        # From the back, so that positions in lists stay right while items are taken out.
        for detail in sorted(errors, key=lambda each: [str(part).rjust(9) for part in each["loc"]], reverse=True):
            path, _ = _resolve(model, detail["loc"])
            _mend_one(model, mended, path, detail, unsure)
        try:
            return Draft(model.model_validate(mended), frozenset(unsure))
        except ValidationError as error:
            errors = error.errors(include_url=False)
    return None


def _mend_one(model: type[BaseModel], data: Any, path: Path, detail: ErrorDetails, unsure: set[str]) -> None:
    """Take out or replace the value at `path`."""
    if not path:
        return
    parent = data
    for part in path[:-1]:
        try:
            parent = parent[part]
        except (KeyError, IndexError, TypeError):
            return  # a larger piece around it has been mended already
    last = path[-1]
    names = tuple(part for part in path if isinstance(part, str))
    if isinstance(last, int):
        if isinstance(parent, list) and 0 <= last < len(cast("list[Any]", parent)):
            # A dropped item is judged by nothing: what is left of the list stands for itself.
            cast("list[Any]", parent).pop(last)
        return
    if not isinstance(parent, dict):
        return
    owner = cast("dict[str, Any]", parent)
    if detail["type"] == "extra_forbidden":
        owner.pop(last, None)
        return
    named_badly = last == "name" and detail["type"] == "string_pattern_mismatch"
    required = _required(model, path)
    if required and last in _STAND_INS:
        # Two columns must not become equal by being mended; a badly formed name can be meant by nothing else.
        position = "".join(f"_{part}" for part in path if isinstance(part, int))
        stand_in = copy.deepcopy(_STAND_INS[last])
        owner[last] = f"{stand_in}{position}" if last == "name" else stand_in
    else:
        owner.pop(last, None)
    if not named_badly:
        unsure.add(".".join(names))


def _required(model: type[BaseModel], path: Path) -> bool:
    parent, last = _resolve(model, path[:-1])[1], path[-1]
    return (
        isinstance(parent, type) and str(last) in parent.model_fields and parent.model_fields[str(last)].is_required()
    )


def _mistake(model: type[BaseModel], detail: ErrorDetails) -> Mistake:
    path, _ = _resolve(model, detail["loc"])
    return path, _reason(model, path, detail)


def _reason(model: type[BaseModel], path: Path, detail: ErrorDetails) -> str:
    context: dict[str, Any] = detail.get("ctx") or {}
    match detail["type"]:
        case "extra_forbidden":
            parent = _resolve(model, detail["loc"][:-1])[1]
            fields = list(parent.model_fields) if parent is not None else []
            return "unknown key" + (nearest(path[-1], fields) or f"; known are {', '.join(fields)}")
        case "missing":
            return "is missing"
        case "enum" | "literal_error":
            expected = str(context.get("expected", ""))
            near = nearest(detail["input"], re.findall(r"'([^']*)'", expected))
            return f"must be {expected}, not {_shown(detail['input'])}{near}"
        case "union_tag_invalid" | "union_tag_not_found":
            expected = str(context.get("expected_tags", "one with a known kind"))
            found = f"not {_shown(context['tag'])}" if "tag" in context else "and it is missing"
            near = nearest(context.get("tag", ""), re.findall(r"'([^']*)'", expected))
            return f"kind must be {expected}, {found}{near}"
        case "string_pattern_mismatch":
            return f"{_shown(detail['input'])} does not fit: {_pattern_in_words(str(context['pattern']))}"
        case kind:
            message = detail["msg"].removeprefix("Input ")
            return str(context["error"]) if kind == "value_error" else f"{message} (found {_shown(detail['input'])})"


def _pattern_in_words(pattern: str) -> str:
    if pattern.startswith("^[a-z][a-z0-9_]{"):
        return "a name is a-z, then a-z, 0-9 and _ (a leading _ is the platform's), at most 63 characters"
    if pattern.startswith("^(team:"):
        return "an owner is team:<name> or an e-mail address"
    if pattern.startswith("^[a-z][a-z0-9_-]"):
        return "a service name is a-z, then a-z, 0-9, - and _, at most 63 characters"
    return f"it must match {pattern}"


def _shown(value: object) -> str:
    text = "nothing" if value is None else f"'{value}'" if isinstance(value, str) else str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _kind(value: object) -> str:
    if value is None:
        return "empty"
    return "a list" if isinstance(value, list) else "plain text" if isinstance(value, str) else type(value).__name__


def _resolve(model: type[BaseModel], location: Sequence[str | int]) -> tuple[Path, type[BaseModel] | None]:
    """The path as the file has it (pydantic's location without union tags), and the model it leads to, if it does."""
    path: list[str | int] = []
    here: Any = model
    for part in location:
        here, members = _unwrapped(here)
        if len(members) > 1:
            tagged = [member for member in members if _tag(member) == part]
            if tagged:
                here = tagged[0]
                continue
        if isinstance(part, int):
            arguments = get_args(here)
            here = arguments[0] if arguments else None
        elif isinstance(here, type) and issubclass(here, BaseModel) and part in here.model_fields:
            here = here.model_fields[part].annotation
        else:
            here = None
        path.append(part)
    here, _ = _unwrapped(here)
    is_model = isinstance(here, type) and issubclass(here, BaseModel)
    return tuple(path), here if is_model else None


def _unwrapped(annotation: Any) -> tuple[Any, list[Any]]:
    """The annotation without Annotated and None, and the members of its union (one where it is none)."""
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) in {Union, UnionType}:
        members = [_unwrapped(each)[0] for each in get_args(annotation) if each is not type(None)]
        return (members[0] if len(members) == 1 else annotation), members
    return annotation, [annotation]


def _tag(member: Any) -> str | None:
    if not (isinstance(member, type) and issubclass(member, BaseModel) and "kind" in member.model_fields):
        return None
    kinds = get_args(member.model_fields["kind"].annotation)
    return str(kinds[0]) if get_origin(member.model_fields["kind"].annotation) is Literal else None


__all__ = ["Draft", "nearest", "path_text", "validate"]
