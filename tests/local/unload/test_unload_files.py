"""Names, splitting, partitions, manifests, the target's emptiness: what lies in S3 after an UNLOAD."""

from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_platform.local.warehouse.unload import execution
from data_platform.local.warehouse.unload.contract import MEGABYTE, UnloadOutcome, WarehouseError

pytestmark = pytest.mark.integration

HUNDRED = "select i as id, 'name ' || i as name from generate_series(1, 100) i order by i"


def assert_manifest_is_true(bench: Any, outcome: UnloadOutcome, header_lines: int = 0, name: str = "manifest") -> None:
    """Same set as listed, each length right, counts add up to the total and to the outcome."""
    manifest = bench.manifest(name)
    folder = name.removesuffix("manifest")
    listed = {f"{bench.prefix}{key}": len(bench.read(key)) for key in bench.data_names() if key.startswith(folder)}
    entries = {entry["url"]: entry["meta"] for entry in manifest["entries"]}
    assert {url: meta["content_length"] for url, meta in entries.items()} == listed
    assert manifest["meta"]["content_length"] == sum(listed.values()) == outcome.bytes
    assert sum(meta["record_count"] for meta in entries.values()) == manifest["meta"]["record_count"]
    assert manifest["meta"]["record_count"] == outcome.rows + header_lines
    assert manifest["author"] == {"name": "Amazon Redshift", "version": "1.0.0"}
    assert outcome.manifest_url == f"{bench.prefix}{name}"
    assert outcome.files == len(listed)


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ("", [f"000{number}_part_00" for number in range(4)]),
        ("CSV", [f"000{number}_part_00" for number in range(4)]),
        ("JSON GZIP", [f"000{number}_part_00.gz" for number in range(4)]),
        ("BZIP2", [f"000{number}_part_00.bz2" for number in range(4)]),
        ("PARQUET", [f"000{number}_part_00.parquet" for number in range(4)]),
        ("PARALLEL OFF", ["000"]),
        ("CSV ZSTD PARALLEL OFF", ["000.zst"]),
        ("PARQUET PARALLEL OFF", ["000.parquet"]),
        ("CSV GZIP PARALLEL OFF EXTENSION 'csv.gz'", ["000.csv.gz"]),
        ("CSV GZIP PARALLEL OFF EXTENSION 'csv'", ["000.csv"]),
        ("CSV EXTENSION 'csv'", [f"000{number}_part_00.csv" for number in range(4)]),
    ],
)
def test_files_are_named_as_redshift_names_them(bench: Any, options: str, names: list[str]) -> None:
    outcome = bench.unload(HUNDRED, options)
    assert bench.names() == names
    assert [part.url for part in outcome.parts] == [bench.prefix + name for name in names]


def test_a_prefix_without_slash_is_a_prefix(bench: Any) -> None:
    outcome = bench.unload(HUNDRED, "MANIFEST PARALLEL OFF", "venue_")
    assert bench.names() == ["venue_000", "venue_manifest"]
    assert outcome.manifest_url == f"{bench.prefix}venue_manifest"


def test_a_slice_without_rows_writes_no_file(bench: Any) -> None:
    assert bench.unload("select 1 as a union all select 2", "CSV").files == 2
    assert bench.names() == ["0000_part_00", "0001_part_00"]


@pytest.mark.parametrize("options", ["CSV", "PARQUET", "CSV HEADER GZIP PARALLEL OFF", "JSON", "PARTITION BY (name)"])
def test_an_empty_result_writes_nothing_and_counts_zero(bench: Any, options: str) -> None:
    outcome = bench.unload("select 1 as id, 'x' as name where false", f"{options} MANIFEST VERBOSE")
    assert (outcome.rows, outcome.bytes, outcome.files, outcome.manifest_url) == (0, 0, 0, None)
    assert bench.names() == []


def test_a_verbose_manifest_proves_the_result(bench: Any) -> None:
    outcome = bench.unload(HUNDRED, "PARQUET MANIFEST VERBOSE")
    assert_manifest_is_true(bench, outcome)


def test_record_counts_include_header_lines_and_the_count_does_not(bench: Any) -> None:
    outcome = bench.unload(HUNDRED, "CSV HEADER MANIFEST VERBOSE")
    assert outcome.rows == 100
    assert_manifest_is_true(bench, outcome, header_lines=4)


def test_the_manifest_names_columns_and_dimensions(bench: Any) -> None:
    query = """select 1::smallint as a, 2 as b, 3::bigint as c, 'x'::varchar(20) as d, 'y'::char(3) as e,
        1.5::numeric(18,2) as f, 1::real as g, 1::float8 as h, true as i, date '2013-01-01' as j,
        timestamp '2013-01-01' as k, timestamptz '2013-01-01' as l"""
    bench.unload(query, "MANIFEST VERBOSE")
    elements = bench.manifest()["schema"]["elements"]
    assert {element["name"]: element["type"] for element in elements} == {
        "a": {"base": "smallint"},
        "b": {"base": "integer"},
        "c": {"base": "bigint"},
        "d": {"base": "character varying", "max_length": 20},
        "e": {"base": "character", "max_length": 3},
        "f": {"base": "numeric", "precision": 18, "scale": 2},
        "g": {"base": "real"},
        "h": {"base": "double precision"},
        "i": {"base": "boolean"},
        "j": {"base": "date"},
        "k": {"base": "timestamp without time zone"},
        "l": {"base": "timestamp with time zone"},
    }


