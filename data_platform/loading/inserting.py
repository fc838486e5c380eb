"""Objects into free places: intents written ahead, statements sent side by side, rows counted, ends written down.

Each object's rows come with one statement that takes effect as a whole or not at all, so how many run at once changes
nothing about any of them.
"""

import logging
import threading
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime

from data_platform.clients import clickhouse
from data_platform.errors import Fault, TransientError
from data_platform.loading.decide import Outcome
from data_platform.loading.errors import Code, LoadError, diagnose
from data_platform.loading.group import Group
from data_platform.loading.lock import Lease
from data_platform.loading.plans import Checked, Load, Plan, halves, plan_loads
from data_platform.loading.register import ObjectRecord, State, finished
from data_platform.loading.replacing import replace_object
from data_platform.loading.running import wait_ended
from data_platform.loading.source import Now, look_again
from data_platform.loading.statement import deduplication_token, insert_objects

# Statements of a group that run at once, if the domain's memory admits them. Six objects of 5 MB took 545 ms one after
# the other, 310 ms by twos and by threes (2 cores); further ones hide the waiting for S3.
AT_ONCE = 4
# Register rows of a partition up to which a list of objects is found by listing S3: a request for 1,000 keys, where it
# would be a HEAD for each (measured, 100 objects of 2,000 rows: half of S3's work, two thirds of the time).
LISTED_PARTITION = 5_000

# Bytes, uncompressed, of an object that one thread reads: several are under way at once, of this group or by the other
# workers, and each second thread takes more than it gives (six objects of 5 MB by threes, without other work: 333 and
# 374 ms, 279 and 350 with one each; one after the other it made no difference).
ONE_THREAD_BYTES = 64 * 2**20

log = logging.getLogger(__name__)


def insert(group: Group, lease: Lease, objects: Sequence[Checked]) -> None:
    """Load objects no rows of which should be there; after an unfinished start, rows may be."""
    begun = {each.version.identity for each in objects} & group.known.keys()
    present = group.target.rows_by_object(group.partition.ds, identities=begun)
    fresh: list[Checked] = []
    for each in objects:
        rows = present.get(each.version.identity, 0)
        if rows == 0:
            fresh.append(each)
        elif rows == each.footer.rows:
            _write_loaded(group, [each], {})
        else:
            replace_object(group, lease, each, frozenset())
    if not fresh:
        return
    loads = plan_loads(fresh, memory=group.memory, smaller=group.smaller)
    intents = {each.version.identity: _intent(group, each, load) for load in loads for each in load.objects}
    group.warehouse.register.write(group.partition, list(intents.values()))
    failures = _Sender(group, lease).send(loads)
    _prove(group, lease, fresh, intents, failures)


def _intent(group: Group, each: Checked, load: Load) -> ObjectRecord:
    mine = group.known.get(each.version.identity)
    unfinished = mine.starts if mine is not None and mine.state is State.INTENT else 0
    versions = [other.version for other in load.objects]
    return ObjectRecord(
        each.version,
        State.INTENT,
        group.state.generation,
        rows=each.footer.rows,
        plan=load.plan,
        query_id=deduplication_token(group.partition, versions, group.state.generation),
        attempts=mine.attempts if mine is not None else 0,
        starts=unfinished + 1,
        started_at=datetime.now(UTC),
    )


# Sending


