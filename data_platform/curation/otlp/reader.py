"""One OTLP object from its first byte to its last: which form it has, then its events in batches.

What belongs here: telling the forms apart, batching. What does not: the forms themselves.
"""

import gc
import re
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import BinaryIO, Literal

from data_platform.curation.otlp.block import Block
from data_platform.curation.otlp.json_lines import read_json
from data_platform.curation.otlp.json_records import JsonForm
from data_platform.curation.otlp.model import EventBatch, Fault, Reason
from data_platform.curation.otlp.protobuf import ProtobufForm, read_protobuf
from data_platform.curation.otlp.source import Source, printable

Kind = Literal["empty", "json", "pretty", "none", "varint", "fixed32", "unknown"]
HEAD_BYTES = 4096
BATCH_ROWS = 65_536
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# A quote is followed by a name, never by a control character: the length 0x22 in a protobuf message is.
_DOCUMENT = re.compile(rb'[ \t\r\n]*\{[ \t\r\n]*("[^\x00-\x1f]|\}|\Z)')
# The first line ends inside the document and the second goes on with a name.
_PRETTY = re.compile(rb'\s*\{[ \t\r]*("[^"\n]*"[ \t]*:[ \t]*\[[ \t\r]*)?\n\s*["{]')
_REQUEST_TAG = 0x0A  # field 1, with a length: what every request begins with
_FIXED32_TAG_AT = 4
_END = object()


def read_events(open_stream: BinaryIO, object_key: str, *, batch_rows: int = BATCH_ROWS) -> Iterator[EventBatch]:
    """The events of an object in its order, each batch with what was rejected within it.

    A batch holds what two megabytes of text hold, or about `batch_rows` if that is less; gather them in a Table, which
    copies nothing. The form is told by content: OTLP/JSON lines (or one document), OTLP/protobuf (one request, or
    delimited ones), gzip or plain. Memory stays below a bound that does not depend on the object's size. Raises only
    what `open_stream.read` raises; whatever is wrong with the contents is a reject.
    """
    source = Source(open_stream)
    kind = tell(source.peek(HEAD_BYTES))
    block = Block(object_key, JsonForm() if kind in {"json", "pretty"} else ProtobufForm(), batch_rows)
    steps = _read(source, block, kind)
    going = True
    while going:
        with _collector_paused():
            going = next(steps, _END) is not _END
            if not going and source.damage is not None:
                block.report(source.damage)
            part = block.take() if block.full or not going else None
        if part is not None:
            yield part


@contextmanager
def _collector_paused() -> Generator[None]:
    """Parsed records have no cycles and are freed at once; walking them in search of some costs up to half the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _read(source: Source, block: Block, kind: Kind) -> Iterator[None]:
    if kind in {"json", "pretty"}:
        if source.peek(len(BYTE_ORDER_MARK)) == BYTE_ORDER_MARK:
            source.read(len(BYTE_ORDER_MARK))
        yield from read_json(source, block, pretty=kind == "pretty")
    elif kind == "unknown":
        head = printable(source.peek(HEAD_BYTES))
        block.report(Fault(Reason.UNKNOWN_FORMAT, "neither OTLP/JSON nor OTLP/protobuf", head, offset=0))
    elif kind != "empty":
        yield from read_protobuf(source, block, delimiter=kind)


def tell(head: bytes) -> Kind:
    """The form of an object by its first bytes: JSON, or protobuf and what stands between its messages.

    A request of protobuf begins with 0x0A, which is also a line feed; a delimited one has its length before that.
    Text that is neither is taken for JSON lines, so that each bad line is reported by itself.
    """
    if not head:
        return "empty"
    text = head.removeprefix(BYTE_ORDER_MARK)
    if _DOCUMENT.match(text):
        return "pretty" if _PRETTY.match(text) else "json"
    if head[0] == _REQUEST_TAG and not _is_text(head):
        return "none"
    if head[_FIXED32_TAG_AT : _FIXED32_TAG_AT + 1] == b"\x0a" and head[0] == 0:
        return "fixed32"
    after_varint = next((index + 1 for index, byte in enumerate(head[:10]) if byte < 0x80), len(head))
    if head[after_varint : after_varint + 1] == b"\x0a" and not _is_text(head):
        return "varint"
    return "json" if _is_text(head) else "unknown"


def _is_text(head: bytes) -> bool:
    """UTF-8 without control characters other than white space; the last character may be cut."""
    try:
        text = head.decode("utf-8", errors="strict" if len(head) < HEAD_BYTES else "ignore")
    except UnicodeDecodeError:
        return False
    return not any(character < " " and character not in "\t\r\n" for character in text)
