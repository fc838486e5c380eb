"""Requests that came in over the API, and their attempts. Unloads of catalogued datasets: dataset_unloads.py.

What belongs here: the tables and what every writer agrees on. The life cycle itself is the unload package's.
"""

from enum import StrEnum

import sqlalchemy as sa  # noqa: TID253 - see base.py

from data_platform.ledger.base import document, instant, metadata, one_of


class UnloadStatus(StrEnum):
    """PENDING -> RUNNING -> DONE | FAILED | CANCELLED, DONE -> EXPIRED, FAILED -> PENDING (retry)."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    DONE = "DONE"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    EXPIRED = "EXPIRED"


_STATUSES = tuple(status.value for status in UnloadStatus)
_ATTEMPT_STATUSES = ("RUNNING", "DONE", "FAILED", "CANCELLED")

unload_requests = sa.Table(
    "unload_requests",
    metadata,
    # It becomes part of an S3 key, hence the narrow alphabet.
    sa.Column("request_id", sa.Text, primary_key=True),
    sa.Column("caller", sa.Text, nullable=False, comment="Name of the token that submitted it; others do not see it."),
    sa.Column(
        "body_hash", sa.LargeBinary, nullable=False, comment="SHA-256 of the canonical body: same id, same body?"
    ),
    sa.Column("sql", sa.Text, nullable=False),
    document("options", "{}"),
    sa.Column("status", sa.Text, nullable=False, server_default="PENDING"),
    sa.Column(
        "attempt", sa.Integer, nullable=False, server_default="0", comment="The newest attempt; it alone can win."
    ),
    sa.Column("rows", sa.BigInteger),
    sa.Column("bytes", sa.BigInteger),
    document("files", "[]"),
    sa.Column("error_code", sa.Text),
    sa.Column("error_message", sa.Text),
    sa.Column("lease_owner", sa.Text, comment="The worker that runs it."),
    instant("lease_until"),
    sa.Column("attempts_left", sa.Integer, nullable=False, server_default="3", comment="Before it is FAILED for good."),
    instant("resume_at"),  # RUNNING without a lease: the next attempt may begin then
    instant("cancel_requested_at"),
    instant("reported_at"),  # when Dagster was told of the outcome
    instant("created_at", now=True),
    instant("started_at"),
    instant("completed_at"),
    instant("expires_at"),
    one_of("status", _STATUSES),
    sa.CheckConstraint("request_id ~ '^[A-Za-z0-9._-]{1,128}$' AND request_id NOT IN ('.', '..')", name="request_id"),
    sa.CheckConstraint("octet_length(body_hash) = 32", name="body_hash"),
    sa.CheckConstraint("attempt >= 0", name="attempt"),
    sa.CheckConstraint("attempts_left >= 0", name="attempts_left"),
    sa.CheckConstraint("lease_owner IS NULL OR status = 'RUNNING'", name="lease_of_running"),
    sa.CheckConstraint("(lease_owner IS NULL) = (lease_until IS NULL)", name="lease"),
    # A final state tells its outcome, or nobody can answer for it later.
    sa.CheckConstraint(
        "status NOT IN ('DONE', 'EXPIRED') OR (rows IS NOT NULL AND bytes IS NOT NULL AND expires_at IS NOT NULL)",
        name="outcome",
    ),
    sa.CheckConstraint("status <> 'FAILED' OR (error_code IS NOT NULL AND error_message IS NOT NULL)", name="error"),
    sa.CheckConstraint(
        "(status IN ('DONE', 'FAILED', 'CANCELLED', 'EXPIRED')) = (completed_at IS NOT NULL)", name="completed"
    ),
    # Workers claim the oldest PENDING, the reconciler looks at RUNNING: few rows of a table that only grows.
    sa.Index(
        "ix_unload_requests_open", "status", "created_at", postgresql_where=sa.text("status IN ('PENDING', 'RUNNING')")
    ),
    sa.Index("ix_unload_requests_caller", "caller", "created_at", "request_id"),
    sa.Index("ix_unload_requests_expiry", "expires_at", postgresql_where=sa.text("status = 'DONE'")),
)

unload_attempts = sa.Table(
    "unload_attempts",
    metadata,
    sa.Column("request_id", sa.Text, sa.ForeignKey("unload_requests.request_id", ondelete="CASCADE"), primary_key=True),
    sa.Column("attempt", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column(
        "prefix", sa.Text, nullable=False, unique=True, comment="s3://bucket/prefix/; no two attempts share one."
    ),
    sa.Column("status", sa.Text, nullable=False, server_default="RUNNING"),
    sa.Column("worker", sa.Text, nullable=False),
    sa.Column("run_id", sa.Text, comment="Dagster run, when one did it."),
    sa.Column("query_id", sa.Text, comment="Redshift's own id of the UNLOAD."),
    sa.Column("backend_pid", sa.Integer, comment="Session to cancel."),
    sa.Column("rows", sa.BigInteger),
    sa.Column("bytes", sa.BigInteger),
    sa.Column("file_count", sa.Integer),
    sa.Column("manifest_url", sa.Text, comment="Null when the result is empty: UNLOAD then writes no manifest."),
    sa.Column("error_code", sa.Text),
    sa.Column("error_message", sa.Text),
    instant("started_at", now=True),
    instant("finished_at"),
    instant("cleaned_at"),
    one_of("status", _ATTEMPT_STATUSES),
    sa.CheckConstraint("attempt >= 1", name="attempt"),
    sa.CheckConstraint("(status = 'RUNNING') = (finished_at IS NULL)", name="finished"),
    # What a failed attempt wrote is removed after the ledger says so; a crash in between leaves it to the reconciler.
    sa.Index(
        "ix_unload_attempts_uncleaned",
        "finished_at",
        postgresql_where=sa.text("status IN ('FAILED', 'CANCELLED') AND cleaned_at IS NULL"),
    ),
)

# Who changed what when: the server-sent events of a request, and its history for a person.
unload_changes = sa.Table(
    "unload_changes",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("request_id", sa.Text, sa.ForeignKey("unload_requests.request_id", ondelete="CASCADE"), nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("actor", sa.Text, nullable=False, comment="The caller, the worker, or the part of the platform."),
    instant("at", now=True),
    one_of("status", _STATUSES),
    sa.Index("ix_unload_changes_request", "request_id", "id"),
)
