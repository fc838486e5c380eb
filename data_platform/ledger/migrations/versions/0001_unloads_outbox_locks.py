"""Unload requests, dataset unloads, outbox, locks."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "dataset_unloads",
        sa.Column("dataset", sa.Text(), nullable=False, comment="<domain>/<name>, as in the catalogue."),
        sa.Column("partition", sa.Text(), nullable=False, comment="The day, YYYY-MM-DD."),
        sa.Column("attempt", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("prefix", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), server_default="RUNNING", nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=True),
        sa.Column("files", sa.Integer(), nullable=True),
        sa.Column("bytes", sa.BigInteger(), nullable=True),
        sa.Column(
            "manifest_url",
            sa.Text(),
            nullable=True,
            comment="Null when the result is empty: UNLOAD then writes no manifest.",
        ),
        sa.Column("query_id", sa.Text(), nullable=True, comment="Redshift's own id of the UNLOAD."),
        sa.Column("error_code", sa.Text(), nullable=True),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.Column("run_id", sa.Text(), nullable=True, comment="Dagster run."),
        sa.Column(
            "started_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("(status = 'RUNNING') = (finished_at IS NULL)", name=op.f("ck_dataset_unloads_finished")),
        sa.CheckConstraint(
            "status <> 'DONE' OR (rows IS NOT NULL AND files IS NOT NULL AND bytes IS NOT NULL)",
            name=op.f("ck_dataset_unloads_outcome"),
        ),
        sa.CheckConstraint("status <> 'FAILED' OR error_code IS NOT NULL", name=op.f("ck_dataset_unloads_error")),
        sa.CheckConstraint("status IN ('RUNNING', 'DONE', 'FAILED')", name=op.f("ck_dataset_unloads_status")),
        sa.CheckConstraint("attempt >= 1", name=op.f("ck_dataset_unloads_attempt")),
        sa.PrimaryKeyConstraint("dataset", "partition", "attempt", name=op.f("pk_dataset_unloads")),
        sa.UniqueConstraint("prefix", name=op.f("uq_dataset_unloads_prefix")),
    )
    op.create_table(
        "job_locks",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=True),
        sa.Column("token", sa.BigInteger(), nullable=False, comment="Fencing token; rises with every acquisition."),
        sa.Column(
            "acquired_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("(owner IS NULL) = (lease_until IS NULL)", name=op.f("ck_job_locks_lease")),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_job_locks")),
    )
    op.create_table(
        "outbox",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("event_id", sa.Uuid(), nullable=False),
        sa.Column("topic", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column(
            "payload", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'::jsonb"), nullable=False
        ),
        sa.Column(
            "headers", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'::jsonb"), nullable=False
        ),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("published_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outbox")),
        sa.UniqueConstraint("event_id", name=op.f("uq_outbox_event_id")),
    )
    op.create_index(
        "ix_outbox_unpublished", "outbox", ["id"], unique=False, postgresql_where=sa.text("published_at IS NULL")
    )
    op.create_table(
        "unload_requests",
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column(
            "caller", sa.Text(), nullable=False, comment="Name of the token that submitted it; others do not see it."
        ),
        sa.Column(
            "body_hash", sa.LargeBinary(), nullable=False, comment="SHA-256 of the canonical body: same id, same body?"
        ),
        sa.Column("sql", sa.Text(), nullable=False),
        sa.Column(
            "options", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'::jsonb"), nullable=False
        ),
        sa.Column("status", sa.Text(), server_default="PENDING", nullable=False),
        sa.Column(
            "attempt", sa.Integer(), server_default="0", nullable=False, comment="The newest attempt; it alone can win."
        ),
        sa.Column("rows", sa.BigInteger(), nullable=True),
        sa.Column("bytes", sa.BigInteger(), nullable=True),
        sa.Column(
            "files", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'[]'::jsonb"), nullable=False
        ),
        sa.Column("error_code", sa.Text(), nullable=True),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.Column("lease_owner", sa.Text(), nullable=True, comment="The worker that runs it."),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("cancel_requested_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("completed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(status IN ('DONE', 'FAILED', 'CANCELLED', 'EXPIRED')) = (completed_at IS NOT NULL)",
            name=op.f("ck_unload_requests_completed"),
        ),
        sa.CheckConstraint(
            "request_id ~ '^[A-Za-z0-9._-]{1,128}$' AND request_id NOT IN ('.', '..')",
            name=op.f("ck_unload_requests_request_id"),
        ),
        sa.CheckConstraint(
            "status <> 'FAILED' OR (error_code IS NOT NULL AND error_message IS NOT NULL)",
            name=op.f("ck_unload_requests_error"),
        ),
        sa.CheckConstraint(
            "status IN ('PENDING', 'RUNNING', 'DONE', 'FAILED', 'CANCELLED', 'EXPIRED')",
            name=op.f("ck_unload_requests_status"),
        ),
        sa.CheckConstraint(
            "status NOT IN ('DONE', 'EXPIRED') OR (rows IS NOT NULL AND bytes IS NOT NULL AND expires_at IS NOT NULL)",
            name=op.f("ck_unload_requests_outcome"),
        ),
        sa.CheckConstraint("(lease_owner IS NULL) = (lease_until IS NULL)", name=op.f("ck_unload_requests_lease")),
        sa.CheckConstraint("attempt >= 0", name=op.f("ck_unload_requests_attempt")),
        sa.CheckConstraint("octet_length(body_hash) = 32", name=op.f("ck_unload_requests_body_hash")),
        sa.PrimaryKeyConstraint("request_id", name=op.f("pk_unload_requests")),
    )
    op.create_index(
        "ix_unload_requests_caller", "unload_requests", ["caller", "created_at", "request_id"], unique=False
    )
    op.create_index(
        "ix_unload_requests_expiry",
        "unload_requests",
        ["expires_at"],
        unique=False,
        postgresql_where=sa.text("status = 'DONE'"),
    )
    op.create_index(
        "ix_unload_requests_open",
        "unload_requests",
        ["status", "created_at"],
        unique=False,
        postgresql_where=sa.text("status IN ('PENDING', 'RUNNING')"),
    )
    op.create_table(
        "unload_attempts",
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("attempt", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("prefix", sa.Text(), nullable=False, comment="s3://bucket/prefix/; no two attempts share one."),
        sa.Column("status", sa.Text(), server_default="RUNNING", nullable=False),
        sa.Column("worker", sa.Text(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=True, comment="Dagster run, when one did it."),
        sa.Column("query_id", sa.Text(), nullable=True, comment="Redshift's own id of the UNLOAD."),
        sa.Column("backend_pid", sa.Integer(), nullable=True, comment="Session to cancel."),
        sa.Column("rows", sa.BigInteger(), nullable=True),
        sa.Column("bytes", sa.BigInteger(), nullable=True),
        sa.Column("file_count", sa.Integer(), nullable=True),
        sa.Column(
            "manifest_url",
            sa.Text(),
            nullable=True,
            comment="Null when the result is empty: UNLOAD then writes no manifest.",
        ),
        sa.Column("error_code", sa.Text(), nullable=True),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.Column(
            "started_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("(status = 'RUNNING') = (finished_at IS NULL)", name=op.f("ck_unload_attempts_finished")),
        sa.CheckConstraint(
            "status IN ('RUNNING', 'DONE', 'FAILED', 'CANCELLED')", name=op.f("ck_unload_attempts_status")
        ),
        sa.CheckConstraint("attempt >= 1", name=op.f("ck_unload_attempts_attempt")),
        sa.ForeignKeyConstraint(
            ["request_id"],
            ["unload_requests.request_id"],
            name=op.f("fk_unload_attempts_request_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("request_id", "attempt", name=op.f("pk_unload_attempts")),
        sa.UniqueConstraint("prefix", name=op.f("uq_unload_attempts_prefix")),
    )


def downgrade() -> None:
    op.drop_table("unload_attempts")
    op.drop_index(
        "ix_unload_requests_open",
        table_name="unload_requests",
        postgresql_where=sa.text("status IN ('PENDING', 'RUNNING')"),
    )
    op.drop_index(
        "ix_unload_requests_expiry", table_name="unload_requests", postgresql_where=sa.text("status = 'DONE'")
    )
    op.drop_index("ix_unload_requests_caller", table_name="unload_requests")
    op.drop_table("unload_requests")
    op.drop_index("ix_outbox_unpublished", table_name="outbox", postgresql_where=sa.text("published_at IS NULL"))
    op.drop_table("outbox")
    op.drop_table("job_locks")
    op.drop_table("dataset_unloads")
