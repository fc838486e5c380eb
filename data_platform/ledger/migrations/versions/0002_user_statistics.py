"""Users, user statistics and the ledger of the CSV batch."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "processing_metadata",
        sa.Column("run_id", sa.Uuid(), nullable=False, comment="One run of one file; resumed under the same id."),
        sa.Column("file_id", sa.Text(), nullable=False, comment="SHA-256 of bucket, key and version."),
        sa.Column("generation", sa.Integer(), nullable=False, comment="How often this file was begun anew by hand."),
        sa.Column("bucket", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False, comment="S3's version id, else ETag and time."),
        sa.Column("etag", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False, comment="Bytes, as stored."),
        sa.Column("last_modified", sa.DateTime(timezone=True), nullable=True),
        sa.Column("status", sa.Text(), server_default="RUNNING", nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="1", nullable=False),
        sa.Column("dagster_run_id", sa.Text(), nullable=True),
        sa.Column("header", sa.Text(), nullable=True, comment="Which of the accepted headers the file has."),
        sa.Column(
            "records",
            sa.BigInteger(),
            nullable=True,
            comment="Data records, the header not counted; null until the file is read.",
        ),
        sa.Column("rejected", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column(
            "withheld", sa.BigInteger(), server_default="0", nullable=False, comment="Good rows of a refused file."
        ),
        sa.Column("inserted", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("updated", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("unchanged", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("chunks", sa.Integer(), nullable=True),
        sa.Column(
            "inconsistencies",
            sa.BigInteger(),
            nullable=True,
            comment="Rows in which table and file differ after the run.",
        ),
        sa.Column("reject_url", sa.Text(), nullable=True, comment="s3:// of the reject files, without their suffix."),
        sa.Column(
            "staging",
            sa.Text(),
            nullable=True,
            comment="Table of the rows to apply, once the file has been read; dropped at the end.",
        ),
        sa.Column(
            "refusal",
            sa.Text(),
            nullable=True,
            comment="Why nothing of the file is applied; null where its good rows are.",
        ),
        sa.Column("failure", sa.Text(), nullable=True, comment="Why the last attempt stopped."),
        sa.Column(
            "started_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("staged_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("duration_s", sa.Double(), nullable=True, comment="Seconds from the last (re)start to the end."),
        sa.CheckConstraint(
            "(status = 'RUNNING') = (finished_at IS NULL)", name=op.f("ck_processing_metadata_finished")
        ),
        sa.CheckConstraint(
            "status <> 'DONE' OR (records IS NOT NULL AND withheld = 0 AND refusal IS NULL)",
            name=op.f("ck_processing_metadata_outcome"),
        ),
        sa.CheckConstraint("status <> 'REFUSED' OR refusal IS NOT NULL", name=op.f("ck_processing_metadata_refusal")),
        sa.CheckConstraint(
            "status IN ('RUNNING', 'DONE', 'REFUSED', 'FAILED', 'ABANDONED')",
            name=op.f("ck_processing_metadata_status"),
        ),
        sa.CheckConstraint(
            "status NOT IN ('DONE', 'REFUSED') OR records IS NULL"
            " OR records = inserted + updated + unchanged + rejected + withheld",
            name=op.f("ck_processing_metadata_conservation"),
        ),
        sa.PrimaryKeyConstraint("run_id", name=op.f("pk_processing_metadata")),
        sa.UniqueConstraint("file_id", "generation", name=op.f("uq_processing_metadata_file_id_generation")),
    )
    op.create_index("ix_processing_metadata_key", "processing_metadata", ["bucket", "key", "started_at"], unique=False)
    op.create_table(
        "users",
        sa.Column("user_id", sa.Text(collation="C"), nullable=False),
        sa.Column("username", sa.Text(), nullable=True),
        sa.Column("email", sa.Text(), nullable=True),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column(
            "updated_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("is_active", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column(
            "metadata", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'::jsonb"), nullable=False
        ),
        sa.CheckConstraint("user_id ~ '^[A-Za-z0-9]{1,64}$'", name=op.f("ck_users_user_id")),
        sa.PrimaryKeyConstraint("user_id", name=op.f("pk_users")),
    )
    op.create_table(
        "audit_logs",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.Column("level", sa.Text(), nullable=False),
        sa.Column("event", sa.Text(), nullable=False),
        sa.Column(
            "error_class", sa.Text(), nullable=True, comment="ValidationError, UserNotFoundError or ProcessingError."
        ),
        sa.Column("file", sa.Text(), nullable=False),
        sa.Column("line", sa.BigInteger(), nullable=True, comment="Physical line of the file, the header is 1."),
        sa.Column("column", sa.Text(), nullable=True),
        sa.Column(
            "value", sa.Text(), nullable=True, comment="As the file has it, control characters escaped, shortened."
        ),
        sa.Column("rule", sa.Text(), nullable=True),
        sa.Column("message", sa.Text(), nullable=False),
        sa.CheckConstraint("level IN ('INFO', 'WARN', 'ERROR', 'FATAL')", name=op.f("ck_audit_logs_level")),
        sa.ForeignKeyConstraint(
            ["run_id"], ["processing_metadata.run_id"], name=op.f("fk_audit_logs_run_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_logs")),
    )
    op.create_index("ix_audit_logs_run", "audit_logs", ["run_id", "id"], unique=False)
    op.create_table(
        "batch_jobs",
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("chunk", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("status", sa.Text(), server_default="PENDING", nullable=False),
        sa.Column("first_user_id", sa.Text(collation="C"), nullable=False),
        sa.Column("last_user_id", sa.Text(collation="C"), nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.Column("inserted", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("updated", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("unchanged", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column(
            "rejected", sa.BigInteger(), server_default="0", nullable=False, comment="Users that vanished meanwhile."
        ),
        sa.Column(
            "token", sa.BigInteger(), nullable=True, comment="Fencing token of the lock under which it was applied."
        ),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("(status = 'PENDING') = (finished_at IS NULL)", name=op.f("ck_batch_jobs_finished")),
        sa.CheckConstraint(
            "status <> 'DONE' OR (rows = inserted + updated + unchanged + rejected AND token IS NOT NULL)",
            name=op.f("ck_batch_jobs_conservation"),
        ),
        sa.CheckConstraint("status IN ('PENDING', 'DONE', 'FAILED')", name=op.f("ck_batch_jobs_status")),
        sa.ForeignKeyConstraint(
            ["run_id"], ["processing_metadata.run_id"], name=op.f("fk_batch_jobs_run_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("run_id", "chunk", name=op.f("pk_batch_jobs")),
    )
    op.create_table(
        "user_statistics",
        sa.Column("user_id", sa.Text(collation="C"), nullable=False),
        sa.Column("login_count", sa.BigInteger(), nullable=False),
        sa.Column("post_count", sa.BigInteger(), nullable=False),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
            comment="Time of the last real change.",
        ),
        sa.CheckConstraint("login_count >= 0 AND post_count >= 0", name=op.f("ck_user_statistics_counts")),
        sa.ForeignKeyConstraint(["user_id"], ["users.user_id"], name=op.f("fk_user_statistics_user_id")),
        sa.PrimaryKeyConstraint("user_id", name=op.f("pk_user_statistics")),
    )


def downgrade() -> None:
    op.drop_table("user_statistics")
    op.drop_table("batch_jobs")
    op.drop_index("ix_audit_logs_run", table_name="audit_logs")
    op.drop_table("audit_logs")
    op.drop_table("users")
    op.drop_index("ix_processing_metadata_key", table_name="processing_metadata")
    op.drop_table("processing_metadata")
