"""The file -> two tables in PostgreSQL, the rows to apply and the rejects, with the plan of chunks; one transaction.

So there is either nothing, or a plan that a later attempt can take up. Nothing is written to user_statistics here.
"""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import resources
from typing import TYPE_CHECKING, Any

from data_platform.catalog.models import UserStatistics
from data_platform.statistics import records, rules
from data_platform.statistics.count import RecordCounter
from data_platform.statistics.errors import ErrorClass, Level, ProcessingError, RowError
from data_platform.statistics.runs import Run, write_audit
from data_platform.statistics.source import BLOCK_BYTES, FileVersion, UnreadableError, stored_bytes, text_blocks

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from sqlalchemy import Connection

RAW = "pg_temp.user_statistics_raw"
SORT_MEMORY = "64MB"
_REJECT_COLUMNS = 'line, lines, error_class, "column", value, rule, reason'
REJECTS_SPOOL_BYTES = 4 << 20  # beyond it they wait on disk


@dataclass(frozen=True, slots=True)
class Staged:
    """What the file holds; `refused` says why nothing of it is to be applied."""

    header: str | None
    records: int
    good: int
    rejected: int
    chunks: int
    refused: str | None


@dataclass
class _Reading:
    """How far the file has been read. `fault` is an error of the file as a whole."""

    counter: RecordCounter = field(default_factory=RecordCounter)
    header: str | None = None
    copied: int = 0
    malformed: int = 0
    fault: RowError | None = None
    fault_is_record: bool = False


def statement(name: str, **names: object) -> str:
    """The statement in sql/<name>.sql with its table names (ours, not from outside) put in."""
    text = resources.files("data_platform.statistics").joinpath("sql", f"{name}.sql").read_text("utf-8")
    return text.format(raw=RAW, **names)


def stage(
    connection: "Connection",
    s3: "S3Client",
    run: Run,
    options: UserStatistics,
    *,
    on_records: Callable[[int], None],
    on_read: Callable[[], None],
    prove: Callable[[], None],
) -> Staged:
    """Read, validate and classify the file within the caller's transaction; `on_records` hears of the records read,
    `on_read` is called when all of a readable file is in the database.

    `prove` is called before the ledger is written: it raises when the work is no longer the caller's.
    Raises ProcessingError when S3 breaks off, when it is time to stop (`on_records` raises), or when the records do not
    add up; the transaction has then to be rolled back.
    """
    connection.exec_driver_sql(f"SET LOCAL work_mem = '{SORT_MEMORY}'")
    # Every record that names its user; without counts where the record is malformed, which makes it a reject.
    connection.exec_driver_sql(
        f"""CREATE TEMP TABLE {RAW.removeprefix("pg_temp.")} (line bigint NOT NULL, user_id text COLLATE "C" NOT NULL,
            login_count bigint, post_count bigint) ON COMMIT DROP"""
    )
    connection.exec_driver_sql(
        f"""CREATE TABLE {run.rejects_table} (line bigint NOT NULL, lines integer NOT NULL, error_class text NOT NULL,
            "column" text, value text, rule text NOT NULL, reason text NOT NULL, chunk integer)"""
    )
    reading = _copy(connection, s3, run, options, on_records)
    if reading.fault is None:
        on_read()
    connection.exec_driver_sql(f"ANALYZE {RAW}")
    names = {"rows": run.rows_table, "rejects": run.rejects_table}
    choice = {"chunk_rows": options.chunk_rows, "refuse_inactive": str(options.refuse_inactive_users).lower()}
    good = connection.exec_driver_sql(statement("classify_good", **names, **choice)).rowcount
    # The key is the proof that no user stands twice, and the order in which chunks read.
    connection.exec_driver_sql(f"ALTER TABLE {run.rows_table} ADD PRIMARY KEY (user_id)")
    connection.exec_driver_sql(f"ANALYZE {run.rows_table}")
    rejected = reading.malformed
    if good + rejected < reading.copied:
        rejected += connection.exec_driver_sql(statement("classify_rejects", **names)).rowcount
    if reading.fault is not None:
        _add_fault(connection, run, reading.fault)
        rejected += reading.fault_is_record
    count = max(reading.counter.total - 1, 0)
    if reading.fault is None and not reading.copied == count == good + rejected:
        raise ProcessingError(
            f"records do not add up: {count} counted, {reading.copied} read, {good} good, {rejected} rejected",
            file=run.file.url,
            rule="conservation",
            hint="nothing was applied: a mistake in the platform; keep the file and give it to the team that runs it",
        )
    prove()
    return _planned(connection, run, reading, options, count, good, rejected)


