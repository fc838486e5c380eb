"""Applying a file: once, again, in part; what the ledger says about it; what is refused and what is put right."""

import gzip
import re
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from data_platform.statistics.outcome import Progress
from tests.statistics.bench import HEADER, Bench
from tests.statistics.faults import start

pytestmark = pytest.mark.integration


def rows(first: int, last: int, plus: int = 0) -> str:
    return "".join(f"U{n:05d},{n + plus},{n}\n" for n in range(first, last + 1))


def stamps(bench: Bench) -> dict[str, Any]:
    return dict(bench.rows("SELECT user_id, updated_at FROM user_statistics"))  # pyright: ignore[reportArgumentType] - pairs


def test_equal_rows_of_another_file_are_not_touched(bench: Bench) -> None:
    bench.apply(bench.drop(HEADER + rows(1, 40)))
    before = stamps(bench)
    outcome = bench.apply(bench.drop(HEADER + rows(1, 19) + rows(20, 30, plus=5) + rows(31, 50)))
    assert (outcome.inserted, outcome.updated, outcome.unchanged) == (10, 11, 29)
    after = stamps(bench)
    assert {user for user, at in before.items() if after[user] != at} == {f"U{n:05d}" for n in range(20, 31)}


def test_the_same_event_twice_changes_nothing_even_after_a_newer_file(bench: Bench) -> None:
    first = bench.drop(HEADER + rows(1, 10))
    bench.apply(first)
    bench.apply(bench.drop(HEADER + rows(1, 10, plus=7)))
    before = stamps(bench)
    assert bench.apply(first).status == "ALREADY_DONE"  # SQS delivers a message more than once
    assert stamps(bench) == before


def test_the_same_key_put_again_is_another_file(bench: Bench) -> None:
    first = bench.drop(HEADER + rows(1, 5), name="same.csv")
    bench.apply(first)
    second = bench.drop(HEADER + rows(1, 5, plus=1), name="same.csv")
    assert first.file_id != second.file_id
    assert bench.apply(second).updated == 5
    assert [generation for (generation,) in bench.rows("SELECT generation FROM processing_metadata")] == [1, 1]


def test_a_file_over_the_threshold_is_applied_not_at_all(bench: Bench) -> None:
    file = bench.drop(HEADER + rows(1, 8) + "U99998,1,1\nU99999,1,1\n")
    outcome = bench.apply(file, options={"max_rejected_percent": 19})
    assert (outcome.status, outcome.applied, outcome.rejected, outcome.withheld) == ("REFUSED", 0, 2, 8)
    assert "2 of 10 lines are bad (20.0 %), more than the 19 %" in (outcome.reason or "")
    assert bench.table() == {}
    assert bench.apply(file, options={"max_rejected_percent": 20}).status == "ALREADY_DONE"  # the event once more
    again = bench.apply(file, options={"max_rejected_percent": 20}, again=True)  # a person
    assert (again.status, again.applied) == ("DONE", 8)


def test_the_lines_of_a_record_count_not_the_record(bench: Bench) -> None:
    swallowed = '"' + "x\n" * 30 + '",1,1\n'
    outcome = bench.apply(bench.drop(HEADER + rows(1, 60) + swallowed), options={"max_rejected_percent": 10})
    assert outcome.status == "REFUSED"
    assert "31 of 91 lines are bad" in (outcome.reason or "")


def test_a_user_removed_while_the_file_is_applied_is_a_reject_of_its_chunk(bench: Bench) -> None:
    def remove(progress: Progress) -> None:
        if progress.step == "planned":
            bench.write("DELETE FROM users WHERE user_id = 'U00007'")

    outcome = bench.apply(bench.drop(HEADER + rows(1, 20)), options={"chunk_rows": 5}, on_progress=remove)
    assert (outcome.inserted, outcome.rejected, outcome.inconsistencies) == (19, 1, 0)
    assert outcome.conserved
    assert bench.rows("SELECT line, rule, error_class FROM audit_logs WHERE event = 'ROW_REJECTED'") == [
        (8, "user_not_found", "UserNotFoundError")
    ]
    bench.assert_ledger_agrees()


def test_a_user_that_another_run_inserts_at_the_same_time_ends_with_one_row(bench: Bench) -> None:
    with ThreadPoolExecutor(1) as pool, bench.engine.connect() as other:
        insert = "INSERT INTO user_statistics (user_id, login_count, post_count) VALUES ('U00007', 1, 1)"
        other.exec_driver_sql(insert)
        running = pool.submit(bench.apply, bench.drop(HEADER + rows(1, 20)), options={"chunk_rows": 5})
        deadline = time.monotonic() + 30
        while not bench.rows("SELECT 1 FROM pg_locks WHERE NOT granted AND locktype = 'transactionid'"):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        other.commit()
        outcome = running.result(30)
    assert (outcome.inserted, outcome.updated, outcome.inconsistencies) == (19, 1, 0)
    assert bench.table() == {f"U{n:05d}": (n, n) for n in range(1, 21)}
    bench.assert_ledger_agrees()


