"""The events of one table partition on their way: what is known of them, what their footers say, what became of them.

Belongs here: the state that deciding, inserting and replacing share. Does not: any of these three.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from data_platform.catalog.models import Dataset
from data_platform.errors import Fault
from data_platform.loading.decide import Decision, Outcome, decide, order
from data_platform.loading.errors import CODES, Code, Diagnosis, LoadError, diagnose
from data_platform.loading.examine import examine
from data_platform.loading.footer import FooterError, NotParquetError, ObjectChangedError, check_contract
from data_platform.loading.message import ObjectEvent
from data_platform.loading.plans import Checked
from data_platform.loading.register import (
    ObjectRecord,
    ObjectVersion,
    PartitionRecord,
    State,
    TablePartition,
    finished,
)
from data_platform.loading.results import Failure, LoadResult, Told
from data_platform.loading.source import Footers, complete
from data_platform.loading.target import Target
from data_platform.loading.warehouse import Warehouse

UNFINISHED_STARTS = 10  # so often an object may have been begun without an end: more than crashes explain


@dataclass
class Group:
    """Objects of one partition; `told` collects what became of each version, by identity.

    `memory`: bytes a block may take; `admit` waits for them to be free. `smaller`: memory ran out before. `stage` is
    told what is being done. `state` and `known` are the register's, as of the last `look_up`.
    """

    warehouse: Warehouse
    dataset: Dataset
    partition: TablePartition
    memory: int
    admit: Callable[[int], AbstractContextManager[int]]
    smaller: bool
    stage: Callable[[str], None]
    footers: Footers
    told: dict[str, Told] = field(default_factory=dict[str, Told])
    state: PartitionRecord = field(default_factory=PartitionRecord)
    known: dict[str, ObjectRecord] = field(default_factory=dict[str, ObjectRecord])
    _written: dict[str, Failure] = field(default_factory=dict[str, Failure])  # the failures the register has

    @property
    def target(self) -> Target:
        """The rows."""
        return Target(self.warehouse.client, self.dataset)

    # What is known

    def identify(self, event: ObjectEvent) -> ObjectEvent | Told:
        """The event with the version it is about; S3 tells what the event does not."""
        try:
            return replace(event, version=complete(self.warehouse.s3, event.version))
        except ObjectChangedError:
            # The key holds another version by now; that version's own event brings its rows.
            return LoadResult(Outcome.SUPERSEDED, event.version, 0, 0)
        except Exception as error:  # noqa: BLE001 - failure() raises what it cannot diagnose
            return self.failure(event.version, error)

    def look_up(self, events: Sequence[ObjectEvent]) -> None:
        """Ask the register for the partition and every version of the events' keys."""
        register = self.warehouse.register
        self.state = register.partition(self.partition)
        bucket = events[0].version.bucket
        self.known = register.objects(self.partition, {event.version.key for event in events}, bucket=bucket)

    def decide(self, version: ObjectVersion) -> Decision:
        """What the event of this version asks for."""
        of_key = {i: record for i, record in self.known.items() if record.version.key == version.key}
        return decide(version, of_key, self.dataset.overwrite)

    def checked(self, versions: Sequence[ObjectVersion]) -> list[Checked]:
        """Those whose footers fit the table; what became of the others is told."""
        if not versions:
            return []
        self.stage("check")
        self.footers.begin(versions)
        found = [self._check(version) for version in versions]
        return [each for each in found if each is not None]

    def _check(self, version: ObjectVersion) -> Checked | None:
        where = f"s3://{version.bucket}/{version.key}"
        try:
            mine = self.known.get(version.identity)
            if mine is not None and mine.state is State.INTENT and mine.starts >= UNFINISHED_STARTS:
                ended = f"{where} was begun {mine.starts} times and the loader ended each time"
                raise LoadError(Code.MEMORY, f"{ended}: is it too large for the loader's memory?")
            footer = self.footers.of(version)
            check_contract(self.dataset, footer.schema, where=where, nulls=footer.nulls)
            return Checked(replace(version, bytes=footer.bytes), footer)
        except ObjectChangedError:
            self.done(Outcome.SUPERSEDED, version, 0)
        except Exception as error:  # noqa: BLE001 - failure() raises what it cannot diagnose
            self.fail(version, error)
        return None

    def known_as(self, each: Checked) -> ObjectRecord:
        """What the register says of an object that was begun before, with what its footer says."""
        return replace(self.known[each.version.identity], version=each.version, rows=each.footer.rows)

    # What became of it

    def done(self, outcome: Outcome, version: ObjectVersion, rows: int, plan: str = "") -> None:
        """The version's event is answered."""
        self.told[version.identity] = LoadResult(outcome, version, rows, 0, plan)

    def fail(self, version: ObjectVersion, error: Exception) -> None:
        """The version was not loaded because of `error`. One that means nothing, a bug of ours, is raised."""
        self.told[version.identity] = self.failure(version, error)

    def failure(self, version: ObjectVersion, error: Exception) -> Failure:
        """What an error means for the object. One that means nothing, a bug of ours, is raised."""
        diagnosis = _diagnose_object(error)
        if diagnosis is None:
            raise error
        diagnosis = examine(self.warehouse, self.partition.domain, version, diagnosis)
        mine = self.known.get(version.identity)
        before = 0 if mine is None or _was_dead_lettered(mine) else mine.attempts
        counted = diagnosis.system is None and diagnosis.fault in {Fault.PERMANENT, Fault.TRANSIENT}
        return Failure(version, diagnosis, before + counted, counted)

    def note_sequencer(self, version: ObjectVersion) -> None:
        """The same content was put again: later than what the register knows, so that what lay between stays older."""
        mine = self.known.get(version.identity)
        if mine is not None and order(version.sequencer) > order(mine.version.sequencer):
            newer = replace(mine, version=replace(mine.version, sequencer=version.sequencer))
            self.warehouse.register.write(self.partition, [newer])

    def write(self, records: Sequence[ObjectRecord]) -> None:
        """Append records, and with them the counted failures that were not written yet, in the one insert.

        Failures are written under the lease: beside it they could hide that somebody else loaded the object.
        """
        now = datetime.now(UTC)
        fresh = {
            identity: told
            for identity, told in self.told.items()
            if isinstance(told, Failure) and told.counted and self._written.get(identity) is not told
        }
        failed = [
            finished(
                ObjectRecord(
                    told.version,
                    State.FAILED,
                    self.state.generation,
                    attempts=told.attempts,
                    code=told.diagnosis.code,
                    reason=told.diagnosis.reason,
                    started_at=now,
                ),
                State.FAILED,
            )
            for told in fresh.values()
        ]
        self.warehouse.register.write(self.partition, [*records, *failed])
        self._written.update(fresh)


def _was_dead_lettered(record: ObjectRecord) -> bool:
    """Whether its attempts were used up: a replay starts to count anew."""
    return record.state is State.FAILED and bool(record.code) and record.attempts >= CODES[Code(record.code)].attempts


def _diagnose_object(error: Exception) -> Diagnosis | None:
    if isinstance(error, NotParquetError):
        return Diagnosis(Code.FORMAT, Fault.PERMANENT, error.message)
    if isinstance(error, FooterError):
        return Diagnosis(Code.PARSE, Fault.PERMANENT, error.message)
    if isinstance(error, FileNotFoundError):
        return Diagnosis(Code.GONE, Fault.PERMANENT, f"{error} is gone")
    return diagnose(error)