def test_a_plain_manifest_lists_files_only(bench: Any) -> None:
    bench.unload(HUNDRED, "CSV MANIFEST PARALLEL OFF")
    size = len(bench.read("000"))
    assert bench.manifest() == {"entries": [{"url": f"{bench.prefix}000", "meta": {"content_length": size}}]}


@pytest.mark.parametrize(
    "options", ["CSV HEADER", "CSV PARALLEL OFF", "PARQUET", "PARQUET PARALLEL OFF", "GZIP PARALLEL OFF"]
)
def test_files_end_at_maxfilesize(bench: Any, options: str) -> None:
    # md5 does not compress: 26 MB of text, 14 MB of gzip.
    query = """select i, md5(i::text) || md5((-i)::text) || md5((i + 0.5)::text) || md5((i + 0.25)::text) as h
        from generate_series(1, 190000) i order by i"""
    outcome = bench.unload(query, f"{options} MAXFILESIZE 5 MB MANIFEST VERBOSE")
    sizes = {key: len(bench.read(key)) for key in bench.data_names()}
    assert max(sizes.values()) <= 5 * MEGABYTE
    if "PARALLEL OFF" in options:
        assert len(sizes) >= 4
        assert [key[:3] for key in sizes] == [f"{number:03d}" for number in range(len(sizes))]
    else:
        assert any("_part_01" in key for key in sizes)
    assert_manifest_is_true(bench, outcome, header_lines=len(sizes) if "HEADER" in options else 0)
    assert outcome.rows == 190000
    if "CSV PARALLEL OFF" in options:
        numbers = [int(line.split(b",")[0]) for line in bench.read_all().splitlines()]
        assert numbers == list(range(1, 190001))


PARTITIONED = """select i as id, i % 3 as r, case when i % 10 = 0 then null else 'k/' || i % 2 || ' =日' end as k,
    date '2013-01-01' + i % 2 as d from generate_series(1, 100) i order by i"""


@pytest.mark.parametrize("options", ["PARQUET", "CSV HEADER", "JSON PARALLEL OFF"])
def test_partitions_become_hive_folders(bench: Any, options: str) -> None:
    outcome = bench.unload(PARTITIONED, f"{options} PARTITION BY (r, k) MANIFEST VERBOSE", "part")
    keys = [key for key in bench.names() if key != "part/manifest"]
    folders = {tuple(unquote(step) for step in key.removeprefix("part/").split("/")[:-1]) for key in keys}
    expected = {
        (f"r={r}", f"k={'__HIVE_DEFAULT_PARTITION__' if k is None else k}") for _, r, k, _ in bench.rows(PARTITIONED)
    }
    assert folders == expected
    assert_manifest_is_true(bench, outcome, len(keys) if "HEADER" in options else 0, "part/manifest")
    assert outcome.rows == 100


def test_partition_columns_are_left_out_unless_included(bench: Any) -> None:
    query = "select i as id, i % 3 as r, true as b from generate_series(1, 100) i"
    bench.unload(query, "PARQUET PARTITION BY (r)", "without/")
    bench.unload(query, "PARQUET PARTITION BY (r) INCLUDE", "with/")
    for key in bench.names():
        table = pq.read_table(pa.BufferReader(bench.read(key)))
        remainder = int(key.split("r=")[1][0])
        assert {row["id"] % 3 for row in table.to_pylist()} == {remainder}
        if key.startswith("with/"):
            assert table.schema.names == ["id", "r", "b"]
            assert table.schema.field("r").type == pa.int32()
            assert set(table["r"].to_pylist()) == {remainder}
        else:
            assert table.schema.names == ["id", "b"]
    assert len(bench.names()) == 6


def test_partitions_that_fill_the_memory_are_written_early(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execution, "PENDING_BYTES", 64 * 1024)
    query = "select i as id, i % 7 as r, md5(i::text) as h from generate_series(1, 300000) i"
    outcome = bench.unload(query, "PARQUET PARTITION BY (r) MANIFEST VERBOSE")
    assert_manifest_is_true(bench, outcome)
    files = [pq.ParquetFile(pa.BufferReader(bench.read(name))) for name in bench.data_names()]
    assert len(files) == 7
    assert max(file.num_row_groups for file in files) > 1
    assert sorted(number for file in files for number in file.read()["id"].to_pylist()) == list(range(1, 300001))


