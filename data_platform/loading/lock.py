"""A lease per name, kept in ClickHouse itself, since the loader may rely on nothing else being reachable.

ClickHouse has no compare-and-set, but an insert with a deduplication token is one: of all inserts with the token
`lock:<name>:<epoch>` exactly one is kept. The epoch is the fencing token: whoever lost the lease can see that it is no
longer the newest. (Six writers racing for 58 epochs: one row each, measured on 26.9.)
"""

import secrets
import socket
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from data_platform.errors import Fault, PlatformError, TransientError

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

LEASE_S = 30.0
POLL_S = 0.05
COLUMNS = ("name", "epoch", "owner", "kind", "expires_at")
_NEWEST = """
SELECT epoch, argMax(owner, made_at), argMax(kind, (made_at, kind)), max(expires_at), now64(3)
FROM platform.locks
WHERE name = {name:String} AND epoch = (SELECT max(epoch) FROM platform.locks WHERE name = {name:String})
GROUP BY epoch
"""


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
    """A held lease; `epoch` is its fencing token; `lost` is set when a renewal found another owner."""

    name: str
    epoch: int
    owner: str
    lost: bool = False


class PartitionLocks:
    """Takes, renews and frees leases in `platform.locks` for one owner."""

    def __init__(self, client: "Client", owner: str, *, lease_s: float = LEASE_S) -> None:
        self._client = client
        self._owner = owner
        self._lease_s = lease_s
        # Within one process threads queue here instead of polling the table.
        self._local: dict[str, threading.Lock] = {}
        self._guard = threading.Lock()

    @contextmanager
    def hold(self, name: str, *, wait_s: float = 120.0) -> Generator[Lease]:
        """Hold the lease of `name`; waits up to `wait_s` seconds. Raises LockHeldError."""
        with self._guard:
            local = self._local.setdefault(name, threading.Lock())
        if not local.acquire(timeout=wait_s):
            raise LockHeldError(f"{name} is being changed by another thread of {self._owner}")
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
                self._write(lease, "free", timedelta(0))
        finally:
            local.release()

    def check(self, lease: Lease) -> None:
        """Look at the lease before a step that cannot be undone. Raises LeaseLostError when another has taken it."""
        epoch, owner, _, expires_at, now = self._newest(lease.name)
        if lease.lost or epoch != lease.epoch or owner != lease.owner or expires_at <= now:
            raise LeaseLostError(f"the lease on {lease.name} was lost", hint="the work is looked at and redone")

    def _beat(self, lease: Lease, ended: threading.Event) -> None:
        """Renew every third of the lease, so that a long insert keeps it and a killed process loses it soon."""
        while not ended.wait(self._lease_s / 3):
            epoch, owner, *_ = self._newest(lease.name)
            if epoch != lease.epoch or owner != lease.owner:
                lease.lost = True
                return
            self._write(lease, "renew", timedelta(seconds=self._lease_s))

    def _take(self, name: str, wait_s: float) -> Lease:
        deadline = time.monotonic() + wait_s
        while True:
            epoch, owner, kind, expires_at, now = self._newest(name)
            if kind == "free" or expires_at <= now:
                lease = Lease(name, epoch + 1, f"{self._owner}/{secrets.token_hex(4)}")
                self._write(lease, "take", timedelta(seconds=self._lease_s), token=f"lock:{name}:{lease.epoch}")
                if self._newest(name)[:2] == (lease.epoch, lease.owner):
                    return lease
            elif time.monotonic() >= deadline:
                raise LockHeldError(f"{name} is held by {owner} until {expires_at:%H:%M:%S} UTC", hint="try again then")
            time.sleep(POLL_S)

    def _newest(self, name: str) -> tuple[int, str, str, datetime, datetime]:
        rows = self._client.query(_NEWEST, parameters={"name": name}).result_rows
        if rows:
            epoch, owner, kind, expires_at, now = rows[0]
            return int(epoch), str(owner), str(kind), expires_at, now
        nothing = datetime.min.replace(tzinfo=UTC)
        return 0, "", "free", nothing, nothing

    def _write(self, lease: Lease, kind: str, lifetime: timedelta, *, token: str | None = None) -> None:
        settings = {"async_insert": 0, "insert_deduplicate": 0 if token is None else 1}
        if token is not None:
            settings["insert_deduplication_token"] = token  # pyright: ignore[reportArgumentType]
        # The server's clock alone decides: no two machines have to agree on the time.
        self._client.command(
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
