"""One attempt of an UNLOAD: a session of its own, the statement, the count, the proof; nothing left behind on failure.

An attempt writes under a prefix of its own, so whatever lies there is its own to delete, and a session that was lost in
the middle can be given up: it is cancelled and its files are removed. Which attempt won is the ledger's to say;
retrying is the caller's decision.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from data_platform.clients import redshift
from data_platform.errors import Fault, PlatformError, TransientError
from data_platform.settings import Settings
from data_platform.unload.manifest import MANIFEST_NAME, UnloadedFile, parse_manifest, prove
from data_platform.unload.statement import UnloadOptions, build_unload

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

RESULTS_PREFIX = "unload-results"


@dataclass(frozen=True)
class UnloadTarget:
    """Where one attempt writes: `unload-results/<request_id>/<attempt>/` in the unload bucket."""

    bucket: str
    request_id: str
    attempt: str

    @property
    def prefix(self) -> str:
        """Key prefix with the closing slash."""
        return f"{RESULTS_PREFIX}/{self.request_id}/{self.attempt}/"

    @property
    def url(self) -> str:
        """The prefix as an S3 URL."""
        return f"s3://{self.bucket}/{self.prefix}"


def target_of(settings: Settings, request_id: str, attempt: int) -> UnloadTarget:
    """Where an attempt writes."""
    return UnloadTarget(settings.unload_bucket, request_id, str(attempt))


def bucket_prefix(settings: Settings) -> str:
    """`s3://bucket/unload-results/`."""
    return f"s3://{settings.unload_bucket}/{RESULTS_PREFIX}/"


@dataclass(frozen=True)
class UnloadResult:
    """A proven result: its files, rows, bytes; how long the warehouse took; the statement's id there."""

    target: UnloadTarget
    files: tuple[UnloadedFile, ...]
    rows: int
    bytes: int
    seconds: float
    query_id: int | None


class AttemptLostError(TransientError):
    """The session was lost while it unloaded; the attempt was given up and leaves nothing behind."""


def run_attempt(
    settings: Settings,
    s3: "S3Client",
    *,
    sql: str,
    target: UnloadTarget,
    options: UnloadOptions,
    on_session: Callable[[redshift.CancelKey], None] | None = None,
    remove: bool = True,
) -> UnloadResult:
    """Run UNLOAD in a session of its own and prove what it wrote.

    `on_session` is told the key that cancels it before the statement is sent; what it raises ends the attempt.

    Raises the driver's or botocore's error as it is (clients.classify tells what it means), AttemptLostError or
    ProofError; in all cases the objects of this attempt are removed first, unless the caller does that (`remove`).
    """
    statement = build_unload(sql, target.url, options, iam_role=settings.redshift_unload_role)
    started = time.monotonic()
    try:
        count, query_id = _execute(settings, statement, on_session)
        seconds = time.monotonic() - started
        files = prove_target(s3, target, count=count, header=options.header)
    except Exception as error:
        # Whatever went wrong, the prefix is this attempt's alone: a failed attempt leaves no orphan files.
        if remove:
            give_up(s3, target, error)
        raise
    return UnloadResult(target, files, count, sum(file.bytes for file in files), seconds, query_id)


def _execute(
    settings: Settings, statement: str, on_session: Callable[[redshift.CancelKey], None] | None
) -> tuple[int, int | None]:
    """Send the statement; returns the rows and the warehouse's id of it."""
    with redshift.connect(settings) as connection:
        key = redshift.cancel_key(connection, settings)
        if on_session is not None:
            on_session(key)
        try:
            with connection.cursor() as cursor:
                cursor.execute(statement)
                cursor.execute("SELECT pg_last_unload_count(), pg_last_query_id()")
                row: Sequence[int | None] = cursor.fetchone() or (None, None)
        except Exception as error:
            if not redshift.is_lost(error):
                raise
            # The warehouse may still be writing: it is told to stop before the files are removed.
            with suppress(OSError):
                redshift.cancel(key)
            raise AttemptLostError(f"the session was lost while it unloaded: {redshift.describe(error)[1]}") from error
    if row[0] is None:
        raise PlatformError(
            "the warehouse did not say how many rows it unloaded",
            hint="nothing of it was taken over; running it again is safe",
            fault=Fault.UNKNOWN,
        )
    return int(row[0]), row[1]


def prove_target(s3: "S3Client", target: UnloadTarget, *, count: int, header: bool = False) -> tuple[UnloadedFile, ...]:
    """Read the manifest and the listing under `target` and prove them against `count`. Raises ProofError."""
    listed = dict(list_prefix(s3, target.bucket, target.prefix))
    manifest_key = f"{target.prefix}{MANIFEST_NAME}"
    manifest = None
    if listed.pop(manifest_key, None) is not None:
        manifest = parse_manifest(s3.get_object(Bucket=target.bucket, Key=manifest_key)["Body"].read())
    return prove(manifest, listed, bucket=target.bucket, count=count, header=header)


def list_prefix(s3: "S3Client", bucket: str, prefix: str) -> Mapping[str, int]:
    """All keys under `prefix` with their sizes in bytes."""
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    return {item.get("Key", ""): item.get("Size", 0) for page in pages for item in page.get("Contents", [])}


def give_up(s3: "S3Client", target: UnloadTarget, error: Exception) -> None:
    """Remove what a failed attempt wrote; what S3 refuses is noted on `error` and left to the bucket's lifecycle."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        remove_attempt(s3, target)
    except (PlatformError, BotoCoreError, ClientError) as left:
        error.add_note(f"files under {target.url} could not be removed: {left}")


def remove_attempt(s3: "S3Client", target: UnloadTarget) -> int:
    """Delete every object of one attempt; returns how many. Raises PlatformError where S3 refuses some."""
    keys = list(list_prefix(s3, target.bucket, target.prefix))
    for start in range(0, len(keys), 1000):
        batch = keys[start : start + 1000]
        answer = s3.delete_objects(
            Bucket=target.bucket, Delete={"Objects": [{"Key": key} for key in batch], "Quiet": True}
        )
        refused = answer.get("Errors", [])
        if refused:
            raise PlatformError(
                f"could not delete s3://{target.bucket}/{refused[0].get('Key')}: {refused[0].get('Message')}",
                hint=f"the platform's role needs s3:DeleteObject on {target.bucket}",
            )
    return len(keys)
