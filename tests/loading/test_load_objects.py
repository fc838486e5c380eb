"""Exactly once per object version: redelivery, overwrites, reordering, lists, poison, zero rows, large objects."""

from dataclasses import replace
from datetime import date

import pyarrow as pa
import pytest

from data_platform.catalog.models import Overwrite
from data_platform.loading import inserting
from data_platform.loading.errors import Code, LoadError
from data_platform.loading.loader import Failure, LoadResult, Outcome, load_object, load_objects
from data_platform.loading.plans import Plan
from data_platform.loading.rebuild import rebuild_partition, verify_partition
from data_platform.loading.records import PartitionRecord
from data_platform.loading.register import State
from data_platform.loading.schema import platform_ddl
from data_platform.local.cloud import Cloud
from tests.loading.conftest import Bench, parquet, rows, without_sequencer

pytestmark = pytest.mark.integration


def test_an_object_is_loaded_once_however_often_its_event_comes(bench: Bench) -> None:
    event = bench.put("a.parquet", rows(0, 500))
    outcomes = [load_object(bench.warehouse, bench.dataset, event).outcome for _ in range(3)]
    assert outcomes == [Outcome.LOADED, Outcome.ALREADY, Outcome.ALREADY]
    assert bench.found() == bench.expected()
    verify_partition(bench.warehouse, bench.dataset, bench.ds)


def test_small_objects_go_in_as_one_list_and_keep_their_identities(bench: Bench) -> None:
    events = [bench.put(f"part-{n}.parquet", rows(n * 10, 10)) for n in range(20)]
    told = load_objects(bench.warehouse, bench.dataset, [*events, *events[:3]])
    assert {each.plan for each in told if isinstance(each, LoadResult)} == {Plan.LIST}
    assert bench.found() == bench.expected()
    parts = bench.warehouse.client.command(
        "SELECT count() FROM system.parts WHERE database = 'market' AND table = {t:String} AND active",
        parameters={"t": bench.dataset.name},
    )
    assert int(str(parts)) == 1
    assert len(verify_partition(bench.warehouse, bench.dataset, bench.ds)) == 20


def test_a_list_is_loaded_where_clickhouse_may_not_list_the_bucket(bench: Bench, cloud: Cloud) -> None:
    events = [bench.put(f"part-{n}.parquet", rows(n * 10, 10)) for n in range(5)]
    match = {"method": "GET", "bucket": bench.settings.curated_bucket, "key": ""}
    fault = cloud.faults("aws").arm("s3.error", match=match, times=1, status=403)
    told = load_objects(bench.warehouse, bench.dataset, events)
    assert cloud.faults("aws").struck(fault) == 1
    assert {each.plan for each in told if isinstance(each, LoadResult)} == {Plan.LIST}
    assert bench.found() == bench.expected()


@pytest.mark.parametrize("listed", [True, False])
def test_an_object_that_vanished_since_its_footer_was_read_is_gone_and_its_company_loaded(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, listed: bool
) -> None:
    if not listed:
        monkeypatch.setattr(inserting, "LISTED_PARTITION", -1)
    events = [bench.put(f"part-{n}.parquet", rows(n * 10, 10)) for n in range(5)]
    told = load_objects(
        bench.warehouse,
        bench.dataset,
        events,
        stage=lambda name: bench.delete(events[2]) if name == "insert" else None,
    )
    failures = [each for each in told if isinstance(each, Failure)]
    assert [(failure.version.key, failure.diagnosis.code) for failure in failures] == [
        (events[2].version.key, Code.GONE)
    ]
    assert bench.found() == bench.expected()


def test_poison_in_a_list_fails_alone(bench: Bench) -> None:
    events = [bench.put(f"part-{n}.parquet", rows(n * 10, 10)) for n in range(7)]
    torn = bench.put("torn.parquet", rows(900, 400))
    body = bench.warehouse.s3.get_object(Bucket=torn.version.bucket, Key=torn.version.key)["Body"].read()
    broken = bytearray(body)
    broken[60:400] = bytes(340)
    del bench.content["torn.parquet"]
    torn = bench.put("torn.parquet", body=bytes(broken))
    told = load_objects(bench.warehouse, bench.dataset, [*events[:3], torn, *events[3:]])
    failures = [each for each in told if isinstance(each, Failure)]
    assert [failure.diagnosis.code for failure in failures] == [Code.PARSE]
    assert failures[0].for_good
    assert bench.found() == bench.expected()
    record = bench.warehouse.register.objects(bench.partition)[torn.version.identity]
    assert (record.state, record.attempts, record.code) == (State.FAILED, 1, "E003")


