"""One OTLP object from its first byte to its last: which form it has, then its events in batches.

What belongs here: telling the forms apart, batching. What does not: the forms themselves.
"""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO, Literal

from data_platform.curation.otlp.block import Block
from data_platform.curation.otlp.json_lines import read_json
from data_platform.curation.otlp.json_records import JsonForm
from data_platform.curation.otlp.model import EventBatch, Fault, Reason, Reject
from data_platform.curation.otlp.protobuf import ProtobufForm, read_protobuf
from data_platform.curation.otlp.source import Source, printable

if TYPE_CHECKING:
    import pyarrow as pa

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


def read_events(open_stream: BinaryIO, object_key: str, *, batch_rows: int = BATCH_ROWS) -> Iterator[EventBatch]:
    """The events of an object in batches of about `batch_rows`, in its order, each with what was rejected before it.

    The form is told by content: OTLP/JSON lines (or one document), OTLP/protobuf (one request, or delimited ones),
    gzip or plain. Memory stays below a bound that does not depend on the object's size. Raises only what
    `open_stream.read` raises; whatever is wrong with the contents is a reject.
    """
    source = Source(open_stream)
    kind = tell(source.peek(HEAD_BYTES))
    block = Block(object_key, JsonForm() if kind in {"json", "pretty"} else ProtobufForm(), batch_rows)
    gathered = _Gathered(batch_rows)
    for _ in _read(source, block, kind):
        if block.full:
            yield from gathered.add(block.take())
    if source.damage is not None:
        block.report(source.damage)
    yield from gathered.add(block.take())
    yield from gathered.rest()


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


class _Gathered:
    """Small batches put together until they have the rows that were asked for."""

    def __init__(self, rows: int) -> None:
        self._wanted = rows
        self._batches: list[pa.RecordBatch] = []
        self._rejects: list[Reject] = []
        self._rows = 0

    def add(self, part: EventBatch | None) -> Iterator[EventBatch]:
        """Yields what is complete."""
        if part is None:
            return
        self._batches.append(part.batch)
        self._rejects += part.rejects
        self._rows += part.batch.num_rows
        if self._rows >= self._wanted or len(self._rejects) >= self._wanted:
            yield from self.rest()

    def rest(self) -> Iterator[EventBatch]:
        """Yields what is left, if anything is."""
        import pyarrow as pa

        if self._batches:
            batch = pa.concat_batches(self._batches) if len(self._batches) > 1 else self._batches[0]
            yield EventBatch(batch, self._rejects)
        self._batches, self._rejects, self._rows = [], [], 0
