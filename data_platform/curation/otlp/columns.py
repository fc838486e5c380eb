"""Many log records at once -> one Arrow batch of events. Column by column, because a loop over records is too slow.

Values either fit as they are or NotStrictError says that some record needs a closer look first (block.py).
What belongs here: columns. What does not: where the records come from.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from data_platform.curation.otlp.model import Reason, events_schema

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

TRACE_ID_DIGITS = 32
NANOSECONDS_A_DAY = 86_400_000_000_000
SERVICE, TIME, NAME = Reason.MISSING_SERVICE, Reason.MISSING_TIME, Reason.MISSING_NAME
MASK_KEYS = 62  # attribute keys of a batch that fit the bits of one integer
_DIGITS = b"0123456789"
_LOWER_HEX_DIGITS = _DIGITS + b"abcdef"
_HEX_DIGITS = _LOWER_HEX_DIGITS + b"ABCDEF"


class NotStrictError(Exception):
    """Some value is not in the one form that goes into a column without a look at it."""


@dataclass
class Columns:
    """Fields of the records, still as Python lists; attributes flattened, `counts` of them for each record."""

    times: list[Any] = field(default_factory=list[Any])  # nanoseconds, as integers or their decimal text; 0 for none
    names: list[str | None] = field(default_factory=list[str | None])
    traces: list[str | None] = field(default_factory=list[str | None])
    counts: list[int] = field(default_factory=list[int])
    keys: list[str] = field(default_factory=list[str])
    texts: list[str] = field(default_factory=list[str])


@dataclass(frozen=True)
class Assembled:
    """The events of a batch, and index and reason of each record that lacks something."""

    batch: "pa.RecordBatch"
    lacking: list[tuple[int, Reason]]


def assemble(
    columns: Columns, services: list[str | None], lengths: list[int], object_key: str, first_position: int
) -> Assembled:
    """The batch of `columns`. Services are run-length encoded: `lengths` says how many records have each.

    Raises NotStrictError.
    """
    import numpy as np
    import pyarrow as pa

    pc = _compute()
    count = len(columns.names)
    keys = _texts(columns.keys)
    texts = _texts(columns.texts)
    if keys.null_count or texts.null_count:
        raise NotStrictError
    attributes = _Attributes(keys, texts, np.asarray(columns.counts, dtype=np.int64))
    name = pc.coalesce(_not_empty(_texts(columns.names)), _not_empty(attributes.lookup("event.name")))
    time = _times(columns.times)
    service = _not_empty(
        _texts(services).take(pa.array(np.repeat(np.arange(len(lengths)), np.asarray(lengths, dtype=np.int64))))
    )
    positions = np.arange(first_position, first_position + count, dtype=np.uint64)
    batch = pa.RecordBatch.from_arrays(
        [
            service,
            time.cast(pa.timestamp("ns", tz="UTC")),
            _days(time),
            name,
            _not_empty(pc.coalesce(_not_empty(attributes.lookup("user.id")), attributes.lookup("enduser.id"))),
            _not_empty(attributes.lookup("session.id")),
            attributes.map(),
            _traces(columns.traces),
            _not_empty(attributes.lookup("log.record.uid")),
            pa.repeat(pa.scalar(object_key), count),
            pa.array(positions),
        ],
        schema=events_schema(),
    )
    if not (service.null_count or time.null_count or name.null_count):
        return Assembled(batch, [])
    lacking: list[tuple[int, Reason]] = []
    for index in pc.indices_nonzero(_any_null(service, time, name)).to_pylist():
        reason = SERVICE if not service[index].is_valid else TIME if not time[index].is_valid else NAME
        lacking.append((index, reason))
    return Assembled(batch.filter(pc.invert(_any_null(service, time, name))), lacking)


def _compute() -> Any:
    """pyarrow.compute, whose functions are made at import and so are unknown to type checkers."""
    import pyarrow.compute

    return pyarrow.compute


def _any_null(*columns: "pa.Array") -> "pa.Array":
    pc = _compute()
    found = pc.is_null(columns[0])
    for column in columns[1:]:
        found = pc.or_(found, pc.is_null(column))
    return found


def _texts(values: Sequence[str | None]) -> "pa.Array":
    import pyarrow as pa

    try:
        return pa.array(values, pa.string())
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        raise NotStrictError from None


def _not_empty(column: "pa.Array") -> "pa.Array":
    import pyarrow as pa

    pc = _compute()
    empty = pc.equal(column, "")
    if not pc.any(empty).as_py():
        return column
    return pc.if_else(empty, pa.scalar(None, pa.string()), column)


def _days(time: "pa.Array") -> "pa.Array":
    """UTC days. Floored, since days before 1970 are negative."""
    import numpy as np
    import pyarrow as pa

    days = np.floor_divide(time.fill_null(0).to_numpy(), NANOSECONDS_A_DAY).astype(np.int32)
    return pa.array(days, mask=time.is_null().to_numpy(zero_copy_only=False)).cast(pa.date32())


def _times(values: Sequence[Any]) -> "pa.Array":
    """Nanoseconds since 1970 as int64, null for 0."""
    import pyarrow as pa

    pc = _compute()
    try:
        if values and isinstance(values[0], str):
            column = pa.array(values, pa.string())
            # Arrow would read "0x1F" too; an empty text fails in the cast.
            if not _made_of(column, _DIGITS):
                raise NotStrictError
            column = column.cast(pa.uint64())
        else:
            column = pa.array(values, pa.uint64())
        column = column.cast(pa.int64())
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        raise NotStrictError from None
    zero = pc.equal(column, 0)
    return pc.if_else(zero, pa.scalar(None, pa.int64()), column) if pc.any(zero).as_py() else column


def _traces(traces: Sequence[str | None]) -> "pa.Array":
    """Trace ids in lower-case hex; null where there is none, or the all-zero id that means none."""
    import pyarrow as pa

    pc = _compute()
    column = _not_empty(_texts(traces))
    if column.null_count == len(column):
        return column
    if not pc.all(pc.equal(pc.binary_length(column), TRACE_ID_DIGITS)).as_py():
        raise NotStrictError
    if not _made_of(column, _LOWER_HEX_DIGITS):
        if not _made_of(column, _HEX_DIGITS):
            raise NotStrictError
        column = pc.utf8_lower(column)
    return pc.if_else(pc.equal(column, "0" * TRACE_ID_DIGITS), pa.scalar(None, pa.string()), column)


def _made_of(column: "pa.Array", characters: bytes) -> bool:
    """Whether the texts have only these characters (ASCII). Looks at the column's bytes, all at once."""
    data = column.buffers()[2]
    return data is None or not data.to_pybytes().translate(None, characters)