def test_an_overwritten_object_follows_the_policy(each_policy: Bench) -> None:
    bench = each_policy
    neighbour = bench.put("other.parquet", rows(5000, 5))
    first = bench.put("a.parquet", rows(0, 10))
    load_objects(bench.warehouse, bench.dataset, [neighbour, first])
    first_table = bench.content["a.parquet"]
    second = bench.put("a.parquet", rows(100, 20))
    told = load_objects(bench.warehouse, bench.dataset, [second])[0]
    match bench.dataset.overwrite:
        case Overwrite.REPLACE:
            assert isinstance(told, LoadResult)
            assert told.outcome is Outcome.REPLACED
        case Overwrite.APPEND:
            assert isinstance(told, LoadResult)
            assert told.outcome is Outcome.LOADED
            bench.content["a.parquet/1"] = first_table
        case Overwrite.REJECT:
            assert isinstance(told, Failure)
            assert told.diagnosis.code is Code.PERMISSION
            bench.content["a.parquet"] = first_table
    assert bench.found() == bench.expected()
    for late in (first, second, first):
        load_objects(bench.warehouse, bench.dataset, [late])
    assert bench.found() == bench.expected()
    rebuild_partition(bench.warehouse, bench.dataset, bench.ds)
    assert bench.found() == bench.expected()
    load_objects(bench.warehouse, bench.dataset, [first, second, neighbour])
    assert bench.found() == bench.expected()
    verify_partition(bench.warehouse, bench.dataset, bench.ds)


@pytest.mark.parametrize("order", ["ABC", "CBA", "BCA", "CAB", "ACBACB"])
def test_a_key_put_back_to_its_first_content_ends_with_it_in_any_order_of_events(bench: Bench, order: str) -> None:
    a, b = rows(0, 10), rows(100, 20)
    events = {"A": bench.put("a.parquet", a), "B": bench.put("a.parquet", b), "C": bench.put("a.parquet", a)}
    assert events["A"].version.etag == events["C"].version.etag
    for name in order:
        load_objects(bench.warehouse, bench.dataset, [events[name]])
    assert bench.found() == bench.expected()


@pytest.mark.parametrize("order", ["ABC", "CBA", "ACB", "BCAB"])
def test_without_version_ids_the_sequencer_tells_the_versions_apart(bench: Bench, order: str) -> None:
    events = {}
    for name, table in (("A", rows(0, 10)), ("B", rows(100, 20)), ("C", rows(0, 10))):
        event = bench.put("a.parquet", table)
        events[name] = replace(event, version=replace(event.version, version_id="null"))
        if name in order[:1]:
            load_objects(bench.warehouse, bench.dataset, [events[name]])
    for name in order:
        load_objects(bench.warehouse, bench.dataset, [events[name]])
    assert bench.found() == bench.expected()


def test_an_event_without_etag_and_sequencer_is_completed_from_s3(bench: Bench) -> None:
    event = bench.put("a.parquet", rows(0, 10))
    bare = replace(event, version=replace(event.version, etag="", version_id=None, sequencer="", bytes=0))
    assert load_object(bench.warehouse, bench.dataset, bare).outcome is Outcome.LOADED
    assert load_object(bench.warehouse, bench.dataset, event).outcome is Outcome.ALREADY
    assert bench.found() == bench.expected()


def test_a_rebuild_then_its_queued_events_change_nothing(bench: Bench) -> None:
    events = [bench.put(f"part-{n}.parquet", rows(n * 10, 10)) for n in range(5)]
    load_objects(bench.warehouse, bench.dataset, events[:2])
    rebuild_partition(bench.warehouse, bench.dataset, bench.ds)
    told = load_objects(bench.warehouse, bench.dataset, [without_sequencer(event) for event in events])
    assert {each.outcome for each in told if isinstance(each, LoadResult)} == {Outcome.ALREADY}
    assert bench.found() == bench.expected()


def test_a_token_that_outlived_its_rows_does_not_lose_them(bench: Bench) -> None:
    event = bench.put("a.parquet", rows(0, 10))
    load_object(bench.warehouse, bench.dataset, event)
    client = bench.warehouse.client
    client.command(f"ALTER TABLE {bench.table} DROP PARTITION '{bench.ds}'")
    client.command("TRUNCATE TABLE platform.objects")
    assert bench.found()[0] == 0
    assert load_object(bench.warehouse, bench.dataset, event).outcome is Outcome.LOADED
    assert bench.found() == bench.expected()


def test_a_lost_register_does_not_double_rows(bench: Bench) -> None:
    events = [bench.put(f"part-{n}.parquet", rows(n * 10, 10)) for n in range(4)]
    load_objects(bench.warehouse, bench.dataset, events)
    bench.warehouse.client.command("TRUNCATE TABLE platform.objects")
    load_objects(bench.warehouse, bench.dataset, events[:1])
    load_objects(bench.warehouse, bench.dataset, events)
    assert bench.found() == bench.expected()