def test_memory_stays_below_300_mb_whatever_the_file(bench: Bench, tmp_path: Path) -> None:
    """A text that would not fit beside the libraries, most of it in long malformed records, so that it is quick."""
    good = "".join(f"U{n:06d},{n},1\n" for n in range(40_000))
    bench.write("INSERT INTO users (user_id) SELECT 'U' || lpad(i::text, 6, '0') FROM generate_series(0, 39999) i")
    long = ("x" * 250_000 + ",1,1\n") * 40
    members = 24
    assert len(long) * members > 220 << 20
    packed = gzip.compress((HEADER + good).encode()) + gzip.compress(long.encode()) * members
    options = {"max_rejected_percent": 100}
    child = start(bench, bench.drop(packed, name="large.csv.gz"), tmp_path / "mark", options=options)
    out, err = child.communicate(timeout=180)
    assert out == "DONE\n", (out, err)
    assert bench.rows("SELECT records, inserted FROM processing_metadata") == [(40_000 + 40 * members, 40_000)]
    peak = re.search(r"peak memory (\d+) MB", err)
    assert peak is not None
    assert int(peak[1]) < 300


def test_the_comparison_notices_what_somebody_else_changed(bench: Bench) -> None:
    def meddle(progress: Progress) -> None:
        if progress.step == "comparing":
            bench.write("UPDATE user_statistics SET post_count = 99 WHERE user_id = 'U00003'")
            bench.write("DELETE FROM user_statistics WHERE user_id = 'U00004'")
            other = Bench(bench.settings, bench.engine, bench.s3)
            other.apply(other.drop(HEADER + "U00005,7,7\n", name="newer.csv"))

    outcome = bench.apply(bench.drop(HEADER + rows(1, 20)), on_progress=meddle)
    assert outcome.inconsistencies == 3
    by_hand, deleted, newer = outcome.differing
    assert (by_hand.user_id, by_hand.in_file, by_hand.in_table) == ("U00003", (3, 3), (3, 99))
    assert by_hand.written_by is None
    assert (deleted.user_id, deleted.in_table) == ("U00004", None)
    assert (newer.user_id, newer.in_table) == ("U00005", (7, 7))
    assert (newer.written_by or "").endswith("incoming/newer.csv")
    assert "U00003 has login_count 3, post_count 3 in the file and 3, 99 in the table (changed by hand)" in (
        outcome.breach
    )
    assert "TABLE_DIFFERS" in bench.told[-1]
    assert "ERROR" in bench.told[-1]


def test_audit_rows_stop_at_the_limit_and_say_so(bench: Bench) -> None:
    bad = "".join(f"U{n:05d},x,1\n" for n in range(1, 31))
    outcome = bench.apply(bench.drop(HEADER + bad), options={"max_audit_errors": 10})
    assert outcome.rejected == 30
    assert bench.rows("SELECT count(*) FROM audit_logs WHERE event = 'ROW_REJECTED'") == [(10,)]
    assert bench.rows("SELECT message FROM audit_logs WHERE event = 'ROWS_REJECTED'") == [
        ("20 more stand in the reject file only",)
    ]


def test_a_finished_run_whose_staging_was_lost_is_abandoned_and_done_anew(bench: Bench) -> None:
    file = bench.drop(HEADER + rows(1, 20))

    class Stop(Exception):  # noqa: N818 - stands for whatever ends a process
        pass

    def stop(progress: Progress) -> None:
        if progress.step == "planned":
            raise Stop

    with pytest.raises(Stop):
        bench.apply(file, on_progress=stop)
    for name in bench.staging():
        bench.write(f"DROP TABLE {name}")
    assert bench.apply(file).status == "DONE"
    assert bench.rows("SELECT status FROM processing_metadata ORDER BY generation") == [("ABANDONED",), ("DONE",)]
    assert len(bench.table()) == 20


def test_staging_that_nobody_took_up_is_removed_after_a_week(bench: Bench) -> None:
    def stop(progress: Progress) -> None:
        if progress.step == "planned":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bench.apply(bench.drop(HEADER + rows(1, 5)), on_progress=stop)
    assert len(bench.staging()) == 2
    bench.apply(bench.drop(HEADER + rows(1, 5)))
    assert len(bench.staging()) == 2  # it is young
    bench.write("UPDATE processing_metadata SET started_at = started_at - interval '8 days'")
    bench.apply(bench.drop(HEADER + rows(6, 9)))
    assert bench.staging() == []


def test_a_dry_run_writes_nothing_anywhere(bench: Bench) -> None:
    outcome = bench.apply(bench.drop(HEADER + rows(1, 5) + "U1,x,1\n"), dry_run=True)
    assert (outcome.status, outcome.records, outcome.rejected, outcome.withheld) == ("DRY_RUN", 6, 1, 5)
    for table in ("user_statistics", "processing_metadata", "batch_jobs", "audit_logs", "job_locks"):
        assert bench.rows(f"SELECT count(*) FROM {table}") == [(0,)], table
    assert bench.staging() == []
