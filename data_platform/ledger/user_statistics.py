"""The tables of the CSV batch: users and their counts, and the ledger that every applied row is written with.

What belongs here: the tables and the constraints that make a contradiction impossible. What does not: what writes them
(`data_platform.statistics`). No statement here or there changes a count without its ledger rows, in one transaction.
"""

import sqlalchemy as sa  # noqa: TID253 - see base.py

from data_platform.ledger.base import document, instant, metadata, one_of

RUN_STATUSES = ("RUNNING", "DONE", "REFUSED", "FAILED", "ABANDONED")
CHUNK_STATUSES = ("PENDING", "DONE", "FAILED")
LEVELS = ("INFO", "WARN", "ERROR", "FATAL")
USER_ID = "user_id ~ '^[A-Za-z0-9]{1,64}$'"


def _user_id(*constraint: sa.ForeignKey) -> "sa.Column[str]":
    """Ids are ASCII: bytes are their order, which sorts several times as quickly as a language's."""
    return sa.Column("user_id", sa.Text(collation="C"), *constraint, primary_key=True)


users = sa.Table(
    "users",
    metadata,
    _user_id(),
    sa.Column("username", sa.Text),
    sa.Column("email", sa.Text),
    instant("created_at", now=True),
    instant("updated_at", now=True),
    sa.Column("is_active", sa.Boolean, nullable=False, server_default=sa.text("true")),
    document("metadata", "{}"),
    sa.CheckConstraint(USER_ID, name="user_id"),
)

user_statistics = sa.Table(
    "user_statistics",
    metadata,
    _user_id(sa.ForeignKey("users.user_id")),
    sa.Column("login_count", sa.BigInteger, nullable=False),
    sa.Column("post_count", sa.BigInteger, nullable=False),
    sa.Column(
        "updated_at",
        sa.DateTime(timezone=True),
        nullable=False,
        server_default=sa.func.clock_timestamp(),
        comment="Time of the last real change.",
    ),
    sa.CheckConstraint("login_count >= 0 AND post_count >= 0", name="counts"),
)

processing_metadata = sa.Table(
    "processing_metadata",
    metadata,
    sa.Column("run_id", sa.Uuid, primary_key=True, comment="One run of one file; resumed under the same id."),
    sa.Column("file_id", sa.Text, nullable=False, comment="SHA-256 of bucket, key and version."),
    sa.Column("generation", sa.Integer, nullable=False, comment="How often this file was begun anew by hand."),
    sa.Column("bucket", sa.Text, nullable=False),
    sa.Column("key", sa.Text, nullable=False),
    sa.Column("version", sa.Text, nullable=False, comment="S3's version id, else ETag and time."),
    sa.Column("etag", sa.Text, nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False, comment="Bytes, as stored."),
    instant("last_modified"),
    sa.Column("status", sa.Text, nullable=False, server_default="RUNNING"),
    sa.Column("attempts", sa.Integer, nullable=False, server_default="1"),
    sa.Column("dagster_run_id", sa.Text),
    sa.Column("header", sa.Text, comment="Which of the accepted headers the file has."),
    sa.Column("records", sa.BigInteger, comment="Data records, the header not counted; null until the file is read."),
    sa.Column("rejected", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("withheld", sa.BigInteger, nullable=False, server_default="0", comment="Good rows of a refused file."),
    sa.Column("inserted", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("updated", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("unchanged", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("chunks", sa.Integer),
    sa.Column("inconsistencies", sa.BigInteger, comment="Rows in which table and file differ after the run."),
    sa.Column("reject_url", sa.Text, comment="s3:// of the reject files, without their suffix."),
    sa.Column(
        "staging", sa.Text, comment="Table of the rows to apply, once the file has been read; dropped at the end."
    ),
    sa.Column("refusal", sa.Text, comment="Why nothing of the file is applied; null where its good rows are."),
    sa.Column("failure", sa.Text, comment="Why the last attempt stopped."),
    instant("started_at", now=True),
    instant("staged_at"),
    instant("finished_at"),
    sa.Column("duration_s", sa.Double, comment="Seconds from the last (re)start to the end."),
    one_of("status", RUN_STATUSES),
    sa.UniqueConstraint("file_id", "generation"),
    sa.CheckConstraint("(status = 'RUNNING') = (finished_at IS NULL)", name="finished"),
    # Conservation: every data record of a finished file is applied, rejected or withheld.
    sa.CheckConstraint(
        "status NOT IN ('DONE', 'REFUSED') OR records IS NULL"
        " OR records = inserted + updated + unchanged + rejected + withheld",
        name="conservation",
    ),
    sa.CheckConstraint(
        "status <> 'DONE' OR (records IS NOT NULL AND withheld = 0 AND refusal IS NULL)", name="outcome"
    ),
    sa.CheckConstraint("status <> 'REFUSED' OR refusal IS NOT NULL", name="refusal"),
    sa.Index("ix_processing_metadata_key", "bucket", "key", "started_at"),
)

batch_jobs = sa.Table(
    "batch_jobs",
    metadata,
    sa.Column("run_id", sa.Uuid, sa.ForeignKey("processing_metadata.run_id", ondelete="CASCADE"), primary_key=True),
    sa.Column("chunk", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("status", sa.Text, nullable=False, server_default="PENDING"),
    sa.Column("first_user_id", sa.Text(collation="C"), nullable=False),
    sa.Column("last_user_id", sa.Text(collation="C"), nullable=False),
    sa.Column("rows", sa.BigInteger, nullable=False),
    sa.Column("inserted", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("updated", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("unchanged", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("rejected", sa.BigInteger, nullable=False, server_default="0", comment="Users that vanished meanwhile."),
    sa.Column("token", sa.BigInteger, comment="Fencing token of the lock under which it was applied."),
    sa.Column("error", sa.Text),
    instant("finished_at"),
    one_of("status", CHUNK_STATUSES),
    sa.CheckConstraint("(status = 'PENDING') = (finished_at IS NULL)", name="finished"),
    sa.CheckConstraint(
        "status <> 'DONE' OR (rows = inserted + updated + unchanged + rejected AND token IS NOT NULL)",
        name="conservation",
    ),
)

audit_logs = sa.Table(
    "audit_logs",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("run_id", sa.Uuid, sa.ForeignKey("processing_metadata.run_id", ondelete="CASCADE"), nullable=False),
    instant("at", now=True),
    sa.Column("level", sa.Text, nullable=False),
    sa.Column("event", sa.Text, nullable=False),
    sa.Column("error_class", sa.Text, comment="ValidationError, UserNotFoundError or ProcessingError."),
    sa.Column("file", sa.Text, nullable=False),
    sa.Column("line", sa.BigInteger, comment="Physical line of the file, the header is 1."),
    sa.Column("column", sa.Text),
    sa.Column("value", sa.Text, comment="As the file has it, control characters escaped, shortened."),
    sa.Column("rule", sa.Text),
    sa.Column("message", sa.Text, nullable=False),
    one_of("level", LEVELS),
    sa.Index("ix_audit_logs_run", "run_id", "id"),
)