@pytest.mark.parametrize(
    ("query", "partition", "sqlstate"),
    [
        ("select 1 as a, 2 as b", "c", "42703"),
        ("select 1 as a", "a", "42601"),
        ("select 1 as a, 2 as b", "a, b", "42601"),
        ("select 1 as a, 2 as a, 3 as c", "a", "42701"),
    ],
)
def test_partitions_that_cannot_be_are_refused(bench: Any, query: str, partition: str, sqlstate: str) -> None:
    with pytest.raises(WarehouseError) as refused:
        bench.unload(query, f"CSV PARTITION BY ({partition})")
    assert refused.value.sqlstate == sqlstate


@pytest.mark.parametrize("stray", ["target/000", "target/manifest", "target/deep/below/x", "target_and_more"])
def test_a_target_with_objects_is_refused_also_when_only_a_sub_prefix_has_them(bench: Any, stray: str) -> None:
    start = bench.prefix.removeprefix("s3://unload-tests/")
    bench.s3.put_object(Bucket="unload-tests", Key=start + stray, Body=b"here before")
    with pytest.raises(WarehouseError, match="Specified unload destination on S3 is not empty"):
        bench.unload(HUNDRED, "CSV", "target")
    assert bench.names() == [stray]
    bench.unload(HUNDRED, "CSV PARALLEL OFF ALLOWOVERWRITE", "target")
    assert set(bench.names()) == {stray, "target000"}


def test_allowoverwrite_replaces_files_of_the_same_name(bench: Any) -> None:
    bench.unload("select 1 as a", "CSV PARALLEL OFF MANIFEST VERBOSE")
    outcome = bench.unload("select 22 as a", "CSV PARALLEL OFF MANIFEST VERBOSE ALLOWOVERWRITE")
    assert bench.read("000") == b"22\n"
    assert_manifest_is_true(bench, outcome)


def test_cleanpath_removes_what_was_there(bench: Any) -> None:
    bench.unload(HUNDRED, "CSV MANIFEST")
    bench.unload("select 1 as a", "CSV PARALLEL OFF CLEANPATH")
    assert bench.names() == ["000"]


def test_cleanpath_with_partitions_cleans_only_the_folders_it_writes(bench: Any) -> None:
    start = bench.prefix.removeprefix("s3://unload-tests/")
    for stray in ("d=1/old", "d=2/old", "other"):
        bench.s3.put_object(Bucket="unload-tests", Key=start + stray, Body=b"old")
    bench.unload("select 1 as d, 2 as a", "PARQUET PARALLEL OFF CLEANPATH PARTITION BY (d)")
    assert bench.names() == ["d=1/000.parquet", "d=2/old", "other"]


def test_a_missing_bucket_is_said_in_redshifts_words(bench: Any) -> None:
    bench.prefix = "s3://no-such-bucket-here/x/"
    with pytest.raises(WarehouseError, match=r"S3ServiceException.*NoSuchBucket") as refused:
        bench.unload(HUNDRED, "CSV")
    assert refused.value.sqlstate == "XX000"
    assert "code:      8001" in refused.value.detail


def test_a_bucket_elsewhere_needs_its_region(bench: Any) -> None:
    bench.s3.create_bucket(Bucket="unload-in-ireland", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    bench.prefix = f"s3://unload-in-ireland/{bench.prefix.removeprefix('s3://unload-tests/')}"
    with pytest.raises(WarehouseError, match="PermanentRedirect"):
        bench.unload(HUNDRED, "CSV")
    assert bench.unload(HUNDRED, "CSV REGION 'eu-west-1'").rows == 100


def test_objects_are_encrypted_as_asked(bench: Any) -> None:
    bench.unload("select 1 as a", "CSV PARALLEL OFF", "plain/")
    bench.unload("select 1 as a", "CSV PARALLEL OFF ENCRYPTED AUTO", "auto/")
    bench.unload("select 1 as a", "CSV PARALLEL OFF ENCRYPTED KMS_KEY_ID 'key-1' MANIFEST", "kms/")
    start = bench.prefix.removeprefix("s3://unload-tests/")

    def head(name: str) -> Any:
        return bench.s3.head_object(Bucket="unload-tests", Key=start + name)

    assert head("plain/000")["ServerSideEncryption"] == "AES256"
    assert bench.read("auto/000") == b"1\n"  # the bucket's own encryption decides
    for name in ("kms/000", "kms/manifest"):
        assert head(name)["ServerSideEncryption"] == "aws:kms"
        assert head(name)["SSEKMSKeyId"].endswith("key-1")


def test_progress_grows_to_the_outcome(bench: Any) -> None:
    outcome = bench.unload("select i, md5(i::text) from generate_series(1, 200000) i", "CSV")
    assert len(bench.seen) >= 3
    assert bench.seen == sorted(bench.seen)
    assert bench.seen[-1] == (outcome.rows, outcome.bytes, outcome.files)
