"""OTLP's AnyValue as text, the same from JSON and from protobuf.

Text as it is; integers in decimal; floats in the shortest form that reads back, NaN and Infinity by name; true and
false; bytes in base64; arrays and key-value lists as JSON; nothing as the empty text.
"""

import re
from base64 import b64decode, b64encode
from collections.abc import Callable
from math import isfinite, isnan
from typing import TYPE_CHECKING, Any

import orjson

from data_platform.curation.otlp.model import Reason, RecordError

if TYPE_CHECKING:
    from opentelemetry.proto.common.v1.common_pb2 import AnyValue

MAXIMUM_DEPTH = 32
INT64_MAX = 2**63 - 1
INT64_MIN = -(2**63)
UINT64_DIGITS = 20
_INTEGER = re.compile(r"-?[0-9]{1,19}", re.ASCII)
_FLOATS = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}
_FLOAT = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?", re.ASCII)


def text_of(value: Any) -> str:
    """An AnyValue of JSON (`{"intValue": "42"}`) as text. Raises RecordError for what OTLP does not allow."""
    return _text(from_json(value, 0))


def text_of_message(value: "AnyValue") -> str:
    """An AnyValue of protobuf as text. Raises RecordError when it is nested too deeply."""
    return _text(from_message(value, 0))


def _text(value: Any) -> str:
    match value:
        case str():
            return value
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float():
            return _named(value) or repr(value)
        case _:
            return orjson.dumps(value).decode()


def _named(value: float) -> str | None:
    """The name of a float that JSON has no number for."""
    if isfinite(value):
        return None
    return "NaN" if isnan(value) else "Infinity" if value > 0 else "-Infinity"


def from_json(value: Any, depth: int) -> Any:
    """The Python value of a JSON AnyValue; the first of its fields in the order of the protocol counts."""
    if not isinstance(value, dict):
        raise RecordError(Reason.WRONG_TYPE, f"an attribute's value is {_kind(value)}, not an object")
    for name, read in _READERS:
        found = value.get(name)
        if found is not None:
            return read(found, depth)
    return None


def from_message(value: "AnyValue", depth: int) -> Any:
    """The Python value of a protobuf AnyValue."""
    _check_depth(depth)
    match value.WhichOneof("value"):
        case None:
            return None
        case "array_value":
            return [_inner(from_message(item, depth + 1)) for item in value.array_value.values]
        case "kvlist_value":
            return {item.key: _inner(from_message(item.value, depth + 1)) for item in value.kvlist_value.values}
        case "bytes_value":
            return b64encode(value.bytes_value).decode()
        case name:
            return getattr(value, name)


def _inner(value: Any) -> Any:
    """A value inside an array or list: JSON has no number for NaN."""
    return _named(value) or value if isinstance(value, float) else value


def _check_depth(depth: int) -> None:
    if depth > MAXIMUM_DEPTH:
        raise RecordError(Reason.WRONG_TYPE, f"an attribute is nested more than {MAXIMUM_DEPTH} deep")


def _kind(value: object) -> str:
    name = type(value).__name__
    return {"dict": "an object", "list": "an array", "str": "text", "NoneType": "null"}.get(name, name)


def _wrong(name: str, value: object) -> RecordError:
    shown = repr(value)[:60]
    return RecordError(Reason.WRONG_TYPE, f"{name} is {_kind(value)}: {shown}")


def _string(value: Any, _depth: int) -> str:
    if not isinstance(value, str):
        raise _wrong("stringValue", value)
    return value


def integer(value: Any, name: str = "intValue") -> int:
    """A 64-bit integer of OTLP/JSON: decimal text, or a number. Raises RecordError."""
    if isinstance(value, str) and _INTEGER.fullmatch(value):
        number = int(value)
    elif isinstance(value, int) and not isinstance(value, bool):
        number = value
    else:
        raise _wrong(name, value)
    if not INT64_MIN <= number <= INT64_MAX:
        raise RecordError(Reason.WRONG_TYPE, f"{name} {number} does not fit 64 bits")
    return number


def nanoseconds(value: Any, name: str) -> str:
    """A time of OTLP/JSON in decimal, "0" for none. Raises RecordError."""
    if value is None or value == "":
        return "0"
    digits = str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
    if not (digits.isascii() and digits.isdecimal()):
        raise RecordError(Reason.WRONG_TYPE, f"{name} is no number of nanoseconds: {str(value)[:60]!r}")
    digits = digits.lstrip("0") or "0"
    # A text of thousands of digits is not converted: int() refuses it with an error of its own.
    if len(digits) > UINT64_DIGITS or int(digits) > INT64_MAX:
        raise RecordError(Reason.TIME_OUT_OF_RANGE, f"{name} {digits[:60]} is beyond the year 2262")
    return digits


def _integer(value: Any, _depth: int) -> int:
    return integer(value)


def _double(value: Any, _depth: int) -> float:
    if isinstance(value, str) and value in _FLOATS:
        return _FLOATS[value]
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, str) and _FLOAT.fullmatch(value):
        return float(value)
    raise _wrong("doubleValue", value)


def _bool(value: Any, _depth: int) -> bool:
    if not isinstance(value, bool):
        raise _wrong("boolValue", value)
    return value


def _bytes(value: Any, _depth: int) -> str:
    try:
        # Both alphabets and missing padding are allowed by protobuf's JSON.
        standard = value.rstrip("=").replace("-", "+").replace("_", "/")
        return b64encode(b64decode(standard + "=" * (-len(standard) % 4), validate=True)).decode()
    except (AttributeError, TypeError, ValueError):
        raise _wrong("bytesValue", value) from None


def _values(value: Any, name: str) -> list[Any]:
    found = value.get("values", []) if isinstance(value, dict) else value
    found = [] if found is None else found
    if not isinstance(found, list) or not isinstance(value, dict):
        raise _wrong(name, value)
    return found


def _array(value: Any, depth: int) -> list[Any]:
    _check_depth(depth + 1)
    return [_inner(from_json(item, depth + 1)) for item in _values(value, "arrayValue")]


def _list(value: Any, depth: int) -> dict[str, Any]:
    _check_depth(depth + 1)
    found: dict[str, Any] = {}
    for item in _values(value, "kvlistValue"):
        key = item.get("key", "") if isinstance(item, dict) else None
        if not isinstance(key, str):
            raise _wrong("kvlistValue", item)
        found[key] = _inner(from_json(item.get("value") or {}, depth + 1))
    return found


_READERS: tuple[tuple[str, Callable[[Any, int], Any]], ...] = (
    ("stringValue", _string),
    ("boolValue", _bool),
    ("intValue", _integer),
    ("doubleValue", _double),
    ("arrayValue", _array),
    ("kvlistValue", _list),
    ("bytesValue", _bytes),
)
