"""A lease per name, kept in ClickHouse itself, since the loader may rely on nothing else being reachable.

ClickHouse has no compare-and-set, but an insert with a deduplication token is one: of all inserts with the token
`lock:<name>:<epoch>` exactly one is kept. The epoch is the fencing token: it stands in the loading statement itself,
so that what a paused holder sends after it lost the lease writes nothing. (Six writers racing for 58 epochs: one row
each, measured on 26.9.)
"""

import logging
import math
import secrets
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

from data_platform.catalog.ddl import literal
from data_platform.clients import clickhouse
from data_platform.errors import Fault, PlatformError, TransientError
from data_platform.loading.convoy import Straggler
from data_platform.loading.errors import is_mistake

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

LEASE_S = 30.0
POLL_S = 0.05  # between looks at a lease that another process holds: half of the shortest load under it
LINGER_S = POLL_S  # what lets several workers' leases end meanwhile, and makes nobody wait for more than a look longer
_ALONE = {"async_insert": 0, "max_threads": 1}  # a row or two: a second thread costs more than it does
REMEMBERED = 10_000  # names whose newest epoch this process knows or guesses, and reaches beyond without looking first
# Flat, without a look for the newest epoch first: half the time of the statement that had one.
_NEWEST = """
SELECT max(epoch), argMinIf(owner, (-toInt64(epoch), made_at), kind = 'take'), maxIf(epoch, kind = 'free') = max(epoch),
    argMax(expires_at, (epoch, expires_at)), now64(3), %s
FROM platform.locks
WHERE name = {name:String}
"""
# The server's clock alone decides: no two machines have to agree on the time.
_WRITE = """
INSERT INTO platform.locks (name, epoch, owner, kind, expires_at)
SELECT {name:String}, {epoch:UInt64}, {owner:String}, '%s', now64(3) + toIntervalMillisecond({lifetime:UInt32})
"""
# A guessed epoch that is older than what is there writes nothing, whether or not its token is remembered. (An
# aggregate has a row where there is none to aggregate. As a subquery in WHERE it cost 1.5 ms more.)
_UNLESS_NEWER = "FROM platform.locks WHERE name = {name:String} HAVING max(epoch) < {epoch:UInt64} "
_FREE = """
INSERT INTO platform.locks (name, epoch, owner, kind, expires_at)
SELECT name, epoch, owner, 'free', now64(3) FROM system.one
ARRAY JOIN {names:Array(String)} AS name, {epochs:Array(UInt64)} AS epoch, {owners:Array(String)} AS owner
"""
Condition = tuple[str, Mapping[str, Any]]  # SQL with its parameters
_LONG_AGO = datetime.min.replace(tzinfo=UTC)
log = logging.getLogger(__name__)


class LockHeldError(TransientError):
    """Somebody else holds the lease; it will be freed or expire."""


class LeaseLostError(PlatformError):
    """The lease expired and went to somebody else: what was being done must be looked at again."""

    fault = Fault.UNKNOWN


def worker_name() -> str:
    """A name for this process's work that no other process has: host and a random part."""
    return f"{socket.gethostname()}-{secrets.token_hex(4)}"


@dataclass
class Lease:
    """A held lease; `epoch` is its fencing token.

    `took_over`: the holder before let it expire, so what it began may still run or lie about. `first`: nobody has held
    it before, and what it guards was new when it was taken.
    """

    name: str
    epoch: int
    owner: str
    took_over: bool = False
    lost: bool = False
    first: bool = False
    _open: int = field(default=0, init=False)
    _guard: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    @property
    def unresolved(self) -> bool:
        """Whether a statement of ours may still run in the server: then the lease is left to expire, not freed, and
        whoever comes next looks for it.
        """
        return self._open > 0

    @contextmanager
    def until_known(self) -> Generator[None]:
        """Around a statement that changes the partition. Leaving by an exception means that its end is not known."""
        with self._guard:
            self._open += 1
        yield
        with self._guard:
            self._open -= 1

    @property
    def fence(self) -> str:
        """A condition that is true, in the server, while nobody has taken the lease over."""
        return f"(SELECT max(epoch) FROM platform.locks WHERE name = {literal(self.name)}) = {self.epoch}"


