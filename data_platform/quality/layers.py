"""The layers of a partition against each other: Redshift's count, the unload's files, the curated manifest, ClickHouse.

Every number is read from the store it describes, never from Dagster: a materialisation is a claim. A breach at one
layer must keep the next one from being made.
"""

from collections.abc import Callable
from datetime import date
from typing import TYPE_CHECKING

from data_platform.catalog.models import Dataset, RedshiftSource
from data_platform.curation.manifest import StoredManifest, read_manifest
from data_platform.errors import PlatformError
from data_platform.loading.contents import manifest_objects
from data_platform.loading.rebuild import Warehouse
from data_platform.loading.register import State, TablePartition
from data_platform.loading.target import Target
from data_platform.quality.finding import Finding
from data_platform.settings import Settings
from data_platform.unload.datasets import proven_unload

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from sqlalchemy import Engine

UNLOADED, CURATED, LOADED = "rows_agree_with_redshift", "rows_agree_with_source", "rows_agree_with_curated"
DESCRIPTIONS = {
    UNLOADED: "Redshift's own count of the rows it unloaded = the rows of the files in the manifest, all in place.",
    CURATED: "Rows of the newest unload = rows of the curated files = rows the curated manifest tells.",
    LOADED: "Rows of the curated manifest = rows in ClickHouse = rows in the loader's register, object by object.",
}


def unload_proven(rows: int, files: int) -> Finding:
    """The finding for an unload whose proof has just succeeded: asking the stores again would ask the same question."""
    facts = {"redshift_rows": rows, "manifest_rows": rows, "files": files}
    return Finding(UNLOADED, True, f"{rows:,} rows in {files} files.", facts=facts)


def check_unload(settings: Settings, s3: "S3Client", ledger: "Engine", dataset: Dataset, ds: date) -> Finding:
    """Redshift's count against the unloaded files, which must all be there with the announced sizes."""
    try:
        proven = proven_unload(settings, s3, ledger, dataset, ds)
    except PlatformError as error:
        sentence = f"{dataset.key} {ds}: {error.message}. Materialise the unload layer of the day again."
        return Finding(UNLOADED, False, sentence)
    return unload_proven(proven.result.rows, len(proven.result.files))


def check_curated(
    settings: Settings, s3: "S3Client", ledger: Callable[[], "Engine"], dataset: Dataset, ds: date
) -> Finding:
    """The curated partition against what it was made from, which must be the newest there is.

    `ledger` is only called for a dataset from Redshift: no other has unloads.
    """
    where = f"{dataset.key} {ds}"
    stored = read_manifest(s3, settings.curated_bucket, dataset.domain, dataset.name, ds)
    if stored is None:
        sentence = f"{where} has no curated manifest. Materialise the curated layer of the day."
        return Finding(CURATED, False, sentence)
    manifest = stored.manifest
    facts: dict[str, int | float | str] = {
        "source_rows": manifest.source.rows,
        "curated_rows": manifest.rows,
        "generation": manifest.generation,
        "made_from": manifest.source.version,
    }
    if manifest.rows != manifest.source.rows:
        sentence = f"{where}: {manifest.source.rows:,} rows were read and {manifest.rows:,} were written. "
        return Finding(CURATED, False, sentence + "Materialise the curated layer of the day again.", facts=facts)
    if isinstance(dataset.source, RedshiftSource):
        stale = _stale_unload(ledger(), dataset, ds, stored)
        if stale is not None:
            return Finding(CURATED, False, f"{where}: {stale}", facts=facts)
    return Finding(CURATED, True, f"{manifest.rows:,} rows in {len(manifest.files)} files.", facts=facts)


def check_loaded(warehouse: Warehouse, dataset: Dataset, ds: date) -> Finding:
    """ClickHouse and its register against the curated manifest, object by object (foreign objects: register only)."""
    where = f"{dataset.domain}.{dataset.name} {ds}"
    bucket = warehouse.settings.curated_bucket
    stored = read_manifest(warehouse.s3, bucket, dataset.domain, dataset.name, ds)
    listed = {} if stored is None else {file.key: file.rows for file in stored.manifest.files}
    curated = {version.identity: listed[version.key] for version in manifest_objects(bucket, stored)}
    partition = TablePartition(dataset.domain, dataset.name, ds)
    known = warehouse.register.objects(partition)
    registered = {identity: record.rows for identity, record in known.items() if record.state is State.LOADED}
    found = Target(warehouse.client, dataset).rows_by_object(ds)
    facts: dict[str, int | float | str] = {
        "curated_rows": sum(curated.values()),
        "clickhouse_rows": sum(found.values()),
        "registered_rows": sum(registered.values()),
        "objects": len(registered),
    }
    wanted = {identity: rows for identity, rows in (registered | curated).items() if rows}
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
        f"{where}: {len(wrong)} objects differ; {first} has {curated.get(first, 0):,} rows in the curated manifest, "
        f"{found.get(first, 0):,} in ClickHouse and {registered.get(first, 0):,} in the register. "
        "Materialise the clickhouse layer of the day: it rebuilds the partition from its curated files.",
        facts=facts,
    )


def _stale_unload(ledger: "Engine", dataset: Dataset, ds: date, stored: StoredManifest) -> str | None:
    """Why the curated partition is not the newest unload's, or None where it is."""
    from data_platform.ledger import dataset_unloads

    with ledger.connect() as connection:
        newest = dataset_unloads.latest(connection, dataset.key, ds.isoformat(), status="DONE")
    source = stored.manifest.source
    if newest is None:
        return f"the curated partition tells of {source.version}, the ledger of no finished unload. Unload the day."
    if source.version != f"attempt {newest.attempt}" or source.rows != newest.rows:
        return (
            f"the newest unload is attempt {newest.attempt} with {newest.rows:,} rows, the curated partition was made "
            f"from {source.version} with {source.rows:,}. Materialise the curated layer of the day."
        )
    return None
