"""Unloading one partition through the embedded warehouse: what wins, what is tried again, what is left behind."""

from collections.abc import Iterator
from typing import Any

import pytest
import redshift_connector

from data_platform.catalog.models import Dataset
from data_platform.clients import redshift
from data_platform.errors import Fault, PlatformError
from data_platform.ledger import dataset_unloads
from data_platform.local.cloud import Cloud
from data_platform.unload import datasets
from data_platform.unload.datasets import NotReadyError, proven_unload, unload_partition
from data_platform.unload.execution import AttemptLostError, UnloadTarget, run_attempt
from data_platform.unload.manifest import ProofError
from data_platform.unload.statement import UnloadOptions
from tests.flow import Flow, day, open_flow

pytestmark = pytest.mark.integration
ROWS = 500


@pytest.fixture(scope="module")
def flow(cloud: Cloud, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flow]:
    with open_flow(cloud, tmp_path_factory.mktemp("catalog"), "items") as flow:
        flow.fill("items", {day(n): ROWS for n in range(15)})
        yield flow


def unload(flow: Flow, number: int, told: list[str] | None = None, **changes: Any) -> datasets.PartitionUnload:
    dataset: Dataset = flow["items"]
    if changes:
        source = dataset.redshift.model_copy(update=changes)
        dataset = dataset.model_copy(update={"source": source})
    return unload_partition(
        flow.settings,
        flow.s3,
        flow.ledger,
        dataset,
        day(number),
        run_id="a-run",
        on_retry=lambda error, _: None if told is None else told.append(str(error)),
    )


def test_the_result_is_proven_and_in_the_ledger(flow: Flow) -> None:
    won = unload(flow, 0)
    assert (won.attempt, won.result.rows) == (1, ROWS)
    (entry,) = flow.attempts("items", day(0))
    assert (entry["status"], entry["rows"], entry["files"]) == ("DONE", ROWS, len(won.result.files))
    assert entry["run_id"] == "a-run"
    assert entry["query_id"] == str(won.result.query_id)
    assert sorted(flow.unloaded("items", day(0))) == sorted(
        [file.key for file in won.result.files] + [entry["manifest_url"].partition(".s3")[0].split("/", 3)[3]]
    )
    again = proven_unload(flow.settings, flow.s3, flow.ledger, flow["items"], day(0))
    assert again.result.files == won.result.files


def test_each_run_of_a_day_has_a_prefix_of_its_own(flow: Flow) -> None:
    first, second = unload(flow, 1), unload(flow, 1)
    assert (first.attempt, second.attempt) == (1, 2)
    assert first.result.target.prefix != second.result.target.prefix
    assert proven_unload(flow.settings, flow.s3, flow.ledger, flow["items"], day(1)).attempt == 2


def test_an_empty_day_is_a_result_without_files(flow: Flow) -> None:
    won = unload(flow, 100)
    assert (won.result.rows, won.result.files) == (0, ())
    assert flow.unloaded("items", day(100)) == []
    (entry,) = flow.attempts("items", day(100))
    assert (entry["status"], entry["rows"], entry["manifest_url"]) == ("DONE", 0, None)


@pytest.mark.parametrize(
    ("kind", "args", "number"),
    [
        ("unload.die_after_files", {"files": 1, "drop": True}, 2),
        ("unload.s3_error", {"slice": 1}, 3),
    ],
)
def test_what_may_pass_is_tried_again(flow: Flow, kind: str, args: dict[str, Any], number: int) -> None:
    faults = flow.cloud.faults("warehouse")
    fault = faults.arm(kind, match={"prefix": f"*{flow.domain}*"}, **args)
    told: list[str] = []
    won = unload(flow, number, told)
    assert faults.struck(fault) == 1
    assert len(told) == 1
    assert (won.attempt, won.result.rows) == (2, ROWS)
    failed, done = flow.attempts("items", day(number))
    assert (failed["status"], done["status"]) == ("FAILED", "DONE")
    assert failed["error_message"]
    assert all(key.startswith(won.result.target.prefix) for key in flow.unloaded("items", day(number)))


@pytest.mark.parametrize(
    ("kind", "args", "number", "reason"),
    [
        ("unload.die_after_files", {"files": 1}, 4, "slice process died"),
        ("unload.no_manifest", {}, 5, "no manifest"),
        ("unload.lying_manifest", {"what": "missing_entry"}, 6, "not in the manifest"),
        ("unload.lying_manifest", {"what": "extra_entry"}, 7, "missing from S3"),
        ("unload.lying_manifest", {"what": "wrong_count"}, 8, "the manifest's total is"),
        ("unload.lying_manifest", {"what": "wrong_length"}, 9, "the manifest says"),
        ("unload.refuse_role", {}, 10, "not authorized to assume IAM Role"),
        ("unload.timeout", {"files": 1}, 11, "timeout"),
        ("unload.wrong_count", {"by": 1}, 12, f"the warehouse counted {ROWS + 1}"),
    ],
)
def test_what_does_not_pass_fails_at_once_with_its_reason(
    flow: Flow, kind: str, args: dict[str, Any], number: int, reason: str
) -> None:
    faults = flow.cloud.faults("warehouse")
    fault = faults.arm(kind, match={"prefix": f"*{flow.domain}*"}, times=None, **args)
    told: list[str] = []
    with pytest.raises((ProofError, redshift_connector.Error), match=reason):
        unload(flow, number, told)
    assert faults.struck(fault) == 1
    assert told == []
    (entry,) = flow.attempts("items", day(number))
    assert entry["status"] == "FAILED"
    assert reason in entry["error_message"]
    assert flow.unloaded("items", day(number)) == []
    with pytest.raises(PlatformError, match="never unloaded"):
        proven_unload(flow.settings, flow.s3, flow.ledger, flow["items"], day(number))