class _Attributes:
    """The attributes of a batch, flattened: find one by its key for every record; make the map column."""

    def __init__(self, keys: "pa.Array", texts: "pa.Array", counts: "np.ndarray[Any, Any]") -> None:
        import numpy as np

        encoded = keys.dictionary_encode()
        self._names: dict[str, int] = {name: code for code, name in enumerate(encoded.dictionary.to_pylist())}
        self._codes = encoded.indices.to_numpy()
        self._records = np.repeat(np.arange(len(counts)), counts)
        self._keys, self._texts, self._counts = keys, texts, counts
        if self._doubled():
            self._keep_first()

    def lookup(self, name: str) -> "pa.Array":
        """The text of the attribute called `name`, null where a record has none."""
        import numpy as np
        import pyarrow as pa

        code = self._names.get(name)
        if code is None:
            return pa.nulls(len(self._counts), pa.string())
        found = np.flatnonzero(self._codes == code)
        index = np.zeros(len(self._counts), dtype=np.int64)
        absent = np.ones(len(self._counts), dtype=bool)
        index[self._records[found]] = found
        absent[self._records[found]] = False
        return self._texts.take(pa.array(index, mask=absent))

    def map(self) -> "pa.Array":
        """map<string, string>, attributes in the order of the record."""
        import numpy as np
        import pyarrow as pa

        offsets = np.zeros(len(self._counts) + 1, dtype=np.int32)
        np.cumsum(self._counts, out=offsets[1:])
        kind = events_schema().field("attributes").type
        return pa.MapArray.from_arrays(pa.array(offsets), self._keys, self._texts, type=kind)

    def _doubled(self) -> bool:
        """Whether some record has a key twice. With few keys: the sum of their bits then differs from the union."""
        import numpy as np

        if not len(self._codes):
            return False
        if len(self._names) > MASK_KEYS:
            pairs = self._records * len(self._names) + self._codes
            return len(np.unique(pairs)) < len(pairs)
        bits = np.left_shift(np.int64(1), self._codes.astype(np.int64))
        starts = (np.cumsum(self._counts) - self._counts)[self._counts > 0]
        return not np.array_equal(np.add.reduceat(bits, starts), np.bitwise_or.reduceat(bits, starts))

    def _keep_first(self) -> None:
        """Of a key that a record has twice the first counts, as in the Collector."""
        import numpy as np
        import pyarrow as pa

        pairs = self._records * len(self._names) + self._codes
        kept = np.sort(np.unique(pairs, return_index=True)[1])
        self._codes, self._records = self._codes[kept], self._records[kept]
        self._keys, self._texts = self._keys.take(pa.array(kept)), self._texts.take(pa.array(kept))
        self._counts = np.bincount(self._records, minlength=len(self._counts)).astype(np.int64)
