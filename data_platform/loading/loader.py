"""Objects of one table partition, each brought in exactly once: decide, check, write ahead, insert, prove, write down.

The caller owns the messages: it deletes one when its object's outcome is final. Rows are the last word: an object
counts as loaded only after the partition was seen to hold as many rows of it as its footer says.
"""

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from data_platform.catalog.models import Dataset
from data_platform.clients import clickhouse
from data_platform.curation.manifest import StoredManifest, generation_of, read_manifest
from data_platform.errors import Fault, PlatformError, TransientError
from data_platform.loading.admission import Memory
from data_platform.loading.contents import manifest_objects
from data_platform.loading.decide import Action, Decision, Outcome, decide, order
from data_platform.loading.errors import CODES, Code, Diagnosis, LoadError, diagnose
from data_platform.loading.examine import examine
from data_platform.loading.footer import (
    FooterError,
    NotParquetError,
    ObjectChangedError,
    check_contract,
    read_footer,
)
from data_platform.loading.lock import Lease
from data_platform.loading.message import ObjectEvent
from data_platform.loading.plans import Checked, Load, Plan, halves, plan_loads
from data_platform.loading.register import (
    ObjectRecord,
    ObjectVersion,
    PartitionRecord,
    State,
    TablePartition,
    finished,
)
from data_platform.loading.running import wait_ended
from data_platform.loading.statement import deduplication_token, insert_objects
from data_platform.loading.swap import Change, settle, swap_partition
from data_platform.loading.target import Target
from data_platform.loading.warehouse import Warehouse

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

__all__ = ["Failure", "LoadResult", "Outcome", "load_object", "load_objects"]

FOOTER_THREADS = 8
UNFINISHED_STARTS = 10  # so often an object may have been begun without an end: more than crashes explain
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadResult:
    """What became of one event; `rows` are the object's rows now in the table, `seconds` those of its group."""

    outcome: Outcome
    version: ObjectVersion
    rows: int
    seconds: float
    plan: str = ""

    @property
    def final(self) -> bool:
        """Whether the message may be deleted."""
        return self.outcome is not Outcome.DEFERRED


@dataclass(frozen=True)
class Failure:
    """Why a load failed. `attempts` counts this one where it counts: not while an engine is away (`counted`)."""

    version: ObjectVersion
    diagnosis: Diagnosis
    attempts: int
    counted: bool

    @property
    def for_good(self) -> bool:
        """Whether it goes to the dead letters now: for good by nature, or tried as often as its code allows."""
        if self.diagnosis.fault is Fault.PERMANENT:
            return True
        return self.counted and self.attempts >= CODES[self.diagnosis.code].attempts


Told = LoadResult | Failure


def load_object(warehouse: Warehouse, dataset: Dataset, event: ObjectEvent) -> LoadResult:
    """Bring the table to hold this object version's rows exactly once, or say why it need not.

    Raises LoadError with a code for what is wrong with the object, LockHeldError or TransientError for what may pass,
    the clients' errors as they are.
    """
    told = load_objects(warehouse, dataset, [event])[0]
    if isinstance(told, Failure):
        raise LoadError(told.diagnosis.code, told.diagnosis.reason)
    return told


def load_objects(
    warehouse: Warehouse,
    dataset: Dataset,
    events: Sequence[ObjectEvent],
    *,
    memory: int | None = None,
    admit: Callable[[int], AbstractContextManager[int]] | None = None,
    smaller: bool = False,
    stage: Callable[[str], None] = lambda _name: None,
    wait_s: float = 120.0,
) -> list[Told]:
    """`load_object` for events of one partition, under one lease: what became of each.

    `memory`: bytes a block may take; `admit` waits for them to be free. `smaller`: memory ran out before. `stage` is
    told what is being done. What concerns all (the lease, the register, the server) is raised.
    """
    started = time.monotonic()
    key = events[0].key
    partition = TablePartition(key.domain, key.table, key.ds)
    budget = memory or warehouse.settings.loader_rebuild_memory_mb * 2**20
    group = _Group(warehouse, dataset, partition, budget, admit or Memory(budget).admitted, smaller, stage)
    stage("look up")
    identified = [group.identify(event) for event in events]
    if any(isinstance(each, ObjectEvent) for each in identified):
        with warehouse.hold(dataset, partition, wait_s=wait_s) as lease:
            group.run(lease, [each for each in identified if isinstance(each, ObjectEvent)])
    seconds = time.monotonic() - started
    told: list[Told] = []
    seen: set[str] = set()
    for each in identified:
        result = group.told[each.version.identity] if isinstance(each, ObjectEvent) else each
        if isinstance(result, LoadResult):
            twice = result.version.identity in seen and result.outcome in {Outcome.LOADED, Outcome.REPLACED}
            result = replace(result, seconds=seconds, outcome=Outcome.ALREADY if twice else result.outcome)
        seen.add(result.version.identity)
        told.append(result)
    return told


