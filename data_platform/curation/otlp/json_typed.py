"""OTLP/JSON in the form that nearly all lines have, decoded into records that hold only what an event needs.

What belongs here: that form. What does not: whatever else OTLP allows or forbids, which json_records.py looks at.
"""

from itertools import chain
from operator import attrgetter
from typing import Any

import msgspec

from data_platform.curation.otlp.columns import Columns, NotStrictError
from data_platform.curation.otlp.model import RecordError
from data_platform.curation.otlp.values import nanoseconds, text_of

UNSET = msgspec.UNSET


class Value(msgspec.Struct, gc=False, rename="camel"):
    """An AnyValue."""

    string_value: str | msgspec.UnsetType = UNSET
    bool_value: Any = UNSET
    int_value: Any = UNSET
    double_value: Any = UNSET
    array_value: Any = UNSET
    kvlist_value: Any = UNSET
    bytes_value: Any = UNSET


class Attribute(msgspec.Struct, gc=False):
    """A key and its value."""

    key: str
    value: Value


class Record(msgspec.Struct, gc=False, rename="camel"):
    """A log record."""

    time_unix_nano: str = ""
    observed_time_unix_nano: Any = None
    event_name: str | None = None
    trace_id: str | None = None
    attributes: list[Attribute] = []


class _Scope(msgspec.Struct, gc=False, rename="camel"):
    log_records: list[Record]


class _Owner(msgspec.Struct, gc=False):
    attributes: list[Attribute] = []


class _Resource(msgspec.Struct, gc=False, rename="camel"):
    scope_logs: list[_Scope]
    resource: _Owner = msgspec.field(default_factory=_Owner)


class _Document(msgspec.Struct, gc=False, rename="camel"):
    resource_logs: list[_Resource]


_decode = msgspec.json.Decoder(_Document).decode
_ATTRIBUTES = attrgetter("attributes")


def typed_scopes(line: bytes) -> list[tuple[str | None, list[Record]]] | None:
    """Service and records of each scope of a line's document; None where the line has to be looked at closely.

    What an event does not need is passed over: it is only made sure that the line is text.
    """
    try:
        if not line.isascii():
            line.decode()
        document = _decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return [
        (_service(resource.resource), scope.log_records)
        for resource in document.resource_logs
        for scope in resource.scope_logs
        if scope.log_records
    ]


def _service(resource: _Owner) -> str | None:
    for attribute in resource.attributes:
        if attribute.key == "service.name":
            found = attribute.value.string_value
            return None if isinstance(found, msgspec.UnsetType) else found
    return None


def extract_typed(records: list[Record], columns: Columns) -> None:
    """Append the records' fields, all or none. Raises NotStrictError where a value needs a closer look."""
    flat: list[Attribute] = list(chain.from_iterable(map(_ATTRIBUTES, records)))
    try:
        # Most values are text; what is not, and the empty text, takes the longer way.
        texts = [attribute.value.string_value or _other(attribute.value) for attribute in flat]
        times = [record.time_unix_nano for record in records]
        if "0" in times or "" in times:
            times = [_time_or_observed(record) for record in records]
    except RecordError:
        raise NotStrictError from None
    columns.times += times
    columns.names += [record.event_name for record in records]
    columns.traces += [record.trace_id for record in records]
    columns.counts += [len(record.attributes) for record in records]
    columns.keys += [attribute.key for attribute in flat]
    columns.texts += texts


def _other(value: Value) -> str:
    """`text_of` with a short cut for the integers a Collector writes: most of what is not text.

    18 digits always fit, and what does not begin with 0 is canonical.
    """
    number = value.int_value
    if (
        isinstance(number, str)
        and value.string_value is UNSET
        and value.bool_value is UNSET
        and len(number) < 19
        and number.isascii()
        and number.isdecimal()
        and number[0] != "0"
    ):
        return number
    return text_of(msgspec.to_builtins(value))


def _time_or_observed(record: Record) -> str:
    time = nanoseconds(record.time_unix_nano, "timeUnixNano")
    return nanoseconds(record.observed_time_unix_nano, "observedTimeUnixNano") if time == "0" else time
