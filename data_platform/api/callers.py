"""Who calls: bearer token -> caller with schemas and limits, kept for a second so that a revocation counts at once."""

import asyncio
import time
from dataclasses import dataclass

from anyio.to_thread import run_sync

from data_platform.api.limits import Bucket
from data_platform.api.problems import ApiError
from data_platform.api.statements import Statements
from data_platform.catalog import Catalog
from data_platform.catalog.models import RedshiftSource
from data_platform.ledger import api_tokens
from data_platform.ledger.api_tokens import ApiToken, Limits, hash_of

KEPT_S = 1.0
KEPT_AT_MOST = 10_000
_CHALLENGE = {"WWW-Authenticate": "Bearer"}


@dataclass(frozen=True)
class Caller:
    """Who calls, and what the caller may."""

    name: str
    schemas: frozenset[str]
    limits: Limits


class Callers:
    """Knows the tokens, and how fast each caller goes. Belongs to one event loop."""

    def __init__(self, ask: Statements, default_schemas: frozenset[str]) -> None:
        self._ask = ask
        self._default_schemas = default_schemas
        self._known: dict[bytes, tuple[float, Caller]] = {}
        self._reading: dict[bytes, asyncio.Future[ApiToken | None]] = {}
        self._buckets: dict[str, Bucket] = {}

    async def of(self, authorization: str | None) -> Caller:
        """The caller of a call that may go on. Raises ApiError 401 or 429."""
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise ApiError(401, "a bearer token is needed: Authorization: Bearer ...", headers=_CHALLENGE)
        caller = await self._find(token.strip())
        limits = caller.limits
        bucket = self._buckets.get(caller.name)
        if bucket is None or (bucket.rate, bucket.burst) != (limits.requests_per_s, limits.burst):
            bucket = self._buckets[caller.name] = Bucket(limits.requests_per_s, limits.burst)
        wait = bucket.take()
        if wait:
            raise ApiError(
                429, f"more than {limits.requests_per_s:g} calls a second", headers={"Retry-After": str(wait)}
            )
        return caller

    async def _find(self, token: str) -> Caller:
        key = hash_of(token)
        known = self._known.get(key)
        if known is not None and time.monotonic() - known[0] < KEPT_S:
            return known[1]
        reading = self._reading.get(key)
        if reading is None:
            reading = self._reading[key] = asyncio.ensure_future(run_sync(self._read, token))
            reading.add_done_callback(lambda _: self._reading.pop(key, None))
        found = await asyncio.shield(reading)  # one caller's hundred calls ask once; one that breaks off stops no other
        if found is None:
            self._known.pop(key, None)
            raise ApiError(401, "this token is unknown or was revoked", headers=_CHALLENGE)
        schemas = self._default_schemas if found.schemas is None else frozenset(found.schemas)
        caller = Caller(found.name, schemas, found.limits)
        if len(self._known) >= KEPT_AT_MOST:
            self._known.clear()
        self._known[key] = (time.monotonic(), caller)
        return caller

    def _read(self, token: str) -> ApiToken | None:
        return self._ask(lambda connection: api_tokens.find(connection, token))


def schemas_of(catalog: Catalog) -> frozenset[str]:
    """The schemas of the catalogue's domains: named as the domain, or where its datasets come from."""
    schemas = {domain.lower() for domain in catalog.domains}
    for dataset in catalog.datasets.values():
        source = dataset.source
        if isinstance(source, RedshiftSource) and source.table is not None and "." in source.table:
            schemas.add(source.table.partition(".")[0].strip('"').lower())
    return frozenset(schemas)