def test_partitions_whose_epochs_were_lost_are_not_taken_for_new(bench: Bench) -> None:
    client = bench.warehouse.client
    for table in ("objects", "partitions"):
        client.command(f"TRUNCATE TABLE platform.{table}")
    load_object(bench.warehouse, bench.dataset, bench.put("a.parquet", rows(0, 10)))
    (ddl,) = [statement for statement in platform_ddl() if "EXISTS platform.locks" in statement]
    bench.warehouse.locks.free_now()  # what is written of the first load goes aside with the table
    client.command("RENAME TABLE platform.locks TO platform.locks_aside")
    try:
        client.command(ddl)
        overwrite = bench.put("a.parquet", rows(100, 10))
        assert load_object(bench.again(), bench.dataset, overwrite).outcome is Outcome.REPLACED
    finally:
        client.command("DROP TABLE IF EXISTS platform.locks SYNC")
        client.command("RENAME TABLE platform.locks_aside TO platform.locks")
    assert bench.found() == bench.expected()


def test_a_partition_rebuilt_while_it_was_empty_keeps_its_generation_when_the_epochs_are_lost(bench: Bench) -> None:
    bench.ds = date(2031, 5, 17)  # whose lease nobody ever held
    bench.warehouse.register.write_partition(bench.partition, PartitionRecord(3), objects=0)
    assert load_object(bench.again(), bench.dataset, bench.put("a.parquet", rows(0, 10))).outcome is Outcome.LOADED
    known = bench.warehouse.register.objects(bench.partition)
    assert {record.generation for record in known.values()} == {3}


def test_an_object_without_rows_is_loaded_and_remembered(bench: Bench) -> None:
    event = bench.put("empty.parquet", rows(0, 0))
    assert load_object(bench.warehouse, bench.dataset, event).outcome is Outcome.LOADED
    assert load_object(bench.warehouse, bench.dataset, event).outcome is Outcome.ALREADY
    assert bench.found()[0] == 0


def test_an_object_beyond_the_memory_of_a_block_goes_through_staging(bench: Bench) -> None:
    table = rows(0, 300_000)
    event = bench.put("large.parquet", table)
    told = load_objects(bench.warehouse, bench.dataset, [event], smaller=True)[0]
    assert isinstance(told, LoadResult)
    assert told.plan == Plan.STAGED
    assert bench.found() == bench.expected()
    assert load_object(bench.warehouse, bench.dataset, event).outcome is Outcome.ALREADY


def test_a_vanished_object_is_gone_and_a_changed_one_superseded(bench: Bench) -> None:
    bench.put("neighbour.parquet", rows(0, 3))
    gone = bench.put("gone.parquet", rows(0, 3))
    bench.delete(gone)
    with pytest.raises(LoadError) as caught:
        load_object(bench.warehouse, bench.dataset, gone)
    assert caught.value.code is Code.GONE
    old = bench.put("a.parquet", rows(0, 3))
    bench.put("a.parquet", rows(50, 3))
    assert load_object(bench.warehouse, bench.dataset, old).outcome is Outcome.SUPERSEDED


@pytest.mark.parametrize(
    ("name", "body", "code"),
    [
        ("missing column", pa.table({"id": [1, 2]}), Code.PARSE),
        ("extra column", rows(0, 2).append_column("more", pa.array([1, 2])), Code.PARSE),
        ("wrong type", pa.table({"id": ["a", "b"], "name": ["a", "b"]}), Code.PARSE),
        ("null in id", pa.table({"id": pa.array([1, None], pa.int64()), "name": ["a", "b"]}), Code.PARSE),
        ("too large", pa.table({"id": pa.array([2**63], pa.uint64()), "name": ["a"]}), Code.PARSE),
        ("not Parquet", b"id,name\n1,a\n", Code.FORMAT),
        ("empty", b"", Code.PARSE),
        ("truncated", b"PAR1" + b"x" * 2000, Code.PARSE),
    ],
    ids=lambda value: value if isinstance(value, str) and not isinstance(value, Code) else "",
)
def test_poison_is_refused_after_one_attempt_with_its_code(
    bench: Bench, name: str, body: pa.Table | bytes, code: Code
) -> None:
    event = bench.put("bad.parquet", body=body if isinstance(body, bytes) else parquet(body))
    told = load_objects(bench.warehouse, bench.dataset, [event])[0]
    assert isinstance(told, Failure), told
    assert told.diagnosis.code is code
    assert told.for_good
    assert told.attempts == 1
    assert bench.found()[0] == 0


def test_a_wider_type_is_loaded_exactly(bench: Bench) -> None:
    table = pa.table({"id": pa.array([1, 2, 3], pa.int32()), "name": pa.array(["x", None, "z"])})
    event = bench.put("narrow.parquet", body=parquet(table))
    load_object(bench.warehouse, bench.dataset, event)
    assert bench.found()[:2] == (3, 3)
