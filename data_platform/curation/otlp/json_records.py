"""Log records of OTLP/JSON, as orjson parsed them: into columns when they are strict, one by one when they are not.

What belongs here: the shape of the JSON. What does not: lines and streams (json_lines.py), columns (columns.py).
"""

from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Any

import orjson

from data_platform.curation.otlp.columns import TRACE_ID_DIGITS, Columns, NotStrictError
from data_platform.curation.otlp.model import RAW_LIMIT, Reason, RecordError
from data_platform.curation.otlp.values import INT64_MAX, text_of

UINT64_DIGITS = 20


def to_columns(records: list[Any]) -> Columns:
    """The records' fields as lists. Raises NotStrictError where a record is not in the Collector's own form."""
    try:
        attributes: list[Any] = [record.get("attributes", ()) for record in records]
        if not set(map(type, attributes)) <= {list, tuple}:
            raise NotStrictError
        flat: list[Any] = list(chain.from_iterable(attributes))
        values: list[Any] = [attribute["value"] for attribute in flat]
        texts: list[Any] = [value.get("stringValue") for value in values]
        if None in texts:
            texts = [_text(values[index]) if text is None else text for index, text in enumerate(texts)]
        return Columns(
            times=[record.get("timeUnixNano", "0") for record in records],
            observed=[record.get("observedTimeUnixNano", "0") for record in records],
            names=[record.get("eventName") for record in records],
            traces=[record.get("traceId") for record in records],
            counts=list(map(len, attributes)),
            keys=[attribute["key"] for attribute in flat],
            texts=texts,
        )
    except (AttributeError, KeyError, TypeError, RecordError):
        raise NotStrictError from None


def _text(value: Any) -> str:
    """`text_of` with a short cut for the integers a Collector writes, which are most of what is not text."""
    number = value.get("intValue")
    # 18 digits always fit, and what does not begin with 0 is canonical.
    if type(number) is str and len(number) < 19 and number.isascii() and number.isdecimal() and number[0] != "0":
        return number
    return text_of(value)


def strict(record: Any) -> dict[str, Any]:
    """The record in the form `to_columns` takes without a look. Raises RecordError saying what OTLP does not allow."""
    if not isinstance(record, dict):
        raise RecordError(Reason.WRONG_TYPE, f"a log record is {type(record).__name__}, not an object")
    return {
        "timeUnixNano": _nanoseconds(record, "timeUnixNano"),
        "observedTimeUnixNano": _nanoseconds(record, "observedTimeUnixNano"),
        "eventName": _text_field(record, "eventName"),
        "traceId": _trace_id(record),
        "attributes": [
            {"key": key, "value": {"stringValue": text_of(value)}} for key, value in attributes_of(record, "log record")
        ],
    }


def attributes_of(owner: Mapping[str, Any], what: str) -> Iterable[tuple[str, Any]]:
    """Keys and AnyValues of a record or resource. Raises RecordError."""
    attributes = owner.get("attributes")
    if attributes is None:
        return
    if not isinstance(attributes, list):
        raise RecordError(Reason.WRONG_TYPE, f"attributes of a {what} are {type(attributes).__name__}, not a list")
    for attribute in attributes:
        if not isinstance(attribute, dict):
            raise RecordError(Reason.WRONG_TYPE, f"an attribute is {type(attribute).__name__}, not an object")
        key = attribute.get("key")
        if key is not None and not isinstance(key, str):
            raise RecordError(Reason.WRONG_TYPE, f"an attribute's key is {type(key).__name__}, not text")
        value = attribute.get("value")
        yield key or "", {} if value is None else value


def service_name(resource_logs: Mapping[str, Any]) -> str | None:
    """Resource attribute service.name; None where there is none or it is not text. Raises RecordError."""
    resource = resource_logs.get("resource")
    if resource is None:
        return None
    if not isinstance(resource, dict):
        raise RecordError(Reason.WRONG_TYPE, f"resource is {type(resource).__name__}, not an object")
    for key, value in attributes_of(resource, "resource"):
        if key == "service.name":
            found = value.get("stringValue") if isinstance(value, dict) else None
            return found if isinstance(found, str) else None
    return None


def raw_text(record: object) -> str:
    """The JSON of a parsed value, at most RAW_LIMIT characters."""
    try:
        return orjson.dumps(record).decode()[:RAW_LIMIT]
    except TypeError:  # orjson reads deeper nesting than it writes
        return repr(record)[:RAW_LIMIT]


def _nanoseconds(record: Mapping[str, Any], name: str) -> str:
    value = record.get(name)
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


def _text_field(record: Mapping[str, Any], name: str) -> str | None:
    value = record.get(name)
    if value is not None and not isinstance(value, str):
        raise RecordError(Reason.WRONG_TYPE, f"{name} is {type(value).__name__}, not text")
    return value


def _trace_id(record: Mapping[str, Any]) -> str | None:
    value = _text_field(record, "traceId")
    if not value:
        return None
    try:
        hexadecimal = value.isalnum() and len(bytes.fromhex(value)) * 2 == TRACE_ID_DIGITS
    except ValueError:
        hexadecimal = False
    if not hexadecimal:
        raise RecordError(Reason.WRONG_TYPE, f"traceId is not {TRACE_ID_DIGITS} hexadecimal digits: {value[:60]!r}")
    return value


class JsonForm:
    """The records of OTLP/JSON, for a Block."""

    to_columns = staticmethod(to_columns)
    strict = staticmethod(strict)
    raw = staticmethod(raw_text)

    @staticmethod
    def empty() -> dict[str, Any]:
        """A record without anything."""
        return {}
