"""What is built of a service, as one JSON object on S3: written behind the work by one conditional put.

The lease beside it keeps two runs from working on one service; the condition keeps a run that lost it from committing.
"""

import json
import secrets
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, ValidationError

from data_platform.analytics.athena.graph import DayGraph
from data_platform.analytics.athena.layout import Places, split_url
from data_platform.errors import Fault, PlatformError, TransientError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

LEASE_S = 60.0
POLL_S = 0.5


class Model(BaseModel):
    """Base: frozen, nothing unknown."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Source(Model):
    """A curated partition as it was read: the manifest's ETag, its files, their bytes."""

    etag: str
    files: tuple[str, ...] = ()
    bytes: int = 0


class Published(Model):
    """A summary table: what it was made from, where its data lies."""

    fingerprint: str
    location: str
    sequence: int
    generation: int
    execution_date: date
    columns: tuple[tuple[str, str], ...]
    rows: int
    first_day: date | None
    last_day: date | None


class ServiceState(Model):
    """Everything that is built of a service. `generation` rises with every change of the blocks."""

    format: int = 1
    generation: int = 0
    config: str = ""
    sources: dict[date, Source] = {}
    places: dict[str, dict[date, str]] = {}  # block, local day: location of the partition
    block_bytes: dict[str, dict[date, int]] = {}
    records: dict[date, list[date]] = {}
    sessions: dict[date, list[date]] = {}
    fills: list[date] = []
    tables: dict[str, Published] = {}

    @property
    def graph(self) -> DayGraph:
        """The ties between its days."""
        return DayGraph(
            {day: frozenset(each) for day, each in self.records.items()},
            {day: frozenset(each) for day, each in self.sessions.items()},
            frozenset(self.fills),
        )

    @property
    def days(self) -> list[date]:
        """The days with events, ascending."""
        return sorted(self.places.get("event_days", {}))


class LeaseHeldError(PlatformError):
    """Another run works on the service."""

    fault = Fault.TRANSIENT


@dataclass
class Stored:
    """A state with the ETag that its replacement must meet; None: there was none."""

    state: ServiceState
    etag: str | None


def read_state(s3: "S3Client", places: Places) -> Stored:
    """The state of the service, an empty one where nothing is built."""
    body, etag = _get(s3, places.state)
    if body is None:
        return Stored(ServiceState(), None)
    try:
        return Stored(ServiceState.model_validate_json(body), etag)
    except ValidationError as error:
        raise PlatformError(
            f"{places.state} is no state of a service: {error.errors()[0]['msg']}",
            hint="remove it: everything it describes is derived and is built anew",
        ) from None


def commit_state(s3: "S3Client", places: Places, stored: Stored, state: ServiceState) -> Stored:
    """Replace the state. Raises TransientError when another run did so in the meantime."""
    etag = _put(s3, places.state, state.model_dump_json().encode(), stored.etag)
    if etag is None:
        raise TransientError(f"{places.state} was replaced by another run in the meantime", hint="run it again")
    return Stored(state, etag)


class Lease:
    """The right to work on a service, renewed every third of its time while held."""

    def __init__(self, s3: "S3Client", url: str, owner: str, lease_s: float) -> None:
        self._s3, self._url, self._owner, self._lease_s = s3, url, owner, lease_s
        self._etag: str | None = None
        self._ended = threading.Event()
        self._lost = False

    def acquire(self) -> bool:
        """Take it, when it is free or over."""
        body, etag = _get(self._s3, self._url)
        if body is not None:
            known = json.loads(body)
            if known["owner"] and known["until"] > time.time():
                return False
        self._etag = self._write(self._owner, etag)
        return self._etag is not None

    def renew(self) -> None:
        """Keep it; notes when another has taken it."""
        while not self._ended.wait(self._lease_s / 3):
            etag = self._write(self._owner, self._etag)
            if etag is None:
                self._lost = True
                return
            self._etag = etag

    def check(self) -> None:
        """Raise TransientError unless it is still ours."""
        if self._lost:
            raise TransientError(f"{self._url} was taken by another run", hint="nothing was swapped; run it again")

    def release(self) -> None:
        """Give it back."""
        self._ended.set()
        if not self._lost:
            self._write("", self._etag)

    def end(self) -> None:
        """Stop renewing."""
        self._ended.set()

    def _write(self, owner: str, etag: str | None) -> str | None:
        body = json.dumps({"owner": owner, "until": time.time() + self._lease_s}).encode()
        return _put(self._s3, self._url, body, etag)


@contextmanager
def leased(s3: "S3Client", places: Places, *, wait_s: float = 600.0, lease_s: float = LEASE_S) -> Generator[Lease]:
    """Hold the lease of a service. Raises LeaseHeldError after `wait_s` seconds."""
    lease = Lease(s3, places.lease, secrets.token_hex(8), lease_s)
    deadline = time.monotonic() + wait_s
    while not lease.acquire():
        if time.monotonic() > deadline:
            raise LeaseHeldError(
                f"another run works on {places.service}", hint="let it finish; if it is dead, its lease ends by itself"
            )
        time.sleep(POLL_S)
    thread = threading.Thread(target=lease.renew, name="athena-lease", daemon=True)
    thread.start()
    try:
        yield lease
    finally:
        lease.end()
        thread.join()
        lease.release()


def _get(s3: "S3Client", url: str) -> tuple[bytes | None, str | None]:
    from botocore.exceptions import ClientError

    bucket, key = split_url(url)
    try:
        answer = s3.get_object(Bucket=bucket, Key=key)
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") in {"NoSuchKey", "404"}:
            return None, None
        raise
    return answer["Body"].read(), answer["ETag"]


def _put(s3: "S3Client", url: str, body: bytes, etag: str | None) -> str | None:
    """Put if the object is still as `etag` says (None: not there); the new ETag, or None when it is not.

    A put whose answer was lost is repeated by the client and then meets its own object: what lies there decides.
    """
    from botocore.exceptions import ClientError

    bucket, key = split_url(url)
    condition: dict[str, Any] = {"IfNoneMatch": "*"} if etag is None else {"IfMatch": etag}
    try:
        return s3.put_object(Bucket=bucket, Key=key, Body=body, ContentType="application/json", **condition)["ETag"]
    except ClientError as error:
        if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") not in {404, 409, 412}:
            raise
    found, current = _get(s3, url)
    return current if found == body else None
