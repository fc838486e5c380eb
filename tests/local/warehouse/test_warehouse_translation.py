"""Redshift's SQL: every row is executed, what comes back is compared with what Redshift answers."""

from collections.abc import Iterator
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import psycopg
import pytest

from data_platform.local.warehouse.translate import translate

at = datetime.fromisoformat

EXPRESSIONS: list[tuple[str, Any]] = [
    ("getdate() BETWEEN now() - interval '1 minute' AND now() + interval '1 minute'", True),
    ("sysdate = sysdate", True),
    ("pg_typeof(getdate())::text", "timestamp without time zone"),
    ("nvl(NULL, NULL, 3)", 3),
    ("nvl(nvl(NULL, NULL::int), nvl2(1, 5, 6))", 5),
    ("nvl2(NULL, 'a', 'b')", "b"),
    ("dateadd(day, 1, '2008-02-28')", at("2008-02-29T00:00")),
    ("dateadd(month, 1, date '2010-04-30')", at("2010-05-31T00:00")),  # the last day stays the last day
    ("dateadd(month, 1, date '2010-01-31')", at("2010-02-28T00:00")),
    ("dateadd('hour', -3, timestamp '2013-01-01 01:30:00')", at("2012-12-31T22:30")),
    ("dateadd(qtr, 1, date '2013-01-15')", at("2013-04-15T00:00")),
    ("dateadd(w, 2, date '2013-01-01')", at("2013-01-15T00:00")),
    ("dateadd(ms, 1500, timestamp '2013-01-01')", at("2013-01-01T00:00:01.500")),
    ("datediff(day, '2013-01-01 23:59:59', '2013-01-02 00:00:00')", 1),  # boundaries, not 24 hours
    ("datediff(year, date '2012-12-31', date '2013-01-01')", 1),
    ("datediff(qtr, '1998-07-01', sysdate) > 90", True),
    ("datediff(month, date '2013-01-31', date '2013-02-01')", 1),
    ("datediff(week, date '2013-01-05', date '2013-01-06')", 1),  # Saturday to Sunday
    ("datediff(week, date '2013-01-06', date '2013-01-12')", 0),
    ("datediff(hour, timestamp '2013-01-01 00:59', timestamp '2013-01-01 01:00')", 1),
    ("datediff(minutes, timestamp '2013-01-01 00:10', timestamp '2013-01-01 00:00:59')", -10),
    ("datediff(s, timestamptz '2013-01-01 00:00:00+00', timestamptz '2013-01-01 01:00:00+00')", 3600),
    ("date_trunc('month', date '2013-02-15')", at("2013-02-01T00:00")),
    ("date_part(dow, date '2013-01-06')", 0.0),
    ("date_part('year', timestamp '2013-05-01')", 2013.0),
    ("trunc(timestamp '2013-05-01 12:00')", date(2013, 5, 1)),
    ("last_day(date '2012-02-10')", date(2012, 2, 29)),
    ("add_months(date '2013-01-31', 1)", at("2013-02-28T00:00")),
    ("convert_timezone('Asia/Tokyo', timestamp '2013-01-01 00:00')", at("2013-01-01T09:00")),
    ("convert_timezone('America/New_York', 'UTC', timestamp '2013-07-01 00:00')", at("2013-07-01T04:00")),
    ("len('日本語')", 3),
    ("charindex('c', 'abcabc')", 3),
    ("strtol('ff', 16)", 255),
    ("strtol('-0x1F', 16)", -31),
    ("strtol('101', 2)", 5),
    ("decode(2, 1, 'one', 2, 'two', 'many')", "two"),
    ("decode(NULL::int, NULL, 'null', 'not')", "null"),  # nulls are equal here
    ("decode(9, 1, 'one')", None),
    ("decode(1, 1, decode('a', 'b', 1, 2), 0)", 2),
    ("convert(decimal(5, 2), '1.5')", Decimal("1.50")),
    ("regexp_replace('a-b-c', '-', '+')", "a+b+c"),  # every match
    ("regexp_replace('a-b-c', '-')", "abc"),
    ("json_extract_path_text('{\"a\": {\"b\": 7}}', 'a', 'b')", "7"),
    ("json_extract_array_element_text('[10, 20]', 1)", "20"),
    ("json_array_length('[1, 2, 3]')", 3),
    ("is_valid_json('{')", False),
    ("sha2('abc', 256)", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
    ("json_parse('{\"k\": [1]}')::super", {"k": [1]}),
    ("'nvl(1, 2) sysdate'", "nvl(1, 2) sysdate"),  # inside a literal
    (r"'it\'s' || nvl(NULL, '\\')", "it's\\"),
    ("nvl /* a comment */ (NULL, 4)", 4),
    ("CAST('x' AS varchar(max))", "x"),
    ("'a' || $$nvl(1)$$", "anvl(1)"),
]

QUERIES: list[tuple[str, list[tuple[Any, ...]]]] = [
    ("SELECT listagg(v, '; ') WITHIN GROUP (ORDER BY v DESC) FROM numbers", [("3; 2; 1",)]),
    ("SELECT listagg(DISTINCT v % 2) WITHIN GROUP (ORDER BY v % 2) FROM numbers", [("01",)]),
    ("SELECT listagg(v, ',') FROM numbers WHERE v > 2", [("3",)]),
    ("SELECT median(v) FROM numbers", [(2.0,)]),
    ("SELECT median(v) FROM (SELECT 1 AS v UNION ALL SELECT 4) AS t", [(2.5,)]),
    ("SELECT APPROXIMATE COUNT(DISTINCT v % 2) FROM numbers", [(2,)]),
    ("SELECT TOP 2 v FROM numbers ORDER BY v", [(1,), (2,)]),
    ("SELECT count(*) FROM (SELECT TOP 1 v FROM numbers ORDER BY v) AS t", [(1,)]),
    ("SELECT v FROM numbers MINUS SELECT 2 ORDER BY v", [(1,), (3,)]),
    ("SELECT v FROM numbers QUALIFY row_number() OVER (ORDER BY v DESC) = 1", [(3,)]),
    ("SELECT v, nvl(lag(v) OVER (ORDER BY v), 0) AS p FROM numbers ORDER BY 1 -- TOP 1", [(1, 0), (2, 1), (3, 2)]),
    ("SELECT table_name FROM svv_tables WHERE table_schema = 'public' AND table_name = 'numbers'", [("numbers",)]),
    ("SELECT column_name, data_type FROM svv_columns WHERE table_name = 'numbers'", [("v", "integer")]),
    ('SELECT "column", type, "notnull" FROM pg_table_def WHERE tablename = \'numbers\'', [("v", "integer", False)]),
    ("SELECT super FROM (SELECT 1 AS super) AS t", [(1,)]),
    ("SELECT sysdate.v FROM numbers AS sysdate WHERE sysdate.v = 1", [(1,)]),
]

TABLES = [
    "CREATE TABLE made (a int DISTKEY ENCODE az64, b varchar(max) ENCODE lzo, c super, d timestamp SORTKEY)",
    "CREATE TABLE made (a int NOT NULL DEFAULT 3, d timestamp) DISTSTYLE KEY DISTKEY(a) COMPOUND SORTKEY (a, d)",
    "CREATE TABLE IF NOT EXISTS made (id bigint IDENTITY(1, 1), a nvarchar(10)) BACKUP NO DISTSTYLE ALL SORTKEY AUTO",
    "CREATE TABLE made (id int GENERATED BY DEFAULT AS IDENTITY(10, 5), a varbyte(100), b character varying(max))",
    "CREATE TABLE made DISTKEY(v) INTERLEAVED SORTKEY(v) AS SELECT TOP 1 v, nvl(NULL, 'x') AS x FROM numbers",
    "CREATE TEMP TABLE made (LIKE numbers)",
    "CREATE TABLE made (a int); ALTER TABLE made ALTER DISTSTYLE EVEN; ALTER TABLE made ALTER SORTKEY (a)",
    "CREATE TABLE made (a int); ALTER TABLE public.made ALTER COLUMN a ENCODE zstd",
    "CREATE TABLE made (a int); CREATE VIEW shown AS SELECT a FROM public.made WITH NO SCHEMA BINDING; DROP VIEW shown",
]

SETTINGS = [
    ("SET query_group TO 'a ''quoted'' group'", "query_group", "a 'quoted' group"),
    ("SET LOCAL query_group = reports", "query_group", "reports"),
    ("SET statement_timeout TO 60000", "statement_timeout", "1min"),
    ("SET enable_result_cache_for_session TO off", "enable_result_cache_for_session", "off"),
]

pytestmark = pytest.mark.integration


@pytest.fixture
def numbers(psycopg_connection: psycopg.Connection[Any]) -> Iterator[psycopg.ClientCursor[Any]]:
    """A transaction with a table of 1, 2, 3; nothing of it is kept. Simple protocol: several statements at once."""
    psycopg_connection.autocommit = False
    cursor = psycopg.ClientCursor(psycopg_connection)
    cursor.execute("CREATE TABLE numbers (v int); INSERT INTO numbers VALUES (1), (2), (3)")
    yield cursor
    psycopg_connection.rollback()


@pytest.mark.parametrize(("expression", "expected"), EXPRESSIONS)
def test_expression_answers_as_redshift(
    psycopg_connection: psycopg.Connection[Any], expression: str, expected: object
) -> None:
    assert psycopg_connection.execute(f"SELECT {expression}").fetchone() == (expected,)


@pytest.mark.parametrize(("sql", "expected"), QUERIES)
def test_query_answers_as_redshift(
    numbers: psycopg.ClientCursor[Any], sql: str, expected: list[tuple[Any, ...]]
) -> None:
    columns = len(expected[0])
    assert [row[:columns] for row in numbers.execute(sql).fetchall()] == expected


@pytest.mark.parametrize("sql", TABLES)
def test_table_layout_is_accepted(numbers: psycopg.ClientCursor[Any], sql: str) -> None:
    numbers.execute(sql)
    assert numbers.execute("SELECT count(*) >= 0 FROM made").fetchone() == (True,)


@pytest.mark.parametrize(("sql", "name", "value"), SETTINGS)
def test_setting_is_kept(numbers: psycopg.ClientCursor[Any], sql: str, name: str, value: str) -> None:
    numbers.execute(sql)
    assert numbers.execute(f"SHOW {name}").fetchone() == (value,)


@pytest.mark.parametrize(
    "sql", ["VACUUM", "VACUUM FULL vacuumed TO 99 PERCENT", "VACUUM SORT ONLY vacuumed", "ANALYZE"]
)
def test_maintenance_runs(psycopg_connection: psycopg.Connection[Any], sql: str) -> None:
    psycopg_connection.execute("CREATE TABLE IF NOT EXISTS vacuumed (a int)")
    psycopg_connection.execute(sql)


def test_identity_counts_from_its_seed(numbers: psycopg.ClientCursor[Any]) -> None:
    numbers.execute("CREATE TABLE made (id int IDENTITY(100, 10), v int); INSERT INTO made (v) SELECT v FROM numbers")
    assert numbers.execute("SELECT id FROM made ORDER BY id").fetchall() == [(100,), (110,), (120,)]


def test_granting_a_role_to_unload_with_is_accepted(psycopg_connection: psycopg.Connection[Any]) -> None:
    grant = "GRANT ASSUMEROLE ON 'arn:aws:iam::000000000000:role/r' TO data_platform FOR UNLOAD"
    psycopg_connection.execute(grant)
    psycopg_connection.execute(grant.replace("GRANT", "REVOKE").replace(" TO ", " FROM "))


@pytest.mark.unit
@pytest.mark.parametrize(
    "sql",
    [
        "SELECT  a ,b\nFROM t  -- nothing here needs translating",
        "INSERT INTO t VALUES ('x\\\\y', $1)",
        "SELECT 'unfinished nvl(",  # PostgreSQL has to say what is wrong
        'SELECT "nvl"(1), "sysdate" FROM "TOP"',
        "SELECT $1::int FROM t WHERE top = 5 AND s.decode = 'a'",
        "",
        ";",
    ],
)
def test_what_needs_no_translation_passes_byte_for_byte(sql: str) -> None:
    assert translate(sql) == sql


@pytest.mark.unit
def test_only_the_words_concerned_are_touched() -> None:
    sql = "/* x */ SELECT  nvl(a,\n  b) , 'nvl(' ,\"c\"  FROM t -- nvl(\n;\nSELECT 1 ;"
    assert translate(sql) == sql.replace("nvl(a", "coalesce(a")
