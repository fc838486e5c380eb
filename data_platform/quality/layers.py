"""The layers of a partition against each other: Redshift's count, the unload's files, the curated manifest, ClickHouse.

Every number is read from the store it describes, never from Dagster: a materialisation is a claim. A breach at one
layer must keep the next one from being made.
"""

from collections.abc import Callable, Mapping
from datetime import date
from typing import TYPE_CHECKING

from data_platform.catalog.models import Dataset, RedshiftSource
from data_platform.curation.manifest import StoredManifest, read_manifest
from data_platform.errors import TELL_THE_TEAM, PlatformError
from data_platform.loading.contents import manifest_objects
from data_platform.loading.rebuild import Warehouse
from data_platform.loading.register import State, TablePartition
from data_platform.loading.target import Target
from data_platform.quality.finding import Finding, make_again
from data_platform.settings import Settings
from data_platform.unload.datasets import proven_unload

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from sqlalchemy import Engine

UNLOADED, CURATED, LOADED = "rows_agree_with_redshift", "rows_agree_with_source", "rows_agree_with_curated"
DESCRIPTIONS = {
    UNLOADED: "Redshift counted as many unloaded rows as its manifest's files hold, and all of these are on S3.",
    CURATED: "The day's newest unload, its curated Parquet files and their manifest have the same number of rows.",
    LOADED: "Each curated file of the day has as many rows in ClickHouse as its manifest says; no others are there.",
}

IF_AGAIN = f"If the check fails again, it is a mistake in the platform: {TELL_THE_TEAM}."


def unload_proven(rows: int, files: int) -> Finding:
    """The finding for an unload whose proof has just succeeded: asking the stores again would ask the same question."""
    facts = {"redshift_rows": rows, "manifest_rows": rows, "files": files}
    return Finding(UNLOADED, True, f"{rows:,} rows in {files} files.", facts=facts)


def check_unload(settings: Settings, s3: "S3Client", ledger: "Engine", dataset: Dataset, ds: date) -> Finding:
    """Redshift's count against the unloaded files, which must all be there with the announced sizes."""
    try:
        proven = proven_unload(settings, s3, ledger, dataset, ds)
    except PlatformError as error:
        return unload_broken(dataset, ds, error)
    return unload_proven(proven.result.rows, len(proven.result.files))


def unload_broken(dataset: Dataset, ds: date, error: PlatformError) -> Finding:
    """The finding for an unload whose proof failed."""
    sentence = f"{dataset.key} {ds}: {error.message}."
    return Finding(UNLOADED, False, sentence, step=f"{_unload_again(dataset, ds)}. {IF_AGAIN}")


def _unload_again(dataset: Dataset, ds: date) -> str:
    return f"Unload the day again and make what follows from it, which is safe: {make_again(dataset, ds)}"


def check_curated(
    settings: Settings, s3: "S3Client", ledger: Callable[[], "Engine"], dataset: Dataset, ds: date
) -> Finding:
    """The curated partition against what it was made from, which must be the newest there is.

    `ledger` is only called for a dataset from Redshift: no other has unloads.
    """
    stored = read_manifest(s3, settings.curated_bucket, dataset.domain, dataset.name, ds)
    stale = None
    if stored is not None and isinstance(dataset.source, RedshiftSource):
        from data_platform.ledger import dataset_unloads

        with ledger().connect() as connection:
            newest = dataset_unloads.latest(connection, dataset.key, ds.isoformat(), status="DONE")
        if newest is None:
            return never_unloaded(dataset, ds, stored)
        stale = made_from_another(stored, newest.attempt, newest.rows)
    return judge_curated(dataset, ds, stored, stale)


def never_unloaded(dataset: Dataset, ds: date, stored: StoredManifest) -> Finding:
    """The finding for curated files whose unload the ledger does not know: what they were made from is not there."""
    version = stored.manifest.source.version
    sentence = f"{dataset.key} {ds}: the curated files were made from {version}, but no unload of the day was finished."
    return Finding(CURATED, False, sentence, step=f"{_unload_again(dataset, ds)}. {IF_AGAIN}")


