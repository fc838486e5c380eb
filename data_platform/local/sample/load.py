"""Puts the sample data into the engines of the settings, part by part; what is already there is not put again.

What belongs here: the parts, S3, the guard against real accounts. What does not: how the data are made.
"""

import hashlib
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from urllib.parse import urlsplit

import psycopg
from botocore.exceptions import BotoCoreError, ClientError
from sqlalchemy.exc import SQLAlchemyError

from data_platform.clients import aws, postgres
from data_platform.errors import ConfigurationError, PlatformError
from data_platform.local.sample.otel import log_objects
from data_platform.local.sample.users import CSV_NAME, load_users, statistics_csv
from data_platform.local.sample.warehouse import load_flights
from data_platform.settings import Settings

Tell = Callable[[str], None]
PUTS_AT_ONCE = 4
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


class SampleError(PlatformError):
    """The sample data could not be put into an engine."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """One thing that holds sample data now. `seconds` are those of its whole part."""

    part: str
    target: str
    rows: int | None
    state: str  # loaded, unchanged, or why it was skipped
    seconds: float


def load_sample(settings: Settings, parts: Iterable[str] | None = None, tell: Tell | None = None) -> list[Loaded]:
    """Load `parts` (all of PARTS) in their order; `tell` hears of the progress.

    Idempotent: tables are replaced in one transaction, objects that are the same are left alone, users are added.
    Raises ConfigurationError when the settings lead to something else than the embedded cloud; SampleError.
    """
    _refuse_real_engines(settings)
    wanted = set(PARTS if parts is None else parts)
    say = tell or (lambda _line: None)
    loaded: list[Loaded] = []
    for part, load in PARTS.items():
        if part not in wanted:
            continue
        begun = time.monotonic()
        try:
            results = load(settings, say)
        except (BotoCoreError, ClientError) as error:
            raise SampleError(
                f"{part}: {error}", hint="data-platform provision makes the buckets", fault=aws.classify(error)
            ) from error
        except (psycopg.Error, SQLAlchemyError) as error:
            raise SampleError(
                f"{part}: {error}", hint="data-platform cloud status", fault=postgres.classify(error)
            ) from error
        seconds = round(time.monotonic() - begun, 2)
        loaded += [Loaded(part, target, rows, state, seconds) for target, rows, state in results]
        say(f"{part}: done in {seconds:.1f} s")
    return loaded


def _refuse_real_engines(settings: Settings) -> None:
    """Sample data must never reach a real warehouse or bucket: every endpoint has to be on this machine."""
    settings.require("aws_endpoint_url", "redshift_host", "postgres_url")
    postgres_url = "" if settings.postgres_url is None else settings.postgres_url.get_secret_value()
    hosts = {
        "AWS_ENDPOINT_URL": urlsplit(settings.aws_endpoint_url or "").hostname,
        "REDSHIFT_HOST": settings.redshift_host,
        "POSTGRES_URL": urlsplit(postgres_url).hostname,
    }
    elsewhere = [f"{name} leads to {host}" for name, host in hosts.items() if host not in LOOPBACK]
    if elsewhere:
        raise ConfigurationError(
            f"sample data are for the embedded cloud only: {'; '.join(elsewhere)}",
            hint="unset these variables, or: eval $(data-platform cloud env)",
        )


_Results = list[tuple[str, int | None, str]]


def _flights(settings: Settings, tell: Tell) -> _Results:
    return [(table.table, table.rows, "loaded") for table in load_flights(settings, tell)]


def _events(settings: Settings, tell: Tell) -> _Results:
    objects = list(log_objects())
    bodies = {each.key: each.body for each in objects}
    put = _put(settings, bodies, prefix="otel-logs/")
    records = sum(each.records for each in objects)
    tell(f"s3://{settings.raw_bucket}/otel-logs/: {len(objects)} objects, {records:,} log records, {put} put")
    return [(f"s3://{settings.raw_bucket}/otel-logs/", records, "loaded" if put else "unchanged")]


def _users(settings: Settings, tell: Tell) -> _Results:
    count = load_users(settings)
    state = "loaded" if count is not None else "skipped: no table users; data-platform provision"
    tell(f"users: {state if count is None else f'{count} users'}")
    return [("users", count, state)]


def _csv(settings: Settings, tell: Tell) -> _Results:
    body = statistics_csv()
    put = _put(settings, {f"incoming/{CSV_NAME}": body}, prefix="incoming/")
    target = f"s3://{settings.raw_bucket}/incoming/{CSV_NAME}"
    lines = body.count(b"\n")
    tell(f"{target}: {lines} lines")
    return [(target, lines - 1, "loaded" if put else "unchanged")]


# In the order of loading: the file comes after the users it speaks of.
PARTS: Mapping[str, Callable[[Settings, Tell], _Results]] = {
    "flights": _flights,
    "events": _events,
    "users": _users,
    "csv": _csv,
}


def _put(settings: Settings, bodies: Mapping[str, bytes], *, prefix: str) -> int:
    """Put the objects whose contents differ from what is there; how many these were."""
    s3 = aws.s3(settings)
    bucket = settings.raw_bucket
    present: dict[str, str] = {}
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        for found in page.get("Contents", []):
            present[found.get("Key", "")] = found.get("ETag", "").strip('"')

    def put(key: str) -> None:
        if key.endswith(".gz"):  # as the Collector's exporter does it; readers go by the content, never by this
            s3.put_object(Bucket=bucket, Key=key, Body=bodies[key], ContentEncoding="gzip")
        else:
            s3.put_object(Bucket=bucket, Key=key, Body=bodies[key])

    # The ETag of an object that was put whole is the MD5 of its contents.
    changed = [key for key, body in bodies.items() if present.get(key) != _md5(body)]
    with ThreadPoolExecutor(PUTS_AT_ONCE) as pool:
        list(pool.map(put, changed))
    return len(changed)


def _md5(body: bytes) -> str:
    return hashlib.md5(body, usedforsecurity=False).hexdigest()