@dataclass
class _Group:
    """The objects of one partition on their way; `told` collects what became of each version."""

    warehouse: Warehouse
    dataset: Dataset
    partition: TablePartition
    memory: int
    admit: Callable[[int], AbstractContextManager[int]]
    smaller: bool
    stage: Callable[[str], None]
    told: dict[str, Told] = field(default_factory=dict[str, Told])
    state: PartitionRecord = field(default_factory=PartitionRecord)
    known: dict[str, ObjectRecord] = field(default_factory=dict[str, ObjectRecord])

    @property
    def target(self) -> Target:
        return Target(self.warehouse.client, self.dataset)

    def identify(self, event: ObjectEvent) -> ObjectEvent | Told:
        """The event with the version it is about; S3 tells what the event does not."""
        try:
            return replace(event, version=_complete(self.warehouse.s3, event.version))
        except ObjectChangedError:
            # The key holds another version by now; that version's own event brings its rows.
            return LoadResult(Outcome.SUPERSEDED, event.version, 0, 0)
        except Exception as error:  # noqa: BLE001 - failure() raises what it cannot diagnose
            return self.failure(event.version, error)

    def run(self, lease: Lease, events: Sequence[ObjectEvent]) -> None:
        """All events, in passes: one version of a key at a time, the oldest first."""
        self.look_up(events)
        if self.state.replacing:
            settle(self.warehouse, self.dataset, self.partition, self.state)
            self.look_up(events)
        waiting: dict[str, list[ObjectEvent]] = {}
        for event in {event.version.identity: event for event in events}.values():
            waiting.setdefault(event.version.key, []).append(event)
        for versions in waiting.values():
            versions.sort(key=lambda event: order(event.version.sequencer), reverse=True)
        while waiting:
            turn = [versions.pop() for versions in waiting.values()]
            waiting = {key: versions for key, versions in waiting.items() if versions}
            self.one_pass(lease, turn)
            if waiting:
                self.look_up(events)
        self.write_failed()

    def look_up(self, events: Sequence[ObjectEvent]) -> None:
        register = self.warehouse.register
        self.state = register.partition(self.partition)
        bucket = events[0].version.bucket
        self.known = register.objects(self.partition, {event.version.key for event in events}, bucket=bucket)

    def one_pass(self, lease: Lease, events: Sequence[ObjectEvent]) -> None:
        """Events of different keys: decide each, then load what has to be loaded."""
        inserts: list[ObjectVersion] = []
        for event in self.members(lease, events):
            version = event.version
            decision = self.decide(version)
            if decision.action is Action.NOTHING:
                self.note_sequencer(version)
                mine = self.known.get(version.identity)
                rows = mine.rows if mine is not None and decision.outcome is Outcome.ALREADY else 0
                self.done(decision.outcome or Outcome.STALE, version, rows)
            elif decision.action is Action.REJECT:
                reason = f"{version.key} was overwritten, which the dataset's policy rejects"
                self.told[version.identity] = self.failure(version, LoadError(Code.PERMISSION, reason))
            elif decision.action is Action.REPLACE:
                for checked in self.checked([version]):
                    self.replace(lease, checked, decision.older)
            else:
                inserts.append(version)
        checked = self.checked(inserts)
        if checked:
            self.insert(lease, checked)

    def decide(self, version: ObjectVersion) -> Decision:
        of_key = {i: record for i, record in self.known.items() if record.version.key == version.key}
        return decide(version, of_key, self.dataset.overwrite)

    def note_sequencer(self, version: ObjectVersion) -> None:
        """The same content was put again: later than what the register knows, so that what lay between stays older."""
        mine = self.known.get(version.identity)
        if mine is not None and order(version.sequencer) > order(mine.version.sequencer):
            newer = replace(mine, version=replace(mine.version, sequencer=version.sequencer))
            self.warehouse.register.write(self.partition, [newer])

    # The platform's own files: only a committed generation counts

    def members(self, lease: Lease, events: Sequence[ObjectEvent]) -> list[ObjectEvent]:
        """The events that are to be looked at one by one: all of foreign producers, the manifest's of the platform."""
        ours = {event.version.identity: generation_of(event.key.file) for event in events}
        if not any(generation is not None for generation in ours.values()):
            return list(events)
        key = events[0].key
        bucket = events[0].version.bucket
        stored = read_manifest(self.warehouse.s3, bucket, key.domain, key.table, key.ds)
        current = 0 if stored is None else stored.manifest.generation
        listed = {version.key: version for version in manifest_objects(bucket, stored)}
        chosen: list[ObjectEvent] = []
        ahead = 0
        for event in events:
            generation = ours[event.version.identity]
            if generation is None:
                chosen.append(event)
            elif event.version.key in listed and listed[event.version.key].etag == event.version.etag:
                chosen.append(event)
                ahead = max(ahead, generation)
            else:
                self.done(Outcome.DEFERRED if generation > current else Outcome.SUPERSEDED, event.version, 0)
        held = self.warehouse.register.curated_generation(self.partition) if ahead else 0
        if stored is not None and ahead > held > 0:
            # The partition holds an older generation: its files go and all files of this one come, in one swap.
            self.next_generation(lease, stored, listed, chosen)
            self.look_up(events)
        return chosen

    def next_generation(
        self, lease: Lease, stored: StoredManifest, listed: dict[str, ObjectVersion], events: Sequence[ObjectEvent]
    ) -> None:
        by_key = {event.version.key: event.version for event in events}
        versions = [_same(by_key.get(key), version) for key, version in listed.items()]
        checked = self.checked(versions)
        if len(checked) != len(versions):
            refused = next(told for told in self.told.values() if isinstance(told, Failure))
            raise LoadError(refused.diagnosis.code, refused.diagnosis.reason)
        known = self.warehouse.register.objects(self.partition)
        without = {
            identity
            for identity, record in known.items()
            if generation_of(record.version.key.rpartition("/")[2]) is not None
        }
        change = Change(without, checked, Plan.REBUILD, stored.manifest.generation)
        self.stage("swap")
        swap_partition(self.warehouse, self.dataset, self.partition, lease, change, known, self.state)

    # Loading

    def checked(self, versions: Sequence[ObjectVersion]) -> list[Checked]:
        """Those whose footers fit the table; what became of the others is told."""
        if not versions:
            return []
        self.stage("check")
        if len(versions) == 1:
            found = [self.check(versions[0])]
        else:  # footers are waited for, not computed: side by side
            with ThreadPoolExecutor(min(FOOTER_THREADS, len(versions))) as pool:
                found = list(pool.map(self.check, versions))
        return [each for each in found if each is not None]

    def check(self, version: ObjectVersion) -> Checked | None:
        where = f"s3://{version.bucket}/{version.key}"
        try:
            mine = self.known.get(version.identity)
            if mine is not None and mine.state is State.INTENT and mine.starts >= UNFINISHED_STARTS:
                raise LoadError(
                    Code.MEMORY, f"{where} was begun {mine.starts} times and never ended: it may be what ends us"
                )
            footer = read_footer(self.warehouse.s3, version.bucket, version.key, version.etag)
            check_contract(self.dataset, footer.schema, where=where)
            return Checked(replace(version, bytes=footer.bytes), footer)
        except ObjectChangedError:
            self.done(Outcome.SUPERSEDED, version, 0)
        except Exception as error:  # noqa: BLE001 - failure() raises what it cannot diagnose
            self.told[version.identity] = self.failure(version, error)
        return None

    def insert(self, lease: Lease, objects: Sequence[Checked]) -> None:
        """Load objects no rows of which should be there; after an unfinished start, rows may be."""
        begun = {each.version.identity for each in objects} & self.known.keys()
        present = self.target.rows_by_object(self.partition.ds, identities=begun)
        fresh: list[Checked] = []
        for each in objects:
            rows = present.get(each.version.identity, 0)
            if rows == 0:
                fresh.append(each)
            elif rows == each.footer.rows:
                self.write_loaded([each], {})
            else:
                self.replace(lease, each, frozenset())
        loads = plan_loads(fresh, memory=self.memory, smaller=self.smaller)
        intents = {each.version.identity: self.intent(each, load) for load in loads for each in load.objects}
        self.warehouse.register.write(self.partition, list(intents.values()))
        failures: dict[str, Exception] = {}
        for load in loads:
            self.one_load(lease, load, failures)
        self.prove(lease, fresh, intents, failures)

    def intent(self, each: Checked, load: Load) -> ObjectRecord:
        mine = self.known.get(each.version.identity)
        unfinished = mine.starts if mine is not None and mine.state is State.INTENT else 0
        versions = [other.version for other in load.objects]
        return ObjectRecord(
            each.version,
            State.INTENT,
            self.state.generation,
            rows=each.footer.rows,
            plan=load.plan,
            query_id=deduplication_token(self.partition, versions, self.state.generation),
            attempts=mine.attempts if mine is not None else 0,
            starts=unfinished + 1,
            started_at=datetime.now(UTC),
        )

    def one_load(self, lease: Lease, load: Load, failures: dict[str, Exception]) -> None:
        """One statement. A list that fails for what is in it is halved until the culprit is alone."""
        try:
            self.send(lease, load)
        except Exception as error:
            diagnosis = diagnose(error)
            if diagnosis is None:
                raise
            if len(load.objects) > 1 and (diagnosis.system is None or diagnosis.fault is Fault.PERMANENT):
                log.info("a list of %d objects failed (%s), halving it", len(load.objects), diagnosis.reason)
                for half in halves(load):
                    self.one_load(lease, half, failures)
                return
            failures |= {each.version.identity: error for each in load.objects}

    def send(self, lease: Lease, load: Load) -> None:
        """The statement, once its memory is free; raises what it raised."""
        if load.plan is Plan.NOTHING:
            return
        self.stage("admission")
        with self.admit(load.memory) as granted:
            self.stage("insert")
            if load.plan is Plan.STAGED:
                self.insert_staged(lease, load.objects[0], granted)
            else:
                self.execute(lease, load, granted)

    def prove(
        self,
        lease: Lease,
        objects: Sequence[Checked],
        intents: dict[str, ObjectRecord],
        failures: dict[str, Exception],
    ) -> None:
        """Write down what the rows say became of each object, whatever its statement said."""
        if not objects:
            return
        self.stage("prove")
        identities = {each.version.identity for each in objects}
        present = self.target.rows_by_object(self.partition.ds, identities=identities)
        # After a failure an object without rows proves nothing.
        loaded = [
            each
            for each in objects
            if present.get(each.version.identity, 0) == each.footer.rows
            and (each.footer.rows or each.version.identity not in failures)
        ]
        self.write_loaded(loaded, intents)
        done = {each.version.identity for each in loaded}
        for each in objects:
            identity = each.version.identity
            if identity in done:
                continue
            if identity in failures:
                self.told[identity] = self.failure(each.version, failures[identity])
            elif not present.get(identity, 0) and _changed(self.warehouse.s3, each.version):
                self.done(Outcome.SUPERSEDED, each.version, 0)
            else:
                # Nothing was written although nothing failed: the lease was lost, or a token outlived its rows.
                self.warehouse.locks.check(lease)
                self.replace(lease, each, frozenset())

    def execute(self, lease: Lease, load: Load, memory: int) -> None:
        """Send the one-block insert; return when its end is known, raise when it failed."""
        settings = self.warehouse.settings
        statement = insert_objects(
            settings,
            self.dataset,
            self.partition,
            [each.version for each in load.objects],
            load.objects[0].footer.schema,
            generation=self.state.generation,
            max_memory=memory,
            fence=lease.fence,
        )
        lease.unresolved = True
        try:
            self.warehouse.client.command(statement.sql, settings=statement.settings)
        except Exception as error:
            fault = clickhouse.classify(error)
            if fault is Fault.UNKNOWN:
                # It may be running still, or have been executed. The process list knows the one, the rows the other.
                self.stage("wait")
                wait_ended(
                    self.warehouse.client, settings, statement.query_id, patience_s=settings.clickhouse_timeout_s
                )
            lease.unresolved = False
            raise
        lease.unresolved = False

    def insert_staged(self, lease: Lease, each: Checked, memory: int) -> None:
        """An object beyond the memory of a block: many blocks into a staging table, counted, then moved in one step."""
        with self.target.staging(self.partition.ds, lease) as staged:
            statement = insert_objects(
                self.warehouse.settings,
                self.dataset,
                self.partition,
                [each.version],
                each.footer.schema,
                generation=self.state.generation,
                max_memory=memory,
                staged=staged,
                small_blocks=True,
            )
            self.warehouse.client.command(statement.sql, settings=statement.settings)
            found = self.target.rows_by_object(self.partition.ds, table=staged).get(each.version.identity, 0)
            if found != each.footer.rows:
                if _changed(self.warehouse.s3, each.version):
                    return
                raise TransientError(f"{found} rows of {each.version.key} were staged, {each.footer.rows} expected")
            self.warehouse.locks.check(lease)
            lease.unresolved = True
            self.target.move_in(self.partition.ds, staged)
            lease.unresolved = False

    def replace(self, lease: Lease, each: Checked, older: frozenset[str]) -> None:
        """Put the object in the place of `older` versions, and of whatever rows of its own are there already."""
        self.stage("swap")
        known = self.warehouse.register.objects(self.partition)
        change = Change(older | {each.version.identity}, [each], Plan.STAGED)
        try:
            self.state = replace(
                self.state,
                generation=swap_partition(
                    self.warehouse, self.dataset, self.partition, lease, change, known, self.state
                ),
            )
        except Exception as error:
            if diagnose(error) is None or isinstance(error, PlatformError):
                raise
            self.told[each.version.identity] = self.failure(each.version, error)
            state = self.warehouse.register.partition(self.partition)
            if state.replacing or lease.unresolved:
                raise
            return
        outcome = Outcome.REPLACED if older else Outcome.LOADED
        self.done(outcome, each.version, each.footer.rows, Plan.STAGED)

    # What became of it

    def write_loaded(self, objects: Sequence[Checked], intents: dict[str, ObjectRecord]) -> None:
        if not objects:
            return
        self.stage("write down")
        records = [
            finished(
                intents.get(each.version.identity) or self.known_as(each),
                State.LOADED,
                generation=self.state.generation,
                starts=0,
            )
            for each in objects
        ]
        self.warehouse.register.write(self.partition, records)
        for each, record in zip(objects, records, strict=True):
            self.done(Outcome.LOADED, each.version, each.footer.rows, record.plan)

    def known_as(self, each: Checked) -> ObjectRecord:
        mine = self.known[each.version.identity]
        return replace(mine, version=each.version, rows=each.footer.rows)

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

    def write_failed(self) -> None:
        """Counted failures, written under the lease: beside it they could hide that somebody else loaded the object."""
        now = datetime.now(UTC)
        records = [
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
            for told in self.told.values()
            if isinstance(told, Failure) and told.counted
        ]
        self.warehouse.register.write(self.partition, records)

    def done(self, outcome: Outcome, version: ObjectVersion, rows: int, plan: str = "") -> None:
        self.told[version.identity] = LoadResult(outcome, version, rows, 0, plan)


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


