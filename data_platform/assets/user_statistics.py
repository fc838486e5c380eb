"""The CSV batch as assets: `user_statistics/files`, a partition per file version, and the table they end up in.

Thin: `data_platform.statistics` does the work. The operation tells the table's materialisation, too; that is why the
table has no operation of its own.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

import dagster as dg

from data_platform.assets.checks import NEXT_STEP
from data_platform.assets.metadata import read_of
from data_platform.catalog.keys import KeyFormatError, parse_object_identity
from data_platform.catalog.models import UserStatistics
from data_platform.clients import aws, postgres
from data_platform.errors import TELL_THE_TEAM, PlatformError
from data_platform.resources.settings import SettingsResource
from data_platform.settings import Settings
from data_platform.statistics.apply import apply_file
from data_platform.statistics.errors import Level, ProcessingError
from data_platform.statistics.outcome import PYTHON_LEVELS, Outcome
from data_platform.statistics.source import FileVersion, find, parse_url

if TYPE_CHECKING:
    from data_platform.statistics.compare import Orphans

GROUP = "user_statistics"
FILES_KEY = dg.AssetKey([GROUP, "files"])
TABLE_KEY = dg.AssetKey([GROUP, "user_statistics"])
FILES = dg.DynamicPartitionsDefinition(name="user_statistics_files")
CONSERVATION, TABLE_MATCHES_FILE = "conservation", "table_matches_file"
COLUMNS = (
    ("user_id", "text", "A user of the table users."),
    ("login_count", "bigint", "As the last file has it that names the user."),
    ("post_count", "bigint", "As the last file has it that names the user."),
    ("updated_at", "timestamp with time zone", "Time of the last real change."),
)
OWNERS = ["team:data-platform"]
# Dagster refuses control characters in partition keys, S3 takes them in keys.
_KEPT = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) != "%")
REJECTS_SHOWN = 20


class FileConfig(dg.Config):
    """`again`: compare a file that was finished with the table, and apply it anew where they differ."""

    again: bool = False


def partition_of(identity: str) -> str:
    """The partition key of a file's identity (`s3://bucket/key@version`), readable and safe."""
    return quote(identity, safe=_KEPT)


def file_of(settings: Settings, partition: str) -> FileVersion:
    """The file a partition names; without `@version`, the version there is now. Raises ConfigurationError if gone."""
    text = unquote(partition)
    try:
        bucket, key, version = parse_object_identity(text)
    except KeyFormatError:
        bucket, key, version = parse_url(text)
    s3 = aws.s3(settings)
    # The version of an object in a bucket without versioning is its ETag and time, which S3 cannot be asked for.
    unversioned = version is not None and "-" in version and len(version.partition("-")[0]) == 32
    return find(s3, bucket, key, None if unversioned else version)


def user_statistics_assets(options: UserStatistics) -> list[Any]:
    """The two assets, and the checks on one file."""
    table = dg.AssetSpec(
        TABLE_KEY,
        deps=[FILES_KEY],
        description="Login and post counts per user; each value is that of the last file that names the user.",
        group_name=GROUP,
        kinds={"postgres", "table"},
        owners=OWNERS,
        metadata={
            "dagster/table_name": "user_statistics",
            "dagster/column_schema": dg.TableSchema(
                columns=[dg.TableColumn(name, type_, text) for name, type_, text in COLUMNS]
            ),
            "dagster/column_lineage": dg.TableColumnLineage(
                {name: [dg.TableColumnDep(FILES_KEY, name)] for name, _, _ in COLUMNS[:3]}
            ),
        },
    )

    @dg.asset(
        key=FILES_KEY,
        partitions_def=FILES,
        group_name=GROUP,
        kinds={"s3", "csv", "postgres"},
        owners=OWNERS,
        pool="postgres",
        check_specs=[
            dg.AssetCheckSpec(
                CONSERVATION, asset=FILES_KEY, description="Every record of the file was applied, rejected or withheld."
            ),
            dg.AssetCheckSpec(
                TABLE_MATCHES_FILE,
                asset=FILES_KEY,
                description="The file, read a second time by other means, says what the table says, all rows.",
            ),
        ],
    )
    def files(
        context: dg.AssetExecutionContext, config: FileConfig, platform: SettingsResource
    ) -> Iterator[dg.MaterializeResult[Any]]:
        """A CSV dropped under `incoming/`: validated, applied to user_statistics, its rejects listed beside it."""
        settings = platform.load()
        engine = postgres.engine(settings)
        try:
            outcome = apply_file(
                engine,
                aws.s3(settings),
                file_of(settings, context.partition_key),
                options,
                again=config.again,
                dagster_run_id=context.run.run_id,
                tell=lambda level, line: context.log.log(PYTHON_LEVELS[level], line),
            )
            context.log_event(dg.AssetMaterialization(TABLE_KEY, metadata=_table_metadata(engine, outcome)))
        except PlatformError as error:
            # What may pass was retried where it happened; the queue brings the file again.
            level = error.level if isinstance(error, ProcessingError) else Level.ERROR
            raise dg.Failure(f"{level} {error}", allow_retries=False) from error
        finally:
            engine.dispose()
        if outcome.status == "REFUSED":
            raise dg.Failure(
                refusal_of(outcome),
                metadata=_metadata(outcome),
                allow_retries=False,
            )
        yield dg.MaterializeResult(metadata=_metadata(outcome), check_results=checks_of(outcome))

    return [table, files]


