"""Records found in an object, collected until they are worth a batch, then made into columns.

Parsed records are let go as soon as their fields are in lists: holding two megabytes of them makes parsing itself three
times slower (the allocator leaves the caches). What is rejected later is parsed again from its origin.
What belongs here: positions, batches, the way from a bad record to its reject. What does not: formats.
"""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Protocol

from data_platform.curation.otlp.columns import Columns, NotStrictError, assemble
from data_platform.curation.otlp.model import EventBatch, Fault, Reason, RecordError

if TYPE_CHECKING:
    import pyarrow as pa

# Text of the records in one block, and records whose fields are taken at once.
BLOCK_BYTES = 2 << 20
EXTRACT_RECORDS = 32
DETAILS = {
    Reason.MISSING_SERVICE: "the resource has no service.name",
    Reason.MISSING_TIME: "neither timeUnixNano nor observedTimeUnixNano",
    Reason.MISSING_NAME: "neither an event name nor the attribute event.name",
}


class Form(Protocol):
    """What a format offers."""

    def extract(self, records: list[Any], columns: Columns) -> None:
        """Append the records' fields, all or none. Raises NotStrictError where a record needs a closer look."""
        ...

    def strict(self, record: Any) -> Any:
        """The record as `extract` takes it. Raises RecordError saying what OTLP does not allow."""
        ...

    def empty(self) -> Any:
        """A record without anything."""
        ...

    def find(self, origin: Any, index: int) -> Any:
        """A record of an origin again."""
        ...

    def lines_before(self, origin: Any, index: int) -> int:
        """How many lines of an origin stand before a record's own."""
        ...

    def raw(self, record: Any) -> str:
        """The record for a reject, bounded."""
        ...


class Block:
    """Collects records in the order of the object; `take` empties it."""

    def __init__(self, object_key: str, form: Form, rows: int) -> None:
        """`rows` records make it full, whatever their size."""
        self._form = form
        self._rows = rows
        self._object_key = object_key
        self._faults: list[Fault] = []
        self.position = 0  # of the next record
        self._start()

    def _start(self) -> None:
        self.size = 0  # bytes of the records' text
        self._first = self.position
        self._columns = Columns()
        self._pending: list[Any] = []
        self._rejected: set[int] = set()
        # One entry for each run of records of one service and origin: where it begins, and where it is from.
        self._starts: list[int] = []
        self._services: list[str | None] = []
        self._lines: list[int | None] = []
        self._origins: list[tuple[Any, int]] = []
        self._origin: Any = None  # of the last run

    @property
    def full(self) -> bool:
        """Whether it should be emptied before more is read."""
        return self.size >= BLOCK_BYTES or max(self.position - self._first, len(self._faults)) >= self._rows

    def add(self, records: Sequence[Any], service: str | None, line: int | None, origin: Any, first: int = 0) -> None:
        """Further records of one service, in order; the first of them is record `first` of `origin` (see Form.find).

        `line` is the origin's first line. All records of an origin are added, so a run of one service goes on.
        """
        if origin is not self._origin or service != self._services[-1]:
            self._origin = origin
            self._starts.append(self.position - self._first)
            self._services.append(service)
            self._lines.append(line)
            self._origins.append((origin, first))
        if self._pending and records and type(records[0]) is not type(self._pending[0]):
            self._extract()  # takes records of one kind
        self._pending += records
        self.position += len(records)
        if len(self._pending) >= EXTRACT_RECORDS:
            self._extract()

    def report(self, fault: Fault) -> None:
        """Something that is no record."""
        self._faults.append(fault)

    def take(self) -> EventBatch | None:
        """The events and rejects so far; None when there are none of either."""
        if not self._starts and not self._faults:
            return None
        self._extract()
        try:
            batch = self._assemble()
        except NotStrictError:
            self._look_closely_at_all()
            batch = self._assemble()
        rejects = [fault.within(self._object_key) for fault in self._faults]
        self._faults = []
        self._start()
        return EventBatch(batch, rejects)

    def _extract(self) -> None:
        pending, self._pending = self._pending, []
        if not pending:
            return
        try:
            self._form.extract(pending, self._columns)
        except NotStrictError:
            self._look_closely(pending)

    def _look_closely(self, records: list[Any]) -> None:
        """Record by record; one that is rejected keeps its place as an empty one, which becomes no event."""
        strict: list[Any] = []
        for index, record in enumerate(records, start=len(self._columns.names)):
            try:
                strict.append(self._form.strict(record))
            except RecordError as error:
                self._rejected.add(index)
                strict.append(self._form.empty())
                self._reject(index, self._find(index), error.reason, error.detail)
        self._form.extract(strict, self._columns)

    def _look_closely_at_all(self) -> None:
        """After a value that no column takes: all records once more, from their origins."""
        count = len(self._columns.names)
        self._columns = Columns()
        for start in range(0, count, EXTRACT_RECORDS):
            indexes = range(start, min(start + EXTRACT_RECORDS, count))
            self._look_closely(
                [self._form.empty() if index in self._rejected else self._find(index) for index in indexes]
            )

    def _assemble(self) -> "pa.RecordBatch":
        count = self.position - self._first
        lengths = [end - start for start, end in pairwise([*self._starts, count])]
        assembled = assemble(self._columns, self._services, lengths, self._object_key, self._first)
        for index, reason in assembled.lacking:
            if index not in self._rejected:
                self._reject(index, self._find(index), reason, DETAILS[reason])
        return assembled.batch

    def _find(self, index: int) -> Any:
        return self._form.find(*self._place(index))

    def _place(self, index: int) -> tuple[Any, int]:
        """The origin of a record, and which of its records it is."""
        run = bisect_right(self._starts, index) - 1
        origin, first = self._origins[run]
        return origin, first + index - self._starts[run]

    def _reject(self, index: int, record: Any, reason: Reason, detail: str) -> None:
        line = self._lines[bisect_right(self._starts, index) - 1]
        if line is not None:
            line += self._form.lines_before(*self._place(index))
        self.report(Fault(reason, detail, self._form.raw(record), self._first + index, line))
