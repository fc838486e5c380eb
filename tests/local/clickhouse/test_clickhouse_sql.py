"""What the front reads out of a statement, by ClickHouse's lexical rules: strings and comments never fool it."""

import chdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_platform.local.clickhouse import sql
from data_platform.local.clickhouse.sql import Verb

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("text", "verb"),
    [
        ("select 1", Verb.SELECT),
        ("-- insert into t\n /* set x */ # use\n (SELECT 1)", Verb.SELECT),
        ("/* a /* nested */ insert */ FROM t SELECT a", Verb.SELECT),
        ("WITH 1 AS x SELECT x", Verb.SELECT),
        ("WITH x AS (SELECT 'INSERT') INSERT INTO t SELECT * FROM x", Verb.INSERT),
        ("SHOW TABLES", Verb.ROWS),
        ("kill query where 1", Verb.KILL),
        ("ALTER TABLE t DROP PARTITION 1", Verb.OTHER),
        ("", Verb.OTHER),
    ],
)
def test_the_verb_of_a_statement(text: str, verb: Verb) -> None:
    assert sql.verb(text.encode()) is verb


@pytest.mark.parametrize(
    ("text", "head", "data_format", "data"),
    [
        ("INSERT INTO t FORMAT CSV\n1,2\n", "INSERT INTO t ", "CSV", "1,2\n"),
        ("INSERT INTO t (a, b) SETTINGS x = 1 FORMAT Native\r\n\n", "INSERT INTO t (a, b) SETTINGS x = 1 ", "Native",
         "\n"),
        ("insert into t values (1, 'FORMAT CSV')", "insert into t ", "Values", " (1, 'FORMAT CSV')"),
        ("INSERT INTO format FORMAT TSV \n1", "INSERT INTO format ", "TSV", "1"),
        ("INSERT INTO `values`.`format` (format) VALUES (1)", "INSERT INTO `values`.`format` (format) ", "Values",
         " (1)"),
        ("INSERT INTO db . t -- FORMAT CSV\nFORMAT JSONEachRow {}", "INSERT INTO db . t -- FORMAT CSV\n",
         "JSONEachRow", "{}"),
        ("INSERT INTO TABLE FUNCTION file('FORMAT CSV', 'TSV') VALUES (1)",
         "INSERT INTO TABLE FUNCTION file('FORMAT CSV', 'TSV') ", "Values", " (1)"),
    ],
)  # fmt: skip
def test_where_the_rows_of_an_insert_begin(text: str, head: str, data_format: str, data: str) -> None:
    insert = sql.inline_insert(text.encode())
    assert insert is not None
    assert (text[: insert.head_end], insert.format, text[insert.data_start :]) == (head, data_format, data)
    assert not insert.from_input


@pytest.mark.parametrize(
    "text",
    [
        "INSERT INTO t SELECT 'FORMAT CSV', values FROM x",
        "INSERT INTO t SELECT a FROM x FORMAT Null",
        "INSERT INTO t FROM INFILE 'f' FORMAT CSV",
        "INSERT INTO t WITH 1 AS x SELECT x",
        "INSERT INTO t /* FORMAT CSV */",
    ],
)
def test_an_insert_without_rows_of_its_own(text: str) -> None:
    assert sql.inline_insert(text.encode()) is None


def test_rows_for_input_follow_the_format() -> None:
    text = b"INSERT INTO t SELECT a + 1 FROM input('a Int64') FORMAT CSV\n1\n"
    insert = sql.inline_insert(text)
    assert insert is not None
    assert insert.from_input
    assert text[insert.data_start :] == b"1\n"
    assert sql.input_call(text) == (text.index(b"input("), text.index(b"'a Int64'"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("SELECT 1 FORMAT JSON", "JSON"),
        ("SELECT 1 FORMAT CSV SETTINGS max_threads = 1;", "CSV"),
        ("SELECT 'FORMAT CSV'", None),
        ("SELECT formatDateTime(now(), '%F') AS format", None),
        ("SELECT * FROM (SELECT 1) -- FORMAT CSV", None),
        ("SELECT $x$ FORMAT CSV $x$ FORMAT TSV", "TSV"),
    ],
)
def test_the_format_a_query_asks_for(text: str, expected: str | None) -> None:
    assert sql.output_format(text.encode()) == expected


@pytest.mark.parametrize(
    ("text", "count"), [("SELECT 1;", 1), ("SELECT ';'; -- ;\n", 1), ("SELECT 1; SELECT 2", 2), (" ;", 0)]
)
def test_statements_are_counted(text: str, count: int) -> None:
    assert sql.statements(text.encode()) == count


def test_query_ids_mean_the_callers_ids() -> None:
    kill = sql.with_query_ids(b"KILL QUERY WHERE query_id = 'query_id' -- query_id\n SYNC")
    assert kill == b"KILL QUERY WHERE Settings['query_cache_tag'] = 'query_id' -- query_id\n SYNC"
    shown = sql.with_query_ids(b"SELECT query_id FROM system . `processes` AS p WHERE q = 'system.processes'")
    assert shown.startswith(b"SELECT query_id FROM (SELECT * REPLACE")
    assert shown.endswith(b"FROM system.processes) AS p WHERE q = 'system.processes'")
    untouched = b"SELECT query_id FROM system.query_log WHERE query = 'KILL'"
    assert sql.with_query_ids(untouched) == untouched


@given(st.text(st.characters(blacklist_categories=["Cs"]), max_size=40))
def test_no_string_is_ever_taken_for_sql(text: str) -> None:
    literal = "'" + text.replace("\\", "\\\\").replace("'", "''") + "'"
    found = list(sql.tokens(f"SELECT {literal} FORMAT CSV".encode()))
    assert [token.word for token in found] == [b"SELECT", b"", b"FORMAT", b"CSV"]


@pytest.mark.parametrize(
    "text",
    [
        "SELECT /* /* */ ; */ 1",
        "SELECT 1 // ;\n + 1",
        "SELECT 1 # ;\n + 1",
        "SELECT 'it''s ; \\' ;', `a;b`, \"c;d\" FROM (SELECT 1 AS `a;b`, 2 AS \"c;d\")",
        "SELECT $tag$ ; $ $tag$",
    ],
)
def test_the_engine_reads_the_same_statement_boundaries(text: str) -> None:
    connection = chdb.connect(":memory:")
    connection.query(text, "Null")  # refuses what it cannot read
    connection.close()
    assert sql.statements(text.encode()) == 1