def judge_curated(dataset: Dataset, ds: date, stored: StoredManifest | None, stale: str | None) -> Finding:
    """Whether the curated partition is whole; `stale` says why it is not made from the newest unload, if it is not."""
    where = f"{dataset.key} {ds}"
    step = f"Make its curated files again, which is safe: {make_again(dataset, ds, stages='curated,clickhouse')}"
    if stored is None:
        sentence = f"{where} has no curated files: the manifest that lists them is not in the curated bucket."
        return Finding(CURATED, False, sentence, step=f"{step}. {IF_AGAIN}")
    manifest = stored.manifest
    facts: dict[str, int | float | str] = {
        "source_rows": manifest.source.rows,
        "curated_rows": manifest.rows,
        "generation": manifest.generation,
        "made_from": manifest.source.version,
    }
    if manifest.rows != manifest.source.rows:
        sentence = f"{where}: its source has {manifest.source.rows:,} rows, its curated files have {manifest.rows:,}."
        return Finding(CURATED, False, sentence, step=f"{step}. {IF_AGAIN}", facts=facts)
    if stale is not None:
        return Finding(CURATED, False, f"{where}: {stale}", step=f"{step}. {IF_AGAIN}", facts=facts)
    return Finding(CURATED, True, f"{manifest.rows:,} rows in {len(manifest.files)} files.", facts=facts)


def check_loaded(warehouse: Warehouse, dataset: Dataset, ds: date) -> Finding:
    """ClickHouse and its register against the curated manifest, object by object (foreign objects: register only)."""
    bucket = warehouse.settings.curated_bucket
    stored = read_manifest(warehouse.s3, bucket, dataset.domain, dataset.name, ds)
    listed = {} if stored is None else {file.key: file.rows for file in stored.manifest.files}
    curated = {version.identity: listed[version.key] for version in manifest_objects(bucket, stored)}
    partition = TablePartition(dataset.domain, dataset.name, ds)
    known = warehouse.register.objects(partition)
    registered = {identity: record.rows for identity, record in known.items() if record.state is State.LOADED}
    found = Target(warehouse.client, dataset).rows_by_object(ds)
    return judge_loaded(dataset, ds, curated, registered, found)


def judge_loaded(
    dataset: Dataset, ds: date, curated: Mapping[str, int], registered: Mapping[str, int], found: Mapping[str, int]
) -> Finding:
    """Whether ClickHouse holds what it should, by rows of each object: curated manifest, loader's register, table."""
    facts: dict[str, int | float | str] = {
        "curated_rows": sum(curated.values()),
        "clickhouse_rows": sum(found.values()),
        "registered_rows": sum(registered.values()),
        "objects": len(registered),
    }
    wanted = {identity: rows for identity, rows in {**registered, **curated}.items() if rows}
    wrong = sorted(
        identity
        for identity in wanted.keys() | found.keys()
        if wanted.get(identity, 0) != found.get(identity, 0) or registered.get(identity, 0) != found.get(identity, 0)
    )
    if not wrong:
        return Finding(LOADED, True, f"{sum(found.values()):,} rows of {len(registered)} objects.", facts=facts)
    first = wrong[0]
    return Finding(
        LOADED,
        False,
        f"{dataset.key} {ds}: {len(wrong)} {'file differs' if len(wrong) == 1 else 'files differ'}; {first} has "
        f"{curated.get(first, 0):,} rows in the curated manifest, {found.get(first, 0):,} in the ClickHouse table "
        f"{dataset.domain}.{dataset.name} and {registered.get(first, 0):,} by the loader's own account.",
        step="Rebuild the day in ClickHouse from its curated files, which is safe: "
        f"{make_again(dataset, ds, stages='clickhouse')}. {IF_AGAIN}",
        facts=facts,
    )


def made_from_another(stored: StoredManifest, attempt: int, rows: int | None) -> str | None:
    """Why the curated partition is not made from the newest finished unload, `attempt`; None where it is."""
    source = stored.manifest.source
    if source.version == f"attempt {attempt}" and source.rows == rows:
        return None
    return (
        f"the newest unload is attempt {attempt} with {rows or 0:,} rows, the curated files were made from "
        f"{source.version} with {source.rows:,}."
    )