class _Sender:
    """Sends a group's statements, some at once; what each object's last statement raised."""

    def __init__(self, group: Group, lease: Lease) -> None:
        self._group = group
        self._lease = lease
        self._stages = _Stages(group.stage)
        self._listed = False
        self._failures: dict[str, Exception] = {}

    def send(self, loads: Sequence[Load]) -> dict[str, Exception]:
        """Send all; returns the errors by object identity. Raises what is a bug of ours, when nothing runs any more."""
        if any(load.plan is Plan.LIST for load in loads):
            register = self._group.warehouse.register
            self._listed = self._lease.first or register.size(self._group.partition) <= LISTED_PARTITION
        if len(loads) == 1:
            self._one(loads[0])
        else:
            with ThreadPoolExecutor(min(AT_ONCE, len(loads)), thread_name_prefix="insert") as pool:
                for sent in [pool.submit(self._one, load) for load in loads]:
                    sent.result()
        return self._failures

    def _one(self, load: Load) -> None:
        """One statement. A list that fails for what is in it is halved until the culprit is alone."""
        try:
            self._admitted(load)
        except Exception as error:
            diagnosis = diagnose(error)
            if diagnosis is None:
                raise
            if len(load.objects) > 1 and (diagnosis.system is None or diagnosis.fault is Fault.PERMANENT):
                log.info("a list of %d objects failed (%s), halving it", len(load.objects), diagnosis.reason)
                for half in halves(load):
                    self._one(half)
                return
            for each in load.objects:
                self._failures[each.version.identity] = error

    def _admitted(self, load: Load) -> None:
        """The statement, once its memory is free; raises what it raised."""
        if load.plan is Plan.NOTHING:
            return
        with ExitStack() as held:
            with self._stages.at("admission"):
                granted = held.enter_context(self._group.admit(load.memory))
            if load.plan is Plan.STAGED:
                with self._stages.at("insert"):
                    self._staged(load.objects[0], granted)
            else:
                self._block(load, granted)

    def _block(self, load: Load, memory: int) -> None:
        """The one-block insert. Where ClickHouse may read the objects but not list them, each is looked for alone."""
        listed = self._listed and load.plan is Plan.LIST
        try:
            self._execute(load, memory, listed=listed)
        except Exception as error:
            diagnosis = diagnose(error)
            if not listed or diagnosis is None or diagnosis.fault is not Fault.CONFIGURATION:
                raise
            log.info("%s cannot be listed from ClickHouse: %s", self._group.partition.name, diagnosis.reason)
            self._listed = False
            self._execute(load, memory, listed=False)

    def _execute(self, load: Load, memory: int, *, listed: bool) -> None:
        """Send the insert; returns when its end is known, raises when it failed."""
        warehouse, settings = self._group.warehouse, self._group.warehouse.settings
        statement = insert_objects(
            settings,
            self._group.dataset,
            self._group.partition,
            [each.version for each in load.objects],
            load.objects[0].footer.schema,
            generation=self._group.state.generation,
            max_memory=memory,
            fence=self._lease.fence,
            listed=listed,
            threads=_threads(load),
        )
        failed: Exception | None = None
        with self._lease.until_known():
            try:
                with self._stages.at("insert"):
                    chosen = statement.known_to(warehouse.client.server_settings)
                    warehouse.client.command(statement.sql, settings=chosen)
            except Exception as error:  # noqa: BLE001 - raised again, once nothing runs any more
                failed = error
                if clickhouse.classify(error) is Fault.UNKNOWN:
                    # It may run still, or have been executed. The process list knows the one, the rows the other.
                    with self._stages.at("wait"):
                        patience_s = settings.clickhouse_timeout_s
                        wait_ended(warehouse.client, settings, statement.query_id, patience_s=patience_s)
        if failed is not None:
            raise failed

    def _staged(self, each: Checked, memory: int) -> None:
        """An object beyond the memory of a block: many blocks into a staging table, counted, then moved in one step."""
        group, warehouse = self._group, self._group.warehouse
        ds = group.partition.ds
        with group.target.staging(ds, self._lease) as staged:
            statement = insert_objects(
                warehouse.settings,
                group.dataset,
                group.partition,
                [each.version],
                each.footer.schema,
                generation=group.state.generation,
                max_memory=memory,
                staged=staged,
                small_blocks=True,
            )
            warehouse.client.command(statement.sql, settings=statement.settings)
            found = group.target.rows_by_object(ds, table=staged).get(each.version.identity, 0)
            if found != each.footer.rows:
                if look_again(warehouse.s3, each.version) is not Now.SAME:
                    return
                raise TransientError(f"{found} rows of {each.version.key} were staged, {each.footer.rows} expected")
            warehouse.locks.check(self._lease)
            with self._lease.until_known():
                group.target.move_in(ds, staged)


def _threads(load: Load) -> int | None:
    """Threads that read one object; None for the server's own number, which a list needs to wait for S3 less."""
    (first, *others) = load.objects
    return 1 if not others and first.footer.uncompressed_bytes <= ONE_THREAD_BYTES else None


class _Stages:
    """One word for what several statements do: one works in the server, else an answer is missing, else they wait."""

    ORDER = ("insert", "wait", "admission")

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._at: Counter[str] = Counter()
        self._told = ""
        self._lock = threading.Lock()

    @contextmanager
    def at(self, name: str) -> Generator[None]:
        """A statement is at this stage."""
        self._change(name, 1)
        try:
            yield
        finally:
            self._change(name, -1)

    def _change(self, name: str, by: int) -> None:
        with self._lock:
            self._at[name] += by
            now = next((stage for stage in self.ORDER if self._at[stage]), self._told)
            if now != self._told:
                self._told = now
                self._tell(now)


# Proving


def _prove(
    group: Group,
    lease: Lease,
    objects: Sequence[Checked],
    intents: dict[str, ObjectRecord],
    failures: dict[str, Exception],
) -> None:
    """Write down what the rows say became of each object, whatever its statement said."""
    group.stage("prove")
    identities = {each.version.identity for each in objects}
    present = group.target.rows_by_object(group.partition.ds, identities=identities)
    # After a failure an object without rows proves nothing.
    loaded = [
        each
        for each in objects
        if present.get(each.version.identity, 0) == each.footer.rows
        and (each.footer.rows or each.version.identity not in failures)
    ]
    _write_loaded(group, loaded, intents)
    done = {each.version.identity for each in loaded}
    for each in objects:
        identity = each.version.identity
        if identity in done:
            continue
        failed = failures.get(identity)
        if failed is not None and not _of_contents(failed):
            group.fail(each.version, failed)
            continue
        # What could not be read, or was not there, may have been overwritten or deleted since its footer was read.
        now = Now.SAME if present.get(identity, 0) else look_again(group.warehouse.s3, each.version)
        if now is Now.ANOTHER:
            group.done(Outcome.SUPERSEDED, each.version, 0)
        elif now is Now.GONE:
            group.fail(each.version, LoadError(Code.GONE, f"s3://{each.version.bucket}/{each.version.key} is gone"))
        elif failed is not None:
            group.fail(each.version, failed)
        else:
            # Nothing was written although nothing failed: the lease was lost, or a token outlived its rows.
            group.warehouse.locks.check(lease)
            replace_object(group, lease, each, frozenset())


def _of_contents(error: Exception) -> bool:
    """Whether the statement failed for what it read."""
    diagnosis = diagnose(error)
    return diagnosis is not None and diagnosis.code in {Code.PARSE, Code.FORMAT, Code.GONE}


def _write_loaded(group: Group, objects: Sequence[Checked], intents: dict[str, ObjectRecord]) -> None:
    if not objects:
        return
    group.stage("write down")
    records: list[ObjectRecord] = []
    for each in objects:
        record = intents.get(each.version.identity) or group.known_as(each)
        records.append(finished(record, State.LOADED, generation=group.state.generation, starts=0))
    group.write(records)
    for each, record in zip(objects, records, strict=True):
        group.done(Outcome.LOADED, each.version, each.footer.rows, record.plan)
