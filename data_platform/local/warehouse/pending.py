"""Which statements of a session the server still owes an answer, so that each answer finds the statement it ends.

Pure bookkeeping over frame types: a Query is answered by ReadyForQuery, an Execute by its own message, an error in
an extended batch ends everything up to the Sync.
"""

from collections import deque
from dataclasses import dataclass, field
from enum import Enum

from data_platform.local.warehouse.querylog import QueryRecord


class Kind(Enum):
    """What was sent."""

    QUERY = "Query"
    EXECUTE = "Execute"
    SYNC = "Sync"


@dataclass
class _Owed:
    kind: Kind
    record: QueryRecord | None
    failed: bool = False


@dataclass
class Pending:
    """A queue of what was sent and not yet answered."""

    batch_failed: bool = False  # the server skips everything until the Sync
    _owed: deque[_Owed] = field(default_factory=deque[_Owed])

    def sent(self, kind: Kind, record: QueryRecord | None = None) -> None:
        """A message that will be answered has been sent."""
        self._owed.append(_Owed(kind, record))

    @property
    def ready_owed(self) -> bool:
        """Whether a ReadyForQuery is still to come."""
        return any(owed.kind is not Kind.EXECUTE for owed in self._owed)

    def executed(self) -> QueryRecord | None:
        """CommandComplete, EmptyQueryResponse or PortalSuspended: the Execute it ends, if it is one's."""
        if self._owed and self._owed[0].kind is Kind.EXECUTE:
            return self._owed.popleft().record
        return None

    def failed(self) -> QueryRecord | None:
        """ErrorResponse: the statement it ends. The rest of an extended batch will not be executed."""
        if not self._owed:
            return None
        head = self._owed[0]
        if head.kind is Kind.QUERY:
            head.failed = True
            return head.record
        self.batch_failed = True
        record = self.executed()
        while self._owed and self._owed[0].kind is Kind.EXECUTE:
            self._owed.popleft()
        return record

    def ready(self) -> QueryRecord | None:
        """ReadyForQuery: the Query it ends with success, if it is one's."""
        self.batch_failed = False
        while self._owed:
            owed = self._owed.popleft()
            if owed.kind is not Kind.EXECUTE:
                return None if owed.failed else owed.record
        return None

    def abandoned(self) -> list[QueryRecord]:
        """The session is over: the statements nobody will hear about."""
        records = [owed.record for owed in self._owed if owed.record is not None and not owed.failed]
        self._owed.clear()
        return records
