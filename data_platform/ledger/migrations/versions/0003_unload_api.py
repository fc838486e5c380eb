"""Callers of the unload API, changes of state, and what a request needs between two attempts."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "api_tokens",
        sa.Column("name", sa.Text(), nullable=False, comment="The caller; never given to another token again."),
        sa.Column("token_hash", sa.LargeBinary(), nullable=False),
        sa.Column("schemas", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("requests_per_s", sa.Float(), nullable=False),
        sa.Column("burst", sa.Integer(), nullable=False),
        sa.Column("concurrency", sa.Integer(), nullable=False, comment="Requests that may run at once; more wait."),
        sa.Column("max_open", sa.Integer(), nullable=False, comment="Requests that may wait or run; more are refused."),
        sa.Column(
            "daily_requests", sa.Integer(), nullable=True, comment="Accepted requests in 24 hours; null: no quota."
        ),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("name ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$'", name=op.f("ck_api_tokens_name")),
        sa.CheckConstraint("octet_length(token_hash) = 32", name=op.f("ck_api_tokens_token_hash")),
        sa.CheckConstraint(
            "requests_per_s > 0 AND burst > 0 AND concurrency > 0 AND max_open > 0", name=op.f("ck_api_tokens_limits")
        ),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_api_tokens")),
        sa.UniqueConstraint("token_hash", name=op.f("uq_api_tokens_token_hash")),
    )
    op.create_table(
        "unload_changes",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False, comment="The caller, the worker, or the part of the platform."),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.CheckConstraint(
            "status IN ('PENDING', 'RUNNING', 'DONE', 'FAILED', 'CANCELLED', 'EXPIRED')",
            name=op.f("ck_unload_changes_status"),
        ),
        sa.ForeignKeyConstraint(
            ["request_id"],
            ["unload_requests.request_id"],
            name=op.f("fk_unload_changes_request_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_unload_changes")),
    )
    op.create_index("ix_unload_changes_request", "unload_changes", ["request_id", "id"])
    op.add_column(
        "unload_requests",
        sa.Column(
            "attempts_left",
            sa.Integer(),
            server_default="3",
            nullable=False,
            comment="Before it is FAILED for good.",
        ),
    )
    op.add_column("unload_requests", sa.Column("resume_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("unload_requests", sa.Column("reported_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("unload_attempts", sa.Column("cleaned_at", sa.DateTime(timezone=True), nullable=True))
    op.create_index(
        "ix_unload_attempts_uncleaned",
        "unload_attempts",
        ["finished_at"],
        postgresql_where=sa.text("status IN ('FAILED', 'CANCELLED') AND cleaned_at IS NULL"),
    )
    op.create_check_constraint(op.f("ck_unload_requests_attempts_left"), "unload_requests", "attempts_left >= 0")
    op.create_check_constraint(
        op.f("ck_unload_requests_lease_of_running"), "unload_requests", "lease_owner IS NULL OR status = 'RUNNING'"
    )


def downgrade() -> None:
    op.drop_index("ix_unload_attempts_uncleaned", table_name="unload_attempts")
    op.drop_column("unload_attempts", "cleaned_at")
    op.drop_constraint(op.f("ck_unload_requests_lease_of_running"), "unload_requests")
    op.drop_constraint(op.f("ck_unload_requests_attempts_left"), "unload_requests")
    for column in ("reported_at", "resume_at", "attempts_left"):
        op.drop_column("unload_requests", column)
    op.drop_table("unload_changes")
    op.drop_table("api_tokens")
