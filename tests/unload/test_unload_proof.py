"""The proof of an UNLOAD result: every way in which manifest, listing and count can disagree."""

import json
from typing import Any

import pytest

from data_platform.errors import Fault
from data_platform.unload.manifest import Manifest, ProofError, UnloadedFile, parse_manifest, prove

pytestmark = pytest.mark.unit
FILES = {"r/0000_part_00.parquet": (100, 3), "r/0001_part_00.parquet": (50, 2)}


def told(files: dict[str, tuple[int, int]] = FILES, **changes: Any) -> dict[str, Any]:
    entries = [
        {"url": f"s3://b/{key}", "meta": {"content_length": size, "record_count": rows}}
        for key, (size, rows) in files.items()
    ]
    total = {"content_length": sum(s for s, _ in files.values()), "record_count": sum(r for _, r in files.values())}
    return {"entries": entries, "meta": total, "schema": {"elements": []}, "author": {"name": "x"}, **changes}


def manifest(files: dict[str, tuple[int, int]] = FILES, **changes: Any) -> Manifest:
    return parse_manifest(json.dumps(told(files, **changes)).encode())


def listed(files: dict[str, tuple[int, int]] = FILES) -> dict[str, int]:
    return {key: size for key, (size, _) in files.items()}


def test_a_whole_result_is_its_files_in_order() -> None:
    found = prove(manifest(dict(reversed(FILES.items()))), listed(), bucket="b", count=5)
    assert found == (UnloadedFile("r/0000_part_00.parquet", 100, 3), UnloadedFile("r/0001_part_00.parquet", 50, 2))


def test_header_lines_are_no_rows() -> None:
    found = prove(manifest(), listed(), bucket="b", count=3, header=True)
    assert [file.rows for file in found] == [2, 1]


def test_an_empty_result_has_no_manifest_and_no_files() -> None:
    assert prove(None, {}, bucket="b", count=0) == ()


@pytest.mark.parametrize(
    ("found", "files", "count", "reason"),
    [
        (None, {}, 5, "no manifest, but the warehouse counted 5 rows"),
        (None, listed(), 0, "2 files are there"),
        (manifest(), {"r/0000_part_00.parquet": 100}, 5, "missing from S3: r/0001_part_00.parquet"),
        (manifest(), {**listed(), "r/0002": 1}, 5, "not in the manifest: r/0002"),
        (manifest(), {**listed(), "r/0001_part_00.parquet": 49}, 5, "has 49 bytes, the manifest says 50"),
        (manifest(), listed(), 4, "hold 5 rows, the warehouse counted 4"),
        (manifest(), listed(), 0, "hold 5 rows, the warehouse counted 0"),
        (manifest(meta={"content_length": 150, "record_count": 6}), listed(), 5, "the manifest's total is 6"),
        (manifest(entries=[*told()["entries"], told()["entries"][0]]), listed(), 5, "names a file twice"),
    ],
)
def test_each_disagreement_is_named(found: Manifest | None, files: dict[str, int], count: int, reason: str) -> None:
    with pytest.raises(ProofError, match=reason) as caught:
        prove(found, files, bucket="b", count=count)
    assert caught.value.fault is Fault.PERMANENT


def test_header_lines_that_are_not_there_are_missed() -> None:
    with pytest.raises(ProofError, match="hold 3 rows, the warehouse counted 5"):
        prove(manifest(), listed(), bucket="b", count=5, header=True)


def test_files_of_another_bucket_are_not_ours() -> None:
    with pytest.raises(ProofError, match="missing from S3: s3://b/r/0000"):
        prove(manifest(), listed(), bucket="other", count=5)


def test_all_disagreements_are_told_at_once() -> None:
    with pytest.raises(ProofError) as caught:
        prove(manifest(), {"r/0000_part_00.parquet": 1, "r/x": 1}, bucket="b", count=9)
    assert all(part in str(caught.value) for part in ("missing from S3", "not in the manifest", "bytes", "counted 9"))


@pytest.mark.parametrize(
    ("data", "where"),
    [
        (b"", "its root"),
        (b"[]", "its root"),
        (b'{"entries": []}', "meta"),
        (json.dumps(told(entries=[{"url": "s3://b/k"}])).encode(), "entries.0.meta"),
        (json.dumps(told(entries=[{"url": "b/k", "meta": {"content_length": 1, "record_count": 1}}])).encode(),
         "entries.0.url"),
        (json.dumps(told(meta={"content_length": -1, "record_count": 0})).encode(), "meta.content_length"),
    ],
)  # fmt: skip
def test_a_manifest_that_is_none_says_where(data: bytes, where: str) -> None:
    with pytest.raises(ProofError, match=f"not valid at {where}"):
        parse_manifest(data)
