"""The fault switches: each strikes, leaves what Redshift would leave, and counts that it struck."""

import time
from typing import Any

import pytest

from data_platform.local.warehouse.unload.contract import FAULT_KINDS, ConnectionDroppedError, WarehouseError

pytestmark = pytest.mark.integration

HUNDRED = "select i as id, 'name ' || i as name from generate_series(1, 100) i order by i"
OPTIONS = "CSV MANIFEST VERBOSE"


def struck(bench: Any) -> dict[str, int]:
    return {rule["kind"]: rule["struck"] for rule in bench.faults.rules()}


@pytest.mark.parametrize("files", [0, 1, 3, 4, 99])
def test_dying_after_k_files_leaves_k_files_and_no_manifest(bench: Any, files: int) -> None:
    bench.faults.arm("unload.die_after_files", args={"files": files})
    with pytest.raises(WarehouseError) as died:
        bench.unload(HUNDRED, OPTIONS)
    assert died.value.sqlstate == "XX000"
    assert bench.names() == [f"000{number}_part_00" for number in range(min(files, 4))]
    assert struck(bench) == {"unload.die_after_files": 1}


def test_dying_may_drop_the_connection(bench: Any) -> None:
    bench.faults.arm("unload.die_after_files", args={"files": 2, "drop": True})
    with pytest.raises(ConnectionDroppedError):
        bench.unload(HUNDRED, OPTIONS)
    assert len(bench.names()) == 2


def test_the_next_unload_is_spared(bench: Any) -> None:
    bench.faults.arm("unload.die_after_files", args={"files": 0})
    with pytest.raises(WarehouseError):
        bench.unload(HUNDRED, OPTIONS)
    assert bench.unload(HUNDRED, OPTIONS).rows == 100


def test_a_fault_is_aimed_by_prefix_and_query(bench: Any) -> None:
    bench.faults.arm("unload.refuse_role", match={"prefix": "*/aimed/*"}, times=None)
    bench.faults.arm("unload.refuse_role", match={"query": "*9 as nine*"}, times=None)
    assert bench.unload(HUNDRED, OPTIONS, "other/").rows == 100
    for query, name in ((HUNDRED, "aimed/x"), ("select 9 as nine", "elsewhere/")):
        with pytest.raises(WarehouseError):
            bench.unload(query, OPTIONS, name)


def test_a_timeout_strikes_after_its_files(bench: Any) -> None:
    bench.faults.arm("unload.timeout", args={"files": 2})
    with pytest.raises(WarehouseError, match="statement timeout") as ended:
        bench.unload(HUNDRED, OPTIONS)
    assert ended.value.sqlstate == "57014"
    assert len(bench.names()) == 2


def test_the_role_is_refused_before_anything_is_written(bench: Any) -> None:
    bench.faults.arm("unload.refuse_role")
    with pytest.raises(WarehouseError, match="not authorized to assume IAM Role") as refused:
        bench.unload(HUNDRED, OPTIONS)
    assert refused.value.sqlstate == "XX000"
    assert bench.names() == []


@pytest.mark.parametrize("options", ["CSV", "PARQUET"])
def test_a_failed_slice_leaves_the_files_of_the_others(bench: Any, options: str) -> None:
    bench.faults.arm("unload.s3_error", args={"slice": 1})
    with pytest.raises(WarehouseError, match="S3ServiceException") as failed:
        bench.unload(HUNDRED, f"{options} MANIFEST VERBOSE")
    assert failed.value.sqlstate == "XX000"
    assert "code:      8001" in (failed.value.detail or "")
    assert [key[:4] for key in bench.names()] == ["0000", "0002", "0003"]
    assert struck(bench) == {"unload.s3_error": 1}


def test_an_s3_error_for_a_slice_that_never_opens_still_fails(bench: Any) -> None:
    bench.faults.arm("unload.s3_error", args={"slice": 3})
    with pytest.raises(WarehouseError, match="S3ServiceException"):
        bench.unload("select 1 as a", OPTIONS)


def test_s3_gone_away_is_an_error_not_a_hang(bench: Any) -> None:
    bench.environment = type(bench.environment)(
        s3_endpoint="http://127.0.0.1:9", access_key_id="a", secret_access_key="b", region="us-east-1"
    )
    with pytest.raises(WarehouseError, match="S3CurlException") as failed:
        bench.unload(HUNDRED, OPTIONS)
    assert failed.value.sqlstate == "XX000"


