"""Bearer tokens of the API: who may read which schemas, how fast, how much. Only a hash of a token is kept.

SHA-256 without salt or stretching is right here: a token is 256 random bits, so there is nothing to guess or to look up
in a table of known passwords, and every request pays for the hash.
"""

import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa  # noqa: TID253 - see base.py

from data_platform.errors import PlatformError
from data_platform.ledger.base import document, instant, metadata

TOKEN_PREFIX = "dpu_"  # noqa: S105 - lets scanners recognise a token that leaked

api_tokens = sa.Table(
    "api_tokens",
    metadata,
    sa.Column("name", sa.Text, primary_key=True, comment="The caller; never given to another token again."),
    sa.Column("token_hash", sa.LargeBinary, nullable=False, unique=True),
    document("schemas"),  # null: the schemas of the catalogue's domains
    sa.Column("requests_per_s", sa.Float, nullable=False),
    sa.Column("burst", sa.Integer, nullable=False),
    sa.Column("concurrency", sa.Integer, nullable=False, comment="Requests that may run at once; more wait."),
    sa.Column("max_open", sa.Integer, nullable=False, comment="Requests that may wait or run; more are refused."),
    sa.Column("daily_requests", sa.Integer, comment="Accepted requests in 24 hours; null: no quota."),
    instant("created_at", now=True),
    instant("revoked_at"),
    sa.CheckConstraint("octet_length(token_hash) = 32", name="token_hash"),
    sa.CheckConstraint("name ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$'", name="name"),
    sa.CheckConstraint("requests_per_s > 0 AND burst > 0 AND concurrency > 0 AND max_open > 0", name="limits"),
)


@dataclass(frozen=True)
class Limits:
    """How fast and how much a caller may."""

    requests_per_s: float = 50.0
    burst: int = 200
    concurrency: int = 10
    max_open: int = 1000
    daily_requests: int | None = None


@dataclass(frozen=True)
class ApiToken:
    """A token's row without its hash."""

    name: str
    schemas: tuple[str, ...] | None
    limits: Limits
    created_at: datetime
    revoked_at: datetime | None


def create(
    connection: sa.Connection, name: str, *, schemas: tuple[str, ...] | None = None, limits: Limits | None = None
) -> str:
    """Make a token for caller `name`; its text is seen only now. Raises PlatformError when the name is taken."""
    limits = limits or Limits()
    token = TOKEN_PREFIX + secrets.token_urlsafe(32)
    taken = connection.execute(sa.select(api_tokens.c.name).where(api_tokens.c.name == name)).first()
    if taken is not None:
        raise PlatformError(f"there is a token {name} already, or there was", hint="choose another name")
    connection.execute(
        sa.insert(api_tokens).values(
            name=name,
            token_hash=hash_of(token),
            schemas=None if schemas is None else list(schemas),
            requests_per_s=limits.requests_per_s,
            burst=limits.burst,
            concurrency=limits.concurrency,
            max_open=limits.max_open,
            daily_requests=limits.daily_requests,
        )
    )
    return token


def find(connection: sa.Connection, token: str) -> ApiToken | None:
    """The caller of a token that is in force."""
    row = connection.execute(
        sa.select(api_tokens).where(api_tokens.c.token_hash == hash_of(token), api_tokens.c.revoked_at.is_(None))
    ).mappings()
    found = row.one_or_none()
    return None if found is None else _token(found)


def every(connection: sa.Connection) -> list[ApiToken]:
    """All tokens, revoked ones too, oldest first."""
    rows = connection.execute(sa.select(api_tokens).order_by(api_tokens.c.created_at)).mappings()
    return [_token(row) for row in rows]


def revoke(connection: sa.Connection, name: str) -> bool:
    """Put a token out of force; False when there is none in force."""
    return (
        connection.execute(
            sa.update(api_tokens)
            .where(api_tokens.c.name == name, api_tokens.c.revoked_at.is_(None))
            .values(revoked_at=sa.func.clock_timestamp())
        ).rowcount
        == 1
    )


def hash_of(token: str) -> bytes:
    """What the ledger keeps of a token."""
    return hashlib.sha256(token.encode()).digest()


def _token(row: Any) -> ApiToken:
    return ApiToken(
        row["name"],
        None if row["schemas"] is None else tuple(row["schemas"]),
        Limits(row["requests_per_s"], row["burst"], row["concurrency"], row["max_open"], row["daily_requests"]),
        row["created_at"],
        row["revoked_at"],
    )