def _same(event: ObjectVersion | None, listed: ObjectVersion) -> ObjectVersion:
    """The version as its event tells it (with a sequencer), where there is one."""
    return listed if event is None or event.identity != listed.identity else event


def _complete(s3: "S3Client", version: ObjectVersion) -> ObjectVersion:
    """An event may lack the ETag (it is optional in the envelope): the object's head has it."""
    from botocore.exceptions import ClientError

    if version.etag:
        return version
    try:
        head = s3.head_object(Bucket=version.bucket, Key=version.key)
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") in {"404", "NoSuchKey"}:
            raise LoadError(Code.GONE, f"s3://{version.bucket}/{version.key} is gone") from None
        raise
    if version.version_id not in {None, "", "null", head.get("VersionId")}:
        raise ObjectChangedError(f"s3://{version.bucket}/{version.key} is not version {version.version_id} any more")
    return replace(
        version,
        etag=head["ETag"].strip('"'),
        bytes=head["ContentLength"],
        version_id=version.version_id or head.get("VersionId"),
    )


def _changed(s3: "S3Client", version: ObjectVersion) -> bool:
    """Whether the key holds another version by now: then that one's event brings its rows, and this one is done."""
    from botocore.exceptions import ClientError

    try:
        head = s3.head_object(Bucket=version.bucket, Key=version.key)
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") in {"404", "NoSuchKey"}:
            return True
        raise
    return head["ETag"].strip('"') != version.etag