def _planned(
    connection: "Connection", run: Run, reading: _Reading, options: UserStatistics, count: int, good: int, rejected: int
) -> Staged:
    """Write the plan: the run's counts, a row per chunk, an audit row per reject."""
    import sqlalchemy as sa

    from data_platform.ledger.user_statistics import processing_metadata as table

    bad_lines = connection.exec_driver_sql(f"SELECT coalesce(sum(lines), 0) FROM {run.rejects_table}").scalar_one()
    fault = reading.fault
    refused = None if fault is None else f"{fault.rule} in line {fault.line}: {fault.reason}"
    lines = good + bad_lines
    if refused is None and bad_lines * 100 > options.max_rejected_percent * lines:
        refused = (
            f"{bad_lines} of {lines} lines are bad ({100 * bad_lines / lines:.1f} %), more than the"
            f" {options.max_rejected_percent:g} % that are allowed"
        )
    chunks = 0
    if refused is None:
        chunks = connection.exec_driver_sql(
            f"""INSERT INTO batch_jobs (run_id, chunk, first_user_id, last_user_id, rows)
                SELECT %(run)s, chunk, min(user_id), max(user_id), count(*) FROM {run.rows_table} GROUP BY chunk""",
            {"run": run.run_id},
        ).rowcount
    connection.execute(
        sa.update(table)
        .where(table.c.run_id == run.run_id)
        .values(
            header=reading.header,
            records=count,
            rejected=rejected,
            withheld=0 if refused is None else count - rejected,
            chunks=chunks,
            staging=run.rows_table,
            refusal=refused,
            staged_at=sa.func.clock_timestamp(),
        )
    )
    connection.exec_driver_sql(
        f"""INSERT INTO audit_logs (run_id, level, event, error_class, file, line, "column", value, rule, message)
            SELECT %(run)s, %(level)s, 'ROW_REJECTED', error_class, %(file)s, line, "column", value, rule, reason
            FROM {run.rejects_table} ORDER BY line LIMIT %(limit)s""",
        {"run": run.run_id, "level": Level.WARN.value, "file": run.file.url, "limit": options.max_audit_errors},
    )
    unwritten = rejected - options.max_audit_errors
    if unwritten > 0:
        write_audit(connection, run, Level.WARN, "ROWS_REJECTED", f"{unwritten} more stand in the reject file only")
    return Staged(reading.header, count, good, rejected, chunks, refused)


def _add_fault(connection: "Connection", run: Run, fault: RowError) -> None:
    connection.exec_driver_sql(
        f"""INSERT INTO {run.rejects_table} ({_REJECT_COLUMNS})
            VALUES (%s, %s, %s, %s, %s, %s, %s)""",
        (fault.line, fault.lines, fault.error_class.value, fault.column, fault.value, fault.rule, fault.reason),
    )


def _copy(
    connection: "Connection",
    s3: "S3Client",
    run: Run,
    options: UserStatistics,
    on_records: Callable[[int], None],
) -> _Reading:
    """COPY every record of the file: into the raw table, and what no rule lets pass into the table of rejects."""
    reading = _Reading()
    text = text_blocks(stored_bytes(s3, run.file), encoding=options.encoding, max_bytes=options.max_bytes)
    driver: Any = connection.connection.driver_connection
    with driver.cursor() as cursor, tempfile.SpooledTemporaryFile(REJECTS_SPOOL_BYTES) as rejects:
        with cursor.copy(f"COPY {RAW} FROM STDIN (FORMAT csv)") as copy:
            for checked in _checked(text, run.file, reading):
                copy.write(checked.rows)
                rejects.write(checked.rejects)
                on_records(reading.copied)
        if reading.malformed:
            rejects.seek(0)
            with cursor.copy(f"COPY {run.rejects_table} ({_REJECT_COLUMNS}) FROM STDIN (FORMAT csv)") as copy:
                while block := rejects.read(BLOCK_BYTES):
                    copy.write(block)
            reading.malformed = cursor.rowcount
    return reading


@dataclass(frozen=True, slots=True)
class _Portion:
    """Records of one block as COPY takes them."""

    rows: bytes
    rejects: bytes


def _checked(text: Iterator[bytes], file: FileVersion, reading: _Reading) -> Iterator[_Portion]:
    """The records, validated. After an error of the file as a whole only the counting goes on."""
    counted = _counted(text, reading.counter)
    line = 1
    try:
        for block in records.blocks(counted):
            first = 0
            if reading.header is None:
                variant, sentence = rules.header_of(block)
                if variant is None:
                    raise records.BrokenError("header", 1, sentence)
                reading.header, first = variant, 1
            checked = rules.check(block, file.url, first=first)
            reading.copied += len(block) - first
            reading.malformed += len(checked.errors)
            line = int(block.lines[-1])
            named = "".join(f"{error.line},{error.user_id},,\n" for error in checked.errors if error.user_id)
            rows = records.numbered(block, checked.good) + named.encode()
            yield _Portion(rows, "".join(map(_reject, checked.errors)).encode("utf-8", "replace"))
        if reading.header is None:
            raise records.BrokenError("header", 1, "the file is empty: there is not even a header")
    except records.BrokenError as error:
        reading.fault = _file_fault(file, error.line, error.rule, error.message)
        # The records up to here are known; the one that broke off counts as one, a wrong header as none.
        reading.fault_is_record = error.rule != "header" and error.line > 1
    except UnreadableError as error:
        reading.fault = _file_fault(file, line, error.rule, error.message)
        return
    try:
        for _ in counted:
            pass
    except UnreadableError:
        return  # the first reason stands


def _counted(text: Iterator[bytes], counter: RecordCounter) -> Iterator[bytes]:
    for piece in text:
        counter.feed(piece)
        yield piece


def _file_fault(file: FileVersion, line: int, rule: str, reason: str) -> RowError:
    return RowError(ErrorClass.VALIDATION, file.url, line, None, None, rule, reason)


def _reject(error: RowError) -> str:
    cells = (error.error_class, error.column, error.value, error.rule, error.reason)
    return f"{error.line},{error.lines},{','.join(map(_cell, cells))}\n"


def _cell(value: object) -> str:
    """A CSV cell for COPY, where only what is not quoted is null."""
    return "" if value is None else '"' + str(value).replace('"', '""') + '"'