@dataclass(frozen=True)
class _Newest:
    epoch: int = 0
    owner: str = ""
    free: bool = True
    expires_at: datetime = _LONG_AGO
    now: datetime = _LONG_AGO
    new: bool = True


@dataclass
class _Turn:
    """Threads of this process that want the same name."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    threads: int = 0


@dataclass
class PartitionLocks:
    """Takes, renews and frees leases in `platform.locks` for one owner. Threads queue here, not at the table.

    With `linger_s` a lease that ended is freed so much later, by a thread of its own, together with those that ended
    meanwhile: `free_now` waits for no more. A process that dies before leaves what it would have left by dying sooner,
    a lease that expires. The process itself takes it anew without waiting.
    """

    client: "Client"
    owner: str
    lease_s: float = LEASE_S
    linger_s: float = 0.0
    _local: dict[str, "_Turn"] = field(default_factory=dict[str, "_Turn"], init=False)
    _guard: threading.Lock = field(default_factory=threading.Lock, init=False)
    _epochs: OrderedDict[str, tuple[int, float]] = field(
        default_factory=OrderedDict[str, tuple[int, float]], init=False
    )  # by name the newest epoch seen, and until when (monotonic) it is worth guessing that it is free
    _ended: Straggler[Lease] = field(init=False)

    def __post_init__(self) -> None:
        self._ended = Straggler(self._free, self.linger_s)

    @contextmanager
    def hold(self, name: str, *, wait_s: float = 120.0, new: Condition | None = None) -> Generator[Lease]:
        """Hold the lease of `name`; waits up to `wait_s` seconds. Raises LockHeldError.

        `new`: a condition for `Lease.first` besides epoch 1, asked once the lease is held: epochs may have been lost.
        """
        with self._turn(name, wait_s):
            lease = self._take(name, wait_s, new)
            ended = threading.Event()
            heartbeat = threading.Thread(target=self._beat, args=(lease, ended), name="lease", daemon=True)
            heartbeat.start()
            try:
                yield lease
            finally:
                ended.set()
                heartbeat.join()
                self._let_go(lease)

    def free_now(self) -> None:
        """Returns when nothing that ended before waits to be freed."""
        self._ended.finish()

    @contextmanager
    def _turn(self, name: str, wait_s: float) -> Generator[None]:
        """One thread of this process at a time; nothing is kept of names that nobody waits for."""
        with self._guard:
            turn = self._local.setdefault(name, _Turn())
            turn.threads += 1
        try:
            if not turn.lock.acquire(timeout=wait_s):
                raise LockHeldError(f"{name} is being changed by another thread of {self.owner}")
            try:
                yield
            finally:
                turn.lock.release()
        finally:
            with self._guard:
                turn.threads -= 1
                if not turn.threads:
                    del self._local[name]

    def check(self, lease: Lease) -> None:
        """Look at the lease before a step that cannot be undone. Raises LeaseLostError when another has taken it."""
        newest = self._newest(lease.name)
        if lease.lost or newest.epoch != lease.epoch or newest.owner != lease.owner or newest.expires_at <= newest.now:
            raise LeaseLostError(f"the lease on {lease.name} was lost", hint="the work is looked at and redone")

    def _beat(self, lease: Lease, ended: threading.Event) -> None:
        """Renew every third of the lease, so that a long insert keeps it and a killed process loses it soon."""
        while not ended.wait(self.lease_s / 3):
            try:
                newest = self._newest(lease.name)
                if newest.epoch != lease.epoch or newest.owner != lease.owner:
                    lease.lost = True
                    return
                self._write(lease, "renew", timedelta(seconds=self.lease_s))
            except Exception as error:
                if _must_be_told(error):
                    raise
                log.warning("the lease on %s could not be renewed, trying again: %s", lease.name, error)

    def _let_go(self, lease: Lease) -> None:
        """Free it where all is known; a lease that cannot be freed, or must not, expires."""
        if lease.unresolved or lease.lost:
            return
        if not self.linger_s:
            if self._free([lease]):
                self._remember(lease.name, lease.epoch, free_for_s=self.lease_s)
            return
        self._remember(lease.name, lease.epoch, free_for_s=self.lease_s)
        self._ended.append(lease)

    def _free(self, leases: Sequence[Lease]) -> bool:
        """Whether they are free now. Raises what is no failure of the moment."""
        try:
            self.client.command(
                _FREE,
                parameters={
                    "names": [lease.name for lease in leases],
                    "epochs": [lease.epoch for lease in leases],
                    "owners": [lease.owner for lease in leases],
                },
                settings={**_ALONE, "insert_deduplicate": 0},
            )
        except Exception as error:
            if _must_be_told(error):
                raise
            names = ", ".join(lease.name for lease in leases)
            log.warning("the lease on %s could not be freed, it expires: %s", names, error)
            return False
        return True

    def _remember(self, name: str, epoch: int, *, free_for_s: float = 0.0) -> None:
        with self._guard:
            self._epochs[name] = epoch, time.monotonic() + free_for_s
            self._epochs.move_to_end(name)
            while len(self._epochs) > REMEMBERED:
                self._epochs.popitem(last=False)

    def _take(self, name: str, wait_s: float, new: Condition | None) -> Lease:
        deadline = time.monotonic() + wait_s
        with self._guard:
            epoch, free_until = self._epochs.get(name, (0, math.inf))
        # Freed by this process just now, or never met: as a rule nobody has had it since, or ever. If somebody has,
        # nothing is written, and it is seen who.
        guessed = time.monotonic() < free_until
        newest = _Newest(epoch) if guessed else self._newest(name)
        while True:
            if newest.free or newest.expires_at <= newest.now:
                lease = Lease(name, newest.epoch + 1, f"{self.owner}/{secrets.token_hex(4)}", not newest.free)
                self._write(lease, "take", timedelta(seconds=self.lease_s), token=f"lock:{name}:{lease.epoch}")
                newest = self._newest(name, new if lease.epoch == 1 else None)
                self._remember(name, newest.epoch)
                if (newest.epoch, newest.owner) == (lease.epoch, lease.owner):
                    lease.first = lease.epoch == 1 and newest.new
                    return lease
            if time.monotonic() >= deadline:
                raise LockHeldError(
                    f"{name} is held by {newest.owner} until {newest.expires_at:%H:%M:%S} UTC", hint="try again then"
                )
            if not guessed:
                time.sleep(POLL_S)
                newest = self._newest(name)
            guessed = False

    def _newest(self, name: str, new: Condition | None = None) -> _Newest:
        sql, parameters = new or ("1", {})
        asked = self.client.query(_NEWEST % sql, parameters={**parameters, "name": name}, settings={"max_threads": 1})
        found = asked.result_rows[0]
        epoch, owner, free, expires_at, now, is_new = found
        return _Newest(int(epoch), str(owner), bool(free), expires_at, now, bool(is_new))

    def _write(
        self, lease: Lease, kind: Literal["take", "renew"], lifetime: timedelta, *, token: str | None = None
    ) -> None:
        settings: dict[str, str | int] = {**_ALONE, "insert_deduplicate": 0 if token is None else 1}
        if token is not None:
            settings["insert_deduplication_token"] = token
        self.client.command(
            f"{_WRITE % kind}{_UNLESS_NEWER if kind == 'take' else ''}ORDER BY ALL",
            parameters={
                "name": lease.name,
                "epoch": lease.epoch,
                "owner": lease.owner,
                "lifetime": int(lifetime.total_seconds() * 1000),
            },
            settings=settings,
        )


def _must_be_told(error: Exception) -> bool:
    """Whether trying again is in vain: a bug, or a right that is missing. Anything else leaves a lease that expires."""
    return is_mistake(error) or clickhouse.classify(error) is Fault.CONFIGURATION
