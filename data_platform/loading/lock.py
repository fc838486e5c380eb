"""A lease per name, kept in ClickHouse itself, since the loader may rely on nothing else being reachable.

ClickHouse has no compare-and-set, but an insert with a deduplication token is one: of all inserts with the token
`lock:<name>:<epoch>` exactly one is kept. The epoch is the fencing token: it stands in the loading statement itself,
so that what a paused holder sends after it lost the lease writes nothing. (Six writers racing for 58 epochs: one row
each, measured on 26.9.)
"""

import logging
import secrets
import socket
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from data_platform.catalog.ddl import literal
from data_platform.clients import clickhouse
from data_platform.errors import Fault, PlatformError, TransientError

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

LEASE_S = 30.0
POLL_S = 0.05
_NEWEST = """
SELECT epoch, argMinIf(owner, made_at, kind = 'take'), countIf(kind = 'free') > 0, max(expires_at), now64(3)
FROM platform.locks
WHERE name = {name:String} AND epoch = (SELECT max(epoch) FROM platform.locks WHERE name = {name:String})
GROUP BY epoch
"""
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

    `took_over`: the holder before let it expire, so what it began may still run or lie about. `unresolved`: a statement
    of ours may still run in the server, so the lease is left to expire, and whoever comes next looks for it.
    """

    name: str
    epoch: int
    owner: str
    took_over: bool = False
    unresolved: bool = False
    lost: bool = False

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


@dataclass
class PartitionLocks:
    """Takes, renews and frees leases in `platform.locks` for one owner. Threads queue here, not at the table."""

    client: "Client"
    owner: str
    lease_s: float = LEASE_S
    _local: dict[str, threading.Lock] = field(default_factory=dict[str, threading.Lock], init=False)
    _guard: threading.Lock = field(default_factory=threading.Lock, init=False)

    @contextmanager
    def hold(self, name: str, *, wait_s: float = 120.0) -> Generator[Lease]:
        """Hold the lease of `name`; waits up to `wait_s` seconds. Raises LockHeldError."""
        with self._guard:
            local = self._local.setdefault(name, threading.Lock())
        if not local.acquire(timeout=wait_s):
            raise LockHeldError(f"{name} is being changed by another thread of {self.owner}")
        try:
            lease = self._take(name, wait_s)
            ended = threading.Event()
            heartbeat = threading.Thread(target=self._beat, args=(lease, ended), name="lease", daemon=True)
            heartbeat.start()
            try:
                yield lease
            finally:
                ended.set()
                heartbeat.join()
                self._free(lease)
        finally:
            local.release()

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
                if clickhouse.classify(error) in {Fault.PERMANENT, Fault.CONFIGURATION}:
                    raise
                log.warning("the lease on %s could not be renewed, trying again: %s", lease.name, error)

    def _free(self, lease: Lease) -> None:
        """Let go at once where all is known; a lease that cannot be freed, or must not, expires."""
        if lease.unresolved or lease.lost:
            return
        try:
            self._write(lease, "free", timedelta(0))
        except Exception as error:
            if clickhouse.classify(error) in {Fault.PERMANENT, Fault.CONFIGURATION}:
                raise
            log.warning("the lease on %s could not be freed, it expires: %s", lease.name, error)

    def _take(self, name: str, wait_s: float) -> Lease:
        deadline = time.monotonic() + wait_s
        while True:
            newest = self._newest(name)
            if newest.free or newest.expires_at <= newest.now:
                lease = Lease(name, newest.epoch + 1, f"{self.owner}/{secrets.token_hex(4)}", took_over=not newest.free)
                self._write(lease, "take", timedelta(seconds=self.lease_s), token=f"lock:{name}:{lease.epoch}")
                taken = self._newest(name)
                if (taken.epoch, taken.owner) == (lease.epoch, lease.owner):
                    return lease
            elif time.monotonic() >= deadline:
                raise LockHeldError(
                    f"{name} is held by {newest.owner} until {newest.expires_at:%H:%M:%S} UTC", hint="try again then"
                )
            time.sleep(POLL_S)

    def _newest(self, name: str) -> _Newest:
        rows = self.client.query(_NEWEST, parameters={"name": name}).result_rows
        if not rows:
            return _Newest()
        epoch, owner, free, expires_at, now = rows[0]
        return _Newest(int(epoch), str(owner), bool(free), expires_at, now)

    def _write(self, lease: Lease, kind: str, lifetime: timedelta, *, token: str | None = None) -> None:
        settings: dict[str, str | int] = {"async_insert": 0, "insert_deduplicate": 0 if token is None else 1}
        if token is not None:
            settings["insert_deduplication_token"] = token
        # The server's clock alone decides: no two machines have to agree on the time.
        self.client.command(
            "INSERT INTO platform.locks (name, epoch, owner, kind, expires_at) "
            "SELECT {name:String}, {epoch:UInt64}, {owner:String}, {kind:String}, "
            "now64(3) + toIntervalMillisecond({lifetime:UInt32}) ORDER BY ALL",
            parameters={
                "name": lease.name,
                "epoch": lease.epoch,
                "owner": lease.owner,
                "kind": kind,
                "lifetime": int(lifetime.total_seconds() * 1000),
            },
            settings=settings,
        )
