"""OTLP/JSON as a stream: lines of documents, or documents too large or too pretty for lines, in bounded memory.

What belongs here: finding records in the stream and telling where each was. What does not: their fields.
"""

from collections.abc import Iterator
from typing import Any

import orjson

from data_platform.curation.otlp.block import Block
from data_platform.curation.otlp.json_records import OneRecord, raw_text, scopes, service_name
from data_platform.curation.otlp.json_split import SplitError, Splitter
from data_platform.curation.otlp.json_typed import typed_scopes
from data_platform.curation.otlp.model import Fault, Reason, RecordError
from data_platform.curation.otlp.source import Source, printable

READ_BYTES = 1 << 20
# Parsed JSON takes ten times the memory of its text; beyond this a line is taken apart record by record instead.
LINE_LIMIT = 8 << 20
BLANK = b" \t\r"


def read_json(source: Source, block: Block, *, pretty: bool) -> Iterator[None]:
    """Put every record into `block`; yields whenever the block may be emptied."""
    if pretty:
        yield from _Large(block, None).read(source, b"", to_newline=False)
        return
    pending = b""
    line = 1  # of what is read next
    while piece := source.read_some(READ_BYTES):
        whole, newline, pending = (pending + piece).rpartition(b"\n")
        if newline:
            line += _read_lines(whole, line, block)
        if len(pending) > LINE_LIMIT:
            large = _Large(block, line)
            yield from large.read(source, pending, to_newline=True)
            pending = large.rest
            line += 1
        yield
    if pending:
        _read_lines(pending, line, block)
    yield


def _read_lines(text: bytes, line: int, block: Block) -> int:
    """Put the records of whole lines into `block`; `line` is the number of the first. Returns how many lines."""
    records = 0
    lines = text.split(b"\n")
    for number, one in enumerate(lines):
        typed = typed_scopes(one)
        if typed is not None:
            for service, found in typed:
                block.add(found, service, line, text, records)
                records += len(found)
            continue
        try:
            document = orjson.loads(one)
        except orjson.JSONDecodeError as error:
            if bare := one.strip(BLANK):
                block.report(Fault(Reason.INVALID_JSON, str(error), printable(bare), line=line + number))
            continue
        records = _read_document(document, text, line, number, records, block)
    block.size += len(text)
    return len(lines)


def _read_document(document: Any, text: bytes, line: int, number: int, records: int, block: Block) -> int:
    """The long way, for any document; it is line `number` of `text`. Returns how many records `text` has had so far."""

    def report(reason: Reason, detail: str, found: object) -> None:
        block.report(Fault(reason, detail, raw_text(found), line=line + number))

    if not isinstance(document, dict) or "resourceLogs" not in document:
        renamed = isinstance(document, dict) and "resource_logs" in document
        hint = "; names in OTLP/JSON are lowerCamelCase" if renamed else ""
        report(Reason.NOT_LOGS, f"no resourceLogs in the document{hint}", document)
        return records
    for service, found in scopes(document, report):
        block.add(found, service, line, text, records)
        records += len(found)
    return records


class _Large:
    """A document that is read record by record. `rest` is what was read beyond its line."""

    def __init__(self, block: Block, line: int | None) -> None:
        self._block = block
        self._line = line
        self._service: str | None = None
        self._records = 0
        self.rest = b""

    def read(self, source: Source, first: bytes, *, to_newline: bool) -> Iterator[None]:
        """Up to the end of the line, or of the object. Raises nothing: what cannot be read is reported."""
        splitter = Splitter()
        offset = source.offset - len(first)
        reading = True
        for piece in _pieces(source, first):
            data, newline, self.rest = piece.partition(b"\n") if to_newline else (piece, b"", b"")
            if reading:
                try:
                    for found in splitter.feed(data):
                        self._take(found.kind, found.json)
                        if self._block.full:
                            yield
                except SplitError as error:
                    reading = False
                    self._report(Reason.INVALID_JSON, str(error), piece, offset)
            if newline:
                break
        if reading:
            try:
                splitter.finish()
            except SplitError as error:
                self._report(Reason.INVALID_JSON, str(error), first, offset)
        if not self._records:
            self._report(Reason.NOT_LOGS, "no log record in the document", first, offset)
        yield

    def _take(self, kind: str, text: bytes) -> None:
        if kind == "end":
            self._service = None
            return
        try:
            found = orjson.loads(text)
            if kind == "resource":
                self._service = service_name({"resource": found})
                return
        except orjson.JSONDecodeError as error:
            self._block.report(Fault(Reason.INVALID_JSON, str(error), printable(text), line=self._line))
            return
        except RecordError as error:
            self._block.report(Fault(error.reason, error.detail, printable(text), line=self._line))
            return
        self._block.add([found], self._service, self._line, OneRecord(text))
        self._block.size += len(text)
        self._records += 1

    def _report(self, reason: Reason, detail: str, raw: bytes, offset: int) -> None:
        self._block.report(Fault(reason, detail, printable(raw), line=self._line, offset=offset))


def _pieces(source: Source, first: bytes) -> Iterator[bytes]:
    """`first`, then what the source has, in pieces."""
    if first:
        yield first
    while piece := source.read_some(READ_BYTES):
        yield piece
