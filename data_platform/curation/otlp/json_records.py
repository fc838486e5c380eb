"""Log records of OTLP/JSON, as orjson parsed them: into columns when they are strict, one by one when they are not.

What belongs here: the shape of the JSON. What does not: lines and streams (json_lines.py), columns (columns.py).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from operator import itemgetter
from typing import Any

import msgspec
import orjson

from data_platform.curation.otlp.columns import TRACE_ID_DIGITS, Columns, NotStrictError
from data_platform.curation.otlp.json_typed import Record, extract_typed, typed_scopes
from data_platform.curation.otlp.model import RAW_LIMIT, Reason, RecordError
from data_platform.curation.otlp.values import nanoseconds, text_of

Tell = Callable[[Reason, str, object], None]  # reason, detail, what it is about
_KEY, _VALUE = itemgetter("key"), itemgetter("value")


def extract(records: list[Any], columns: Columns) -> None:
    """Append the fields of records of one kind, all or none. Raises NotStrictError unless all are as a Collector's."""
    if isinstance(records[0], Record):
        extract_typed(records, columns)
        return
    try:
        attributes: list[Any] = [record.get("attributes", ()) for record in records]
        if not set(map(type, attributes)) <= {list, tuple}:
            raise NotStrictError
        flat: list[Any] = list(chain.from_iterable(attributes))
        keys: list[Any] = list(map(_KEY, flat))
        texts: list[Any] = [value.get("stringValue") or text_of(value) for value in map(_VALUE, flat)]
        times: list[Any] = [record.get("timeUnixNano") for record in records]
        if "0" in times or not set(map(type, times)) <= {str}:
            times = [_time_or_observed(record) for record in records]
        names: list[Any] = [record.get("eventName") for record in records]
        traces: list[Any] = [record.get("traceId") for record in records]
    except (AttributeError, KeyError, TypeError, RecordError):
        raise NotStrictError from None
    columns.times += times
    columns.names += names
    columns.traces += traces
    columns.counts += map(len, attributes)
    columns.keys += keys
    columns.texts += texts


def _time_or_observed(record: dict[str, Any]) -> str:
    time = nanoseconds(record.get("timeUnixNano"), "timeUnixNano")
    return nanoseconds(record.get("observedTimeUnixNano"), "observedTimeUnixNano") if time == "0" else time


def strict(record: Any) -> dict[str, Any]:
    """The record in the form `extract` takes without a look. Raises RecordError saying what OTLP does not allow."""
    if isinstance(record, Record):
        record = msgspec.to_builtins(record)
    if not isinstance(record, dict):
        raise RecordError(Reason.WRONG_TYPE, f"a log record is {type(record).__name__}, not an object")
    return {
        "timeUnixNano": _time_or_observed(record),
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
    try:
        for attribute in resource_logs["resource"]["attributes"]:
            if attribute["key"] == "service.name":
                found = attribute["value"]["stringValue"]
                return found if isinstance(found, str) else None
    except (KeyError, TypeError):
        return _looked_for_service_name(resource_logs.get("resource"))
    return None


def _looked_for_service_name(resource: Any) -> str | None:
    """The same, said why where the resource is not as it should be."""
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


def scopes(document: dict[str, Any], report: Tell) -> Iterator[tuple[str | None, list[Any]]]:
    """Service and log records of each scope of a document, in order; what is no part of OTLP goes to `report`."""
    for resource in _objects(document, "resourceLogs", report):
        try:
            service = service_name(resource)
        except RecordError as error:
            report(error.reason, error.detail, resource.get("resource"))
            service = None  # each of its records is then rejected too, so that none is lost
        for scope in _objects(resource, "scopeLogs", report):
            records = _list(scope, "logRecords", report)
            if records:
                yield service, records


def _objects(owner: dict[str, Any], name: str, report: Tell) -> list[dict[str, Any]]:
    found = _list(owner, name, report)
    if all([isinstance(item, dict) for item in found]):  # noqa: C419 - a list is quicker for the one or two there are
        return found
    for item in found:
        if not isinstance(item, dict):
            report(Reason.WRONG_TYPE, f"{name} holds {type(item).__name__}, not an object", item)
    return [item for item in found if isinstance(item, dict)]


def _list(owner: dict[str, Any], name: str, report: Tell) -> list[Any]:
    found = owner.get(name)
    if isinstance(found, list):
        return found
    # A container with contents under another name holds something that nobody would see.
    if found is not None or owner.keys() - {name, "resource", "scope", "schemaUrl"}:
        report(Reason.WRONG_TYPE, f"{name} is missing or not a list", owner)
    return []


@dataclass(frozen=True)
class OneRecord:
    """The text of a record that was read by itself; text of whole lines is plain bytes."""

    text: bytes


class JsonForm:
    """The records of OTLP/JSON, for a Block. An origin is the text of whole lines, or of one record.

    Lines are kept together as they were read: a text for each, held until the block is emptied, costs as much as
    parsing it.
    """

    extract = staticmethod(extract)
    strict = staticmethod(strict)
    raw = staticmethod(raw_text)

    def __init__(self) -> None:
        self._found: tuple[bytes | OneRecord, list[tuple[Any, int]]] = (b"", [])

    @staticmethod
    def empty() -> dict[str, Any]:
        """A record without anything."""
        return {}

    def find(self, origin: bytes | OneRecord, index: int) -> Any:
        """A record of the origin again."""
        return self._read(origin)[index][0]

    def lines_before(self, origin: bytes | OneRecord, index: int) -> int:
        """How many lines of the origin stand before the record's own."""
        return self._read(origin)[index][1]

    def _read(self, origin: bytes | OneRecord) -> list[tuple[Any, int]]:
        """Parse the origin again; the last one is kept, since rejects come in the order of the object."""
        if self._found[0] is not origin:
            if isinstance(origin, OneRecord):
                self._found = (origin, [(orjson.loads(origin.text), 0)])
            else:
                self._found = (origin, list(_records_again(origin)))
        return self._found[1]


def _records_again(text: bytes) -> Iterator[tuple[Any, int]]:
    """The records of whole lines, each with the number of lines before; what is no document was reported before."""
    for number, one in enumerate(text.split(b"\n")):
        try:
            document = orjson.loads(one)
        except orjson.JSONDecodeError:
            # Something that no event needs, so that it was passed over.
            for _, found in typed_scopes(one) or ():
                for record in found:
                    yield msgspec.to_builtins(record), number
            continue
        if isinstance(document, dict) and "resourceLogs" in document:
            for _, records in scopes(document, _unheard):
                for record in records:
                    yield record, number


def _unheard(_reason: Reason, _detail: str, _raw: object) -> None:
    """For a second reading: everything was reported in the first."""
