"""Every hostile file of the corpus: the table holds exactly its good rows, its ledger conserves every record."""

import csv
import io
from typing import Any

import pytest

from data_platform.statistics.count import RecordCounter
from tests.statistics.corpus import CASES, Case

pytestmark = pytest.mark.integration


def test_the_corpus_is_large_and_names_are_unique() -> None:
    assert len({case.name for case in CASES}) == len(CASES) >= 100


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_exactly_the_good_rows_are_applied(bench: Any, case: Case) -> None:
    bench.write("INSERT INTO users (user_id) VALUES ('00007')")
    bench.write("UPDATE users SET is_active = false WHERE user_id = 'U00100'")
    before = {"U00050": (7, 7)}
    bench.write("INSERT INTO user_statistics (user_id, login_count, post_count) VALUES ('U00050', 7, 7)")
    outcome = bench.apply(bench.drop(case.body), options=dict(case.options))
    assert bench.table() == {**before, **(case.good if case.refused is None else {})}
    assert outcome.conserved
    assert outcome.records == case.records
    assert outcome.rejected == len(case.rejects)
    assert outcome.applied == (0 if case.refused else len(case.good))
    audited = bench.rows("SELECT line, rule, error_class FROM audit_logs WHERE event = 'ROW_REJECTED' ORDER BY line")
    if case.refused is not None:
        assert outcome.status == "REFUSED"
        assert outcome.reason.startswith(case.refused)
        assert case.refused in {rule for _, rule, _ in audited}
    else:
        assert (outcome.status, outcome.inconsistencies) == ("DONE", 0)
        assert tuple((line, rule) for line, rule, _ in audited) == case.rejects
        for _, rule, kind in audited:
            assert kind == ("UserNotFoundError" if rule == "user_not_found" else "ValidationError")
    bench.assert_ledger_agrees()
    assert bench.staging() == []
    assert rejected_lines(bench, outcome) == [line for line, _, _ in audited]
    clean = case.refused is None and not case.rejects
    said = "\n".join(bench.told)
    assert ("EVENT_PROCESSED_SUCCESSFULLY" in said and "processing completed successfully" in said) == clean
    bad_words = ("ERROR", "WARN", "FATAL", "UserNotFoundError", "ValidationError", "ProcessingError")
    assert any(word in said for word in bad_words) != clean


def rejected_lines(bench: Any, outcome: Any) -> list[int]:
    """The lines in the reject file, CSV and Parquet agreeing."""
    if outcome.reject_url is None:
        return []
    import pyarrow.parquet as pq

    bucket, _, key = outcome.reject_url.removeprefix("s3://").partition("/")

    def read(suffix: str) -> bytes:
        return bench.s3.get_object(Bucket=bucket, Key=key + suffix)["Body"].read()

    rows = list(csv.DictReader(io.StringIO(read(".csv").decode(), newline="")))
    table = pq.read_table(io.BytesIO(read(".parquet"))).to_pylist()
    assert [int(row["line"]) for row in rows] == [row["line"] for row in table]
    assert all(not row["value"].startswith(("=", "+", "-", "@")) for row in rows)
    assert all(row["file"] == outcome.file.url and row["reason"] and row["rule"] for row in table)
    return [row["line"] for row in table]


def test_the_counts_of_the_corpus_are_those_of_the_csv_module() -> None:
    """The figures written by hand, against a third opinion, where the csv module can read the file at all."""
    compared = 0
    for case in CASES:
        if case.refused in {"unclosed_quote", "gzip"} or case.body[:2] == b"\x1f\x8b" or case.options.get("encoding"):
            continue
        if b"\0" in case.body or any(rule == "quoting" for _, rule in case.rejects):
            continue
        csv.field_size_limit(4 << 20)
        text = case.body.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace")
        rows = list(csv.reader(io.StringIO(text, newline="")))
        counter = RecordCounter()
        counter.feed(case.body.removeprefix(b"\xef\xbb\xbf"))
        assert max(len(rows) - 1, 0) == case.records == max(counter.total - 1, 0), case.name
        compared += 1
    assert compared > 80