def user_statistics_checks() -> list[dg.AssetChecksDefinition]:
    """The check on the table as a whole."""

    @dg.asset_check(asset=TABLE_KEY, additional_deps=[FILES_KEY], description="Every row belongs to a user.")
    def foreign_keys(platform: SettingsResource) -> dg.AssetCheckResult:
        from data_platform.statistics.compare import orphans

        engine = postgres.engine(platform.load())
        try:
            with engine.connect() as connection:
                found = orphans(connection)
        finally:
            engine.dispose()
        return foreign_keys_result(found)

    return [foreign_keys]


def foreign_keys_result(found: "Orphans") -> dg.AssetCheckResult:
    """The answer of the check on the table as a whole."""
    breach = step = ""
    if found.rows:
        breach = f"{found.rows:,} rows of user_statistics belong to no user: their user_id is not in the table users."
        step = (
            "See them: SELECT s.* FROM user_statistics AS s LEFT JOIN users AS u USING (user_id) WHERE u.user_id IS "
            "NULL. Ask whoever works on the table users whether these users were deleted on purpose (psql's \\dt+ "
            "users names its owner). By mistake: have the users restored. On purpose: DELETE FROM user_statistics AS s "
            "WHERE NOT EXISTS (SELECT FROM users AS u WHERE u.user_id = s.user_id). No answer yet: leave the rows, "
            "only these are wrong."
        )
    if not found.enforced:
        breach = f"{breach} PostgreSQL does not enforce the foreign key from user_statistics to users.".strip()
        key = "ALTER TABLE user_statistics ADD FOREIGN KEY (user_id) REFERENCES users (user_id)"
        step = f"{step} {'Then m' if step else 'M'}ake the foreign key again in PostgreSQL: {key}".strip()
    return dg.AssetCheckResult(
        passed=not breach,
        description=f"{breach} {step}" if breach else None,
        metadata={
            "rows_without_user": found.rows,
            "constraint_enforced": found.enforced,
            **({NEXT_STEP: step} if breach else {}),
        },
    )


def refusal_of(outcome: Outcome) -> str:
    """Why nothing of a file was applied, and what to do."""
    return (
        f"nothing of {outcome.file.url} was applied: {outcome.reason}\n  -> see each rejected row with its line and "
        f"reason: data-platform statistics audit {outcome.file.url}. Send that list to whoever drops the files (those "
        "who may write to the bucket) and have a corrected file dropped there, which is applied by itself. Until then "
        "the table keeps what the files before wrote"
    )


def checks_of(outcome: Outcome) -> Sequence[dg.AssetCheckResult]:
    """The checks on one file, answered by its run."""
    url = outcome.file.url
    lost = (
        ""
        if outcome.conserved
        else f"{url} has {outcome.records:,} records: {outcome.applied:,} were applied, {outcome.rejected:,} rejected, "
        f"{outcome.withheld:,} withheld; together {outcome.applied + outcome.rejected + outcome.withheld:,}."
    )
    return [
        _check(
            CONSERVATION,
            lost,
            f"Compare the file with data-platform statistics audit {url}, which lists each rejected row: what is "
            "missing in the table user_statistics? This is a mistake in the platform, not in the file: "
            f"{TELL_THE_TEAM}. Until it is corrected, apply the file again: data-platform statistics apply {url}. That "
            "writes only rows that differ, but also over what newer files wrote: where data-platform statistics "
            "history shows any, apply them after it in the same way, the oldest first",
            records=outcome.records,
            applied=outcome.applied,
            rejected=outcome.rejected,
            withheld=outcome.withheld,
        ),
        _check(
            TABLE_MATCHES_FILE,
            outcome.breach,
            outcome.breach_step,
            rows_compared=outcome.applied,
            inconsistencies=outcome.inconsistencies or 0,
        ),
    ]


def _check(name: str, breach: str, step: str, **measured: int) -> dg.AssetCheckResult:
    """A check; `breach` says what is wrong, empty where it passed."""
    return dg.AssetCheckResult(
        check_name=name,
        passed=not breach,
        description=f"{breach} {step}" if breach else None,
        metadata={**measured, **({NEXT_STEP: step} if breach else {})},
    )


def _metadata(outcome: Outcome) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        "dagster/uri": outcome.file.url,
        "read": read_of(outcome.file.url, outcome.file.version, outcome.records),
        "dagster/partition_row_count": outcome.records,
        "status": outcome.status,
        "inserted": outcome.inserted,
        "updated": outcome.updated,
        "unchanged": outcome.unchanged,
        "rejected": outcome.rejected,
        "chunks": outcome.chunks or 0,
        "bytes": dg.MetadataValue.int(outcome.file.size),
        "duration_s": dg.MetadataValue.float(outcome.seconds),
        "etag": outcome.file.etag,
        "ledger_run": str(outcome.run_id),
    }
    if outcome.reject_url is not None:
        metadata["reject_files"] = f"{outcome.reject_url}.csv, {outcome.reject_url}.parquet"
    if outcome.rejects:
        metadata["rejects_sample"] = dg.MetadataValue.table(
            [
                dg.TableRecord(
                    {"line": each.line, "class": each.error_class.value, "column": each.column or "",
                     "value": each.value or "", "rule": each.rule, "reason": each.reason}
                )
                for each in outcome.rejects[:REJECTS_SHOWN]
            ]
        )  # fmt: skip
    return metadata


def _table_metadata(engine: Any, outcome: Outcome) -> dict[str, Any]:
    with engine.connect() as connection:
        rows = connection.exec_driver_sql("SELECT count(*) FROM user_statistics").scalar_one()
    return {
        "dagster/row_count": rows,
        "changed": outcome.inserted + outcome.updated,
        "file": outcome.file.identity,
    }
