"""The commit marker of a partition: generations, two writers, a lost answer, what is cleared away."""

from datetime import UTC, date, datetime
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from data_platform.clients import aws
from data_platform.curation.manifest import (
    ConflictError,
    CuratedFile,
    PartitionManifest,
    PartitionSource,
    StoredManifest,
    UncertainCommitError,
    commit_manifest,
    file_name,
    generation_of,
    manifest_key,
    read_manifest,
    superseded_keys,
)
from data_platform.errors import Fault, PlatformError
from data_platform.local.cloud import Cloud
from data_platform.settings import Settings

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

DAY = date(2024, 1, 1)


@pytest.fixture(scope="module")
def s3(settings: Settings) -> "S3Client":
    return aws.s3(settings)


@pytest.fixture
def table() -> str:
    return f"t{uuid4().hex[:10]}"


def manifest(table: str, generation: int, *keys: str) -> PartitionManifest:
    return PartitionManifest(
        dataset=f"shop/{table}",
        ds=DAY,
        generation=generation,
        schema_version="0" * 12,
        created_at=datetime(2024, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
        source=PartitionSource(kind="unload", reference="s3://u/x/", version="attempt 1", rows=len(keys)),
        files=tuple(CuratedFile(key=key, etag="e", bytes=2000, rows=1, uncompressed_bytes=9) for key in keys),
    )


@pytest.mark.unit
@pytest.mark.parametrize("generation", [1, 42, 999_999, 1_000_000])
def test_a_name_tells_its_generation(generation: int) -> None:
    assert generation_of(file_name(generation, "0a1b2c3d", 7)) == generation


@pytest.mark.unit
@pytest.mark.parametrize(
    "name", ["part-0.parquet", "g1-a-00001.parquet", "g000001-a-1.parquet", "g000001-A-00001.parquet", "_manifest.json"]
)
def test_a_foreign_name_has_none(name: str) -> None:
    assert generation_of(name) is None


@pytest.mark.integration
def test_what_is_committed_is_read(s3: "S3Client", settings: Settings, table: str) -> None:
    assert read_manifest(s3, settings.curated_bucket, "shop", table, DAY) is None
    stored = commit_manifest(s3, settings.curated_bucket, manifest(table, 1, "a", "b"), None)
    assert read_manifest(s3, settings.curated_bucket, "shop", table, DAY) == stored
    assert (stored.manifest.rows, stored.manifest.bytes) == (2, 4000)


@pytest.mark.integration
def test_of_two_first_writers_one_wins(s3: "S3Client", settings: Settings, table: str) -> None:
    first = commit_manifest(s3, settings.curated_bucket, manifest(table, 1, "mine"), None)
    with pytest.raises(ConflictError, match="another writer") as caught:
        commit_manifest(s3, settings.curated_bucket, manifest(table, 1, "theirs"), None)
    assert caught.value.fault is Fault.TRANSIENT
    assert read_manifest(s3, settings.curated_bucket, "shop", table, DAY) == first


@pytest.mark.integration
def test_of_two_that_replace_the_same_one_wins(s3: "S3Client", settings: Settings, table: str) -> None:
    base = commit_manifest(s3, settings.curated_bucket, manifest(table, 1, "a"), None)
    second = commit_manifest(s3, settings.curated_bucket, manifest(table, 2, "b"), base)
    with pytest.raises(ConflictError):
        commit_manifest(s3, settings.curated_bucket, manifest(table, 2, "c"), base)
    assert read_manifest(s3, settings.curated_bucket, "shop", table, DAY) == second


@pytest.mark.integration
@pytest.mark.parametrize("kind", ["s3.reset", "s3.error"])
def test_a_commit_whose_answer_was_lost_is_a_commit(
    cloud: Cloud, s3: "S3Client", settings: Settings, table: str, kind: str
) -> None:
    """The client repeats the put, which then meets its own manifest: a refusal that must not be believed."""
    match = {"method": "PUT", "key": manifest_key("shop", table, DAY)}
    fault = cloud.faults("aws").arm(kind, match=match, when="after")
    stored = commit_manifest(s3, settings.curated_bucket, manifest(table, 1, "a"), None)
    assert cloud.faults("aws").struck(fault) == 1
    assert read_manifest(s3, settings.curated_bucket, "shop", table, DAY) == stored


@pytest.mark.integration
def test_a_commit_nobody_can_tell_of_is_said_to_be_so(
    cloud: Cloud, s3: "S3Client", settings: Settings, table: str
) -> None:
    key = manifest_key("shop", table, DAY)
    fault = cloud.faults("aws").arm("s3.error", match={"key": key}, times=None, status=500, when="after")
    with pytest.raises(UncertainCommitError) as caught:
        commit_manifest(s3, settings.curated_bucket, manifest(table, 1, "a"), None)
    assert cloud.faults("aws").struck(fault) >= 2
    assert caught.value.fault is Fault.TRANSIENT
    cloud.faults("aws").clear()
    assert read_manifest(s3, settings.curated_bucket, "shop", table, DAY) is not None


@pytest.mark.integration
def test_only_what_is_older_and_ours_is_superseded(s3: "S3Client", settings: Settings, table: str) -> None:
    prefix = f"shop/{table}/ds={DAY}/"
    names = {
        "current": file_name(2, "bb", 0),
        "older": file_name(1, "aa", 0),
        "lost the race": file_name(2, "cc", 0),
        "newer": file_name(3, "dd", 0),
        "foreign": "producer.parquet",
        "no parquet": "_SUCCESS",
    }
    for name in names.values():
        s3.put_object(Bucket=settings.curated_bucket, Key=f"{prefix}{name}", Body=b"x")
    current = manifest(table, 2, f"{prefix}{names['current']}")
    commit_manifest(s3, settings.curated_bucket, current, None)
    found = {key.removeprefix(prefix) for key in superseded_keys(s3, settings.curated_bucket, current)}
    assert found == {names["older"], names["lost the race"]}


@pytest.mark.integration
def test_what_is_no_manifest_is_refused_by_name(s3: "S3Client", settings: Settings, table: str) -> None:
    key = manifest_key("shop", table, DAY)
    s3.put_object(Bucket=settings.curated_bucket, Key=key, Body=b'{"format": 2}')
    with pytest.raises(PlatformError, match=f"{key} is not a readable manifest"):
        read_manifest(s3, settings.curated_bucket, "shop", table, DAY)


@pytest.mark.unit
def test_an_empty_partition_is_a_manifest_without_files() -> None:
    empty = manifest("items", 3)
    assert (empty.rows, empty.bytes, empty.files) == (0, 0, ())
    assert PartitionManifest.model_validate_json(empty.model_dump_json()) == empty
    assert StoredManifest(empty, "e").manifest is empty
