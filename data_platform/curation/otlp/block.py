"""Records found in an object, collected until they are worth a batch, then made into columns.

What belongs here: positions, batches, the way from a bad record to its reject. What does not: formats.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from data_platform.curation.otlp.columns import Columns, NotStrictError, Runs, assemble
from data_platform.curation.otlp.model import EventBatch, Fault, Reason, RecordError

if TYPE_CHECKING:
    import pyarrow as pa

# Text of the records in one block. Parsed they take ten times as much; smaller blocks also stay in the cache.
BLOCK_BYTES = 2 << 20
# A block that does not fit as it is is halved down to this, so that one odd record does not slow down the rest.
CLOSE_LOOK = 128
DETAILS = {
    Reason.MISSING_SERVICE: "the resource has no service.name",
    Reason.MISSING_TIME: "neither timeUnixNano nor observedTimeUnixNano",
    Reason.MISSING_NAME: "neither an event name nor the attribute event.name",
}


class Form(Protocol):
    """What a format offers: records into columns, one record made strict, one record as text."""

    def to_columns(self, records: list[Any]) -> Columns:
        """The records' fields. Raises NotStrictError."""
        ...

    def strict(self, record: Any) -> Any:
        """The record as `to_columns` takes it. Raises RecordError."""
        ...

    def empty(self) -> Any:
        """A record without anything."""
        ...

    def raw(self, record: Any) -> str:
        """The record for a reject, bounded."""
        ...


class Block:
    """Collects records in the order of the object; `take` empties it."""

    def __init__(self, object_key: str, form: Form) -> None:
        self._form = form
        self._object_key = object_key
        self._records: list[Any] = []
        self._runs = Runs(object_key)
        self._faults: list[Fault] = []
        self.size = 0  # bytes of the records' text
        self.position = 0  # of the next record

    @property
    def full(self) -> bool:
        """Whether it should be emptied before more is read."""
        return self.size >= BLOCK_BYTES

    def add(self, records: Sequence[Any], service: str | None, line: int | None = None) -> None:
        """Further records of one service, in order."""
        self._records += records
        self._runs.add(service, line, len(records))
        self.position += len(records)

    def report(self, fault: Fault) -> None:
        """Something that is no record."""
        self._faults.append(fault)

    def take(self) -> EventBatch | None:
        """The events and rejects so far; None when there are none of either."""
        if not self._records and not self._faults:
            return None
        import pyarrow as pa

        batches = self._decode(self._records, 0)
        batch = batches[0] if len(batches) == 1 else pa.concat_batches(batches)
        rejects = [fault.within(self._object_key) for fault in self._faults]
        self._records, self._faults, self.size = [], [], 0
        self._runs = Runs(self._object_key, first_position=self.position)
        return EventBatch(batch, rejects)

    def _decode(self, records: list[Any], start: int) -> "list[pa.RecordBatch]":
        try:
            return [self._assemble(records, start, frozenset())]
        except NotStrictError:
            if len(records) <= CLOSE_LOOK:
                return [self._look_closely(records, start)]
            half = len(records) // 2
            return self._decode(records[:half], start) + self._decode(records[half:], start + half)

    def _look_closely(self, records: list[Any], start: int) -> "pa.RecordBatch":
        rejected: set[int] = set()
        strict: list[Any] = []
        for index, record in enumerate(records):
            try:
                strict.append(self._form.strict(record))
            except RecordError as error:
                rejected.add(index)
                strict.append(self._form.empty())  # keeps the place; lacks a name, so it becomes no event
                self._reject(record, start + index, error.reason, error.detail)
        return self._assemble(strict, start, frozenset(rejected))

    def _assemble(self, records: list[Any], start: int, rejected: frozenset[int]) -> "pa.RecordBatch":
        assembled = assemble(self._form.to_columns(records), self._runs, start)
        for index, reason in assembled.lacking:
            if index not in rejected:
                self._reject(records[index], start + index, reason, DETAILS[reason])
        return assembled.batch

    def _reject(self, record: Any, index: int, reason: Reason, detail: str) -> None:
        position = self._runs.first_position + index
        self.report(Fault(reason, detail, self._form.raw(record), position, self._runs.line_of(index)))