@pytest.mark.parametrize("options", ["CSV", "PARQUET"])
@pytest.mark.parametrize(("method", "key"), [("PUT", "*0001_part_00*"), ("POST", "*0002_part_00*")])
def test_an_s3_refusal_in_the_middle_of_an_upload(bench: Any, options: str, method: str, key: str) -> None:
    fault = bench.s3_faults.arm("s3.error", match={"method": method, "key": key}, times=None, status=500)
    big = "select i, md5(i::text) || md5((-i)::text) || md5((i + 0.5)::text) as h from generate_series(1, 450000) i"
    with pytest.raises(WarehouseError, match=r"S3ServiceException.*InternalError") as failed:
        bench.unload(big, f"{options} MANIFEST VERBOSE")
    assert bench.s3_faults.struck(fault) >= 1
    assert failed.value.sqlstate == "XX000"
    assert len(bench.names()) == 3
    assert not any(key.strip("*") in name for name in bench.names())
    bench.s3_faults.clear()
    assert not bench.s3.list_multipart_uploads(Bucket="unload-tests").get("Uploads")


def test_an_s3_refusal_of_a_small_file(bench: Any) -> None:
    fault = bench.s3_faults.arm("s3.error", match={"method": "PUT", "key": "*0002_part_00"}, times=None, status=403)
    with pytest.raises(WarehouseError, match=r"Status 403,Error AccessDenied"):
        bench.unload(HUNDRED, OPTIONS)
    assert bench.s3_faults.struck(fault) >= 1
    assert bench.names() == ["0000_part_00", "0001_part_00", "0003_part_00"]


def test_no_manifest(bench: Any) -> None:
    bench.faults.arm("unload.no_manifest")
    outcome = bench.unload(HUNDRED, OPTIONS)
    assert (outcome.rows, outcome.files) == (100, 4)
    assert "manifest" not in bench.names()
    assert struck(bench) == {"unload.no_manifest": 1}


@pytest.mark.parametrize("what", ["missing_entry", "extra_entry", "wrong_count", "wrong_length"])
def test_each_lie_is_a_different_disagreement(bench: Any, what: str) -> None:
    bench.faults.arm("unload.lying_manifest", args={"what": what})
    bench.unload(HUNDRED, OPTIONS)
    manifest = bench.manifest()
    listed = {f"{bench.prefix}{key}": len(bench.read(key)) for key in bench.data_names()}
    told = {entry["url"]: entry["meta"] for entry in manifest["entries"]}
    assert {
        "missing_entry": set(told) < set(listed),
        "extra_entry": set(told) > set(listed),
        "wrong_count": sum(meta["record_count"] for meta in told.values()) != manifest["meta"]["record_count"],
        "wrong_length": any(meta["content_length"] != listed.get(url, -1) for url, meta in told.items()),
    } == {
        each: each == what
        or (what == "extra_entry" and each != "missing_entry")
        or (what == "missing_entry" and each == "wrong_count")
        for each in ("missing_entry", "extra_entry", "wrong_count", "wrong_length")
    }
    assert struck(bench) == {"unload.lying_manifest": 1}


def test_a_wrong_count_disagrees_with_the_manifest(bench: Any) -> None:
    bench.faults.arm("unload.wrong_count", args={"by": 7})
    assert bench.unload(HUNDRED, OPTIONS).rows == 107
    assert bench.manifest()["meta"]["record_count"] == 100


def test_slow_takes_its_time_per_file(bench: Any) -> None:
    bench.faults.arm("unload.slow", args={"seconds": 0.1})
    start = time.monotonic()
    bench.unload(HUNDRED, OPTIONS)
    assert time.monotonic() - start >= 0.4


def test_a_cancel_ends_a_slow_unload_at_once(bench: Any) -> None:
    bench.faults.arm("unload.slow", args={"seconds": 60})
    start = time.monotonic()
    with pytest.raises(WarehouseError, match="cancelled") as ended:
        bench.unload(HUNDRED, OPTIONS, cancel=lambda: time.monotonic() - start > 0.3)
    assert ended.value.sqlstate == "57014"
    assert time.monotonic() - start < 5
    assert bench.names() == ["0000_part_00"]


def test_a_cancel_ends_a_running_unload_and_leaves_no_upload_behind(bench: Any) -> None:
    with pytest.raises(WarehouseError) as ended:
        bench.unload(
            "select i, md5(i::text) from generate_series(1, 1000000) i", OPTIONS, cancel=lambda: len(bench.seen) > 8
        )
    assert ended.value.sqlstate == "57014"
    assert bench.names() == []
    assert not bench.s3.list_multipart_uploads(Bucket="unload-tests").get("Uploads")
    assert bench.rows("select 1") == [(1,)]


def test_every_kind_is_namespaced() -> None:
    assert all(kind.startswith("unload.") for kind in FAULT_KINDS)