def test_a_fault_that_stays_costs_three_attempts(flow: Flow) -> None:
    faults = flow.cloud.faults("warehouse")
    fault = faults.arm("unload.s3_error", match={"prefix": f"*{flow.domain}*"}, times=None)
    with pytest.raises(redshift_connector.Error, match="internal error"):
        unload(flow, 13)
    assert faults.struck(fault) == 3
    assert [entry["status"] for entry in flow.attempts("items", day(13))] == ["FAILED"] * 3
    assert flow.unloaded("items", day(13)) == []


def test_a_lost_session_is_given_up_and_its_statement_ends(flow: Flow) -> None:
    """The warehouse goes on after the client has lost it, unless it is told to stop."""
    faults = flow.cloud.faults("warehouse")
    slow = faults.arm("unload.slow", match={"prefix": "*lost-session*"}, seconds=1)
    drop = faults.arm("unload.die_after_files", match={"prefix": "*lost-session*"}, files=1, drop=True)
    target = UnloadTarget(flow.settings.unload_bucket, f"lost-session-{flow.domain}", "1")
    sql = datasets.partition_select(flow["items"], day(0))
    with pytest.raises(AttemptLostError) as caught:
        run_attempt(flow.settings, flow.s3, sql=sql, target=target, options=UnloadOptions())
    assert faults.struck(slow) == faults.struck(drop) == 1
    assert caught.value.fault is Fault.TRANSIENT
    assert flow.objects(target.bucket, target.prefix) == []


def test_s3_that_hiccups_during_the_proof_costs_nothing_but_time(flow: Flow) -> None:
    faults = flow.cloud.faults("aws")
    fault = faults.arm("s3.error", match={"key": f"*{flow.domain}.items.{day(14)}/*manifest"}, times=2, status=500)
    won = unload(flow, 14)
    assert faults.struck(fault) == 2
    assert won.result.rows == ROWS


def test_a_day_that_is_not_ready_is_not_unloaded(flow: Flow) -> None:
    with pytest.raises(NotReadyError, match="waits for its source") as caught:
        unload(flow, 200, ready="SELECT :day < DATE '2024-01-01'")
    assert caught.value.fault is Fault.THROTTLED
    assert flow.attempts("items", day(200)) == []
    with pytest.raises(NotReadyError, match="gave no row, not true"):
        unload(flow, 200, ready="SELECT true WHERE :day < DATE '2024-01-01'")
    assert unload(flow, 200, ready="SELECT :day > DATE '2024-01-01'").result.rows == 0


def test_an_attempt_that_was_overtaken_is_no_result_and_leaves_nothing(
    flow: Flow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the first attempt unloads, a second one starts: the first may not declare its files the result."""
    overtaken: list[int] = []

    def overtake(*args: Any, **kwargs: Any) -> Any:
        result = run_attempt(*args, **kwargs)
        if not overtaken:
            overtaken.append(1)
            assert unload(flow, 201).attempt == 2
        return result

    monkeypatch.setattr(datasets, "run_attempt", overtake)
    with pytest.raises(dataset_unloads.SupersededError):
        unload(flow, 201)
    assert [entry["status"] for entry in flow.attempts("items", day(201))] == ["FAILED", "DONE"]


def test_what_a_killed_run_left_is_removed_by_the_next(flow: Flow) -> None:
    def prefix_of(attempt: int) -> str:
        return UnloadTarget(flow.settings.unload_bucket, f"{flow.domain}.items.{day(202)}", str(attempt)).prefix

    with flow.ledger.begin() as connection:
        dead = dataset_unloads.begin(connection, flow["items"].key, str(day(202)), prefix_of)
    flow.s3.put_object(Bucket=flow.settings.unload_bucket, Key=f"{dead.prefix}0000_part_00.parquet", Body=b"half")
    assert unload(flow, 202).attempt == 2
    assert flow.unloaded("items", day(202)) == []
    assert [entry["status"] for entry in flow.attempts("items", day(202))] == ["FAILED", "DONE"]


def test_a_result_whose_file_is_gone_is_not_read(flow: Flow) -> None:
    won = unload(flow, 1)
    flow.s3.delete_object(Bucket=won.result.target.bucket, Key=won.result.files[0].key)
    with pytest.raises(ProofError, match="missing from S3"):
        proven_unload(flow.settings, flow.s3, flow.ledger, flow["items"], day(1))


def test_a_finished_unload_leaves_one_notice(flow: Flow) -> None:
    import sqlalchemy as sa

    from data_platform.ledger.outbox import outbox

    won = unload(flow, 203)
    with flow.ledger.connect() as connection:
        keys = connection.execute(sa.select(outbox.c.key)).scalars().all()
    assert keys.count(datasets.request_id(flow["items"], day(203))) == won.attempt == 1


@pytest.mark.security
def test_no_key_or_password_is_in_a_failure(flow: Flow) -> None:
    faults = flow.cloud.faults("warehouse")
    fault = faults.arm("unload.refuse_role", match={"prefix": f"*{flow.domain}*"})
    with pytest.raises(redshift_connector.Error) as caught:
        unload(flow, 204)
    assert faults.struck(fault) == 1
    text = f"{caught.value} {redshift.describe(caught.value)}"
    assert "embedded" not in text
