"""Every format and compression read back and compared with the rows themselves, value by value."""

import bz2
import csv
import datetime as dt
import gzip
import io
import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import csv as arrow_csv

from data_platform.local.warehouse.unload.contract import WarehouseError

pytestmark = pytest.mark.integration

NASTY = [
    *("plain", "", " padded ", "a,b", "a|b", 'say "hi"', "it's", "back\\slash", "\\N", "\\.", "NULL"),
    *("line\nfeed", "carriage\rreturn", "cr\r\nlf", "tab\tbed", "日本語 🚀", "\x01\x1f\x7f", '"', '""', "\\", "\\\\"),
    *("'", "\n", "|", ",", None, 'all "of\\ it,\n|it\'s"'),
]


@pytest.fixture(scope="module", autouse=True)
def nasty_table(unload_connection: psycopg.Connection[Any]) -> str:
    """One row per nasty text, twice (v is declared, t is not), a number that is sometimes null, a boolean."""
    unload_connection.execute("DROP TABLE IF EXISTS nasty")
    unload_connection.execute(
        "CREATE TABLE nasty (id int, v varchar(40), n numeric(12, 3), t text, b bool, ts timestamp)"
    )
    for number, text in enumerate(NASTY):
        values = (number, text, Decimal(number) / 8 if number % 3 else None, text, number % 2 == 0 or None, None)
        unload_connection.execute("INSERT INTO nasty VALUES (%s, %s, %s, %s, %s, %s)", values)
    unload_connection.execute("UPDATE nasty SET ts = timestamp '2013-01-01 05:00:00.123' WHERE id % 4 = 0")
    return "nasty"


QUERY = "select * from nasty order by id"
TEXTS = """select id::text, v, n::text, t, case when b then 't' when not b then 'f' end, ts::text
from nasty order by nasty.id"""


def zstd(data: bytes) -> bytes:
    return pa.CompressedInputStream(pa.BufferReader(data), "zstd").read()


COMPRESSIONS: list[tuple[str, str, Callable[[bytes], bytes]]] = [
    ("", "", bytes),
    ("GZIP", ".gz", gzip.decompress),
    ("BZIP2", ".bz2", bz2.decompress),
    ("ZSTD", ".zst", zstd),
]
compressed = pytest.mark.parametrize(("option", "extension", "decompress"), COMPRESSIONS)
parallel = pytest.mark.parametrize("parallel", ["ON", "OFF"])


def content(bench: Any, extension: str, decompress: Callable[[bytes], bytes]) -> str:
    keys = bench.data_names()
    assert keys
    assert all(key.endswith(extension) for key in keys)
    return b"".join(decompress(bench.read(key)) for key in keys).decode()


def read_csv(text: str, delimiter: str = ",", null: str = "") -> list[tuple[str | None, ...]]:
    """Arrow's reader: an unquoted null string is null, a quoted one is text."""
    names = [str(number) for number in range(6)]
    table = arrow_csv.read_csv(
        pa.BufferReader(text.encode()),
        read_options=arrow_csv.ReadOptions(column_names=names),
        parse_options=arrow_csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
        convert_options=arrow_csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()),
            null_values=[null],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        ),
    )
    return [tuple(row.values()) for row in table.to_pylist()]


@compressed
@parallel
def test_csv_gives_the_rows_back(bench: Any, option: str, extension: str, decompress: Any, parallel: str) -> None:
    outcome = bench.unload(QUERY, f"CSV PARALLEL {parallel} {option}")
    text = content(bench, extension, decompress)
    assert read_csv(text) == bench.rows(TEXTS)
    assert outcome.rows == len(NASTY)
    # A reader that knows no nulls sees the same fields.
    assert list(csv.reader(io.StringIO(text, newline=""))) == [
        ["" if value is None else value for value in row] for row in bench.rows(TEXTS)
    ]


@pytest.mark.parametrize(("delimiter", "null"), [(";", ""), ("\t", "NULL"), ("|", "\\N"), ("-", "null"), ("1", "~")])
def test_csv_with_another_delimiter_and_null_string(bench: Any, delimiter: str, null: str) -> None:
    quoted = null.replace("\\", "\\\\")
    bench.unload(QUERY, f"CSV DELIMITER '{delimiter}' NULL AS '{quoted}' PARALLEL OFF")
    assert read_csv(bench.read("000").decode(), delimiter, null) == bench.rows(TEXTS)


def test_csv_quotes_only_what_needs_it(bench: Any) -> None:
    bench.unload("select 1 as a, 'x y' as b, 'a\"b' as c, '' as d, null as e, 'it''s' as f", "CSV PARALLEL OFF")
    assert bench.read("000") == b'1,x y,"a""b","",,it\'s\n'


def read_escaped(text: str, delimiter: str, null: str, quoted: bool) -> list[tuple[str | None, ...]]:
    """Delimited text with ESCAPE, read character by character as COPY reads it."""
    rows: list[tuple[str | None, ...]] = []
    row: list[str | None] = []
    raw = value = ""
    characters = iter(text)
    for character in characters:
        if character == "\\":
            following = next(characters)
            raw += character + following
            value += following
        elif character in (delimiter, "\n"):
            body = value[1:-1] if quoted else value
            row.append(None if raw.strip('"') == null else body)
            raw = value = ""
            if character == "\n":
                rows.append(tuple(row))
                row = []
        else:
            raw += character
            value += character
    return rows


@compressed
@pytest.mark.parametrize("quotes", [False, True])
def test_escaped_text_gives_the_rows_back(
    bench: Any, option: str, extension: str, decompress: Any, quotes: bool
) -> None:
    bench.unload(QUERY, f"ESCAPE NULL AS '@null@' {'ADDQUOTES' if quotes else ''} {option}")
    text = content(bench, extension, decompress)
    assert read_escaped(text, "|", "@null@", quotes) == bench.rows(TEXTS)


def test_plain_text_is_joined_by_the_delimiter_and_nothing_else(bench: Any) -> None:
    bench.unload("select 1 as a, 'x|y\"\\' as b, null as c, '' as d, true as e, 'z' as f", "PARALLEL OFF")
    assert bench.read("000") == b'1|x|y"\\||' + b"|t|z\n"


def test_added_quotes_surround_every_field(bench: Any) -> None:
    bench.unload("select 1 as a, 'Hello, World' as b, null as c", "DELIMITER ',' ADDQUOTES PARALLEL OFF")
    assert bench.read("000") == b'"1","Hello, World",""\n'


def test_fixed_width_pads_and_never_truncates(bench: Any) -> None:
    query = "select 7 as a, '日本' as b, null::text as c, 1.5 as d union all select null, 'x', 'yy', 2.25 order by 1"
    bench.unload(query, "FIXEDWIDTH 'a:3,b:4,c:2,d:5' PARALLEL OFF")
    assert bench.read("000").decode() == "7  日本    1.5  \n   x   yy2.25 \n"
    with pytest.raises(WarehouseError, match="4 characters, FIXEDWIDTH gives it 3") as refused:
        bench.unload("select 'long' as a", "FIXEDWIDTH 'a:3'", "other/")
    assert refused.value.sqlstate == "22001"
    with pytest.raises(WarehouseError, match="FIXEDWIDTH names 2 columns, the result has 1"):
        bench.unload("select 'long' as a", "FIXEDWIDTH 'a:3,b:3'", "third/")


def test_fixed_width_with_a_null_string_too_wide(bench: Any) -> None:
    bench.unload("select null::int as a, 'x' as b", "FIXEDWIDTH 'a:3,b:4' NULL AS 'null' PARALLEL OFF")
    assert bench.read("000") == b"   x   \n"
    with pytest.raises(WarehouseError, match="wider than column"):
        bench.unload("select null::varchar as a, 'x' as b", "FIXEDWIDTH 'a:3,b:4' NULL AS 'null'", "other/")


@compressed
@parallel
def test_json_gives_the_rows_back(bench: Any, option: str, extension: str, decompress: Any, parallel: str) -> None:
    bench.unload(QUERY, f"JSON PARALLEL {parallel} {option}")
    lines = content(bench, extension, decompress).removesuffix("\n").split("\n")
    read = [tuple(json.loads(line, parse_float=Decimal).values()) for line in lines]
    expected = [
        (number, v, n, t, None if b is None else "t" if b else "f", None if ts is None else ts.isoformat(" ")[:23])
        for number, v, n, t, b, ts in bench.rows(QUERY)
    ]
    assert read == expected


def test_json_numbers_names_and_super_values(bench: Any) -> None:
    super_value = '{"x":\n [1, "y\\n"]}'
    query = (
        f"""select 1.5::float8 as "a ""b""\", 'NaN'::float8 as n, '{super_value}'::json as s, 1e100::float8 as big"""
    )
    bench.unload(query, "JSON PARALLEL OFF")
    assert json.loads(bench.read("000")) == {'a "b"': 1.5, "n": "NaN", "s": {"x": [1, "y\n"]}, "big": 1e100}
    assert bench.read("000").count(b"\n") == 1


TYPES = {
    "i2": ("smallint", pa.int16(), 7),
    "i4": ("integer", pa.int32(), -(2**31)),
    "i8": ("bigint", pa.int64(), 2**63 - 1),
    "f4": ("real", pa.float32(), 1.5),
    "f8": ("double precision", pa.float64(), 0.1),
    "nan": ("double precision", pa.float64(), float("inf")),
    "d1": ("numeric(18,2)", pa.decimal128(18, 2), Decimal("-1234567890123456.78")),
    "d2": ("numeric(38,0)", pa.decimal128(38, 0), Decimal(10**38 - 1)),
    "b": ("boolean", pa.bool_(), True),
    "d": ("date", pa.date32(), dt.date(1969, 12, 31)),
    "ts": ("timestamp", pa.timestamp("us"), dt.datetime(2013, 1, 1, 5, 0, 0, 123456)),  # noqa: DTZ001
    "tz": ("timestamptz", pa.timestamp("us"), dt.datetime(2013, 1, 1, 5, 0, 0, 120000)),  # noqa: DTZ001
    "tm": ("time", pa.time64("us"), dt.time(23, 59, 59, 5)),
    "v": ("varchar(20)", pa.string(), "日本"),
    "c": ("char(4)", pa.string(), "ab  "),
    "x": ("text", pa.string(), ""),
}


def test_parquet_types_are_redshifts(bench: Any) -> None:
    bench.connection.execute("DROP TABLE IF EXISTS typed")
    bench.connection.execute(
        f"CREATE TABLE typed ({', '.join(f'{name} {sql}' for name, (sql, _, _) in TYPES.items())})"
    )
    places = ", ".join(["%s"] * len(TYPES))
    values = [value for _, _, value in TYPES.values()]
    values[list(TYPES).index("tz")] = dt.datetime(2013, 1, 1, 7, 0, 0, 120000, dt.timezone(dt.timedelta(hours=2)))
    bench.connection.execute(f"INSERT INTO typed VALUES ({places})", values)
    bench.connection.execute("INSERT INTO typed DEFAULT VALUES")
    bench.unload("select * from typed", "PARQUET PARALLEL OFF")
    table = pq.read_table(pa.BufferReader(bench.read("000.parquet")))
    assert table.schema.remove_metadata() == pa.schema([(name, arrow) for name, (_, arrow, _) in TYPES.items()])
    assert table.to_pylist() == [
        {name: value for name, (_, _, value) in TYPES.items()},
        dict.fromkeys(TYPES),
    ]
    file = pq.ParquetFile(pa.BufferReader(bench.read("000.parquet")))
    assert file.metadata.row_group(0).column(0).compression == "SNAPPY"
    assert file.schema.column(list(TYPES).index("ts")).physical_type == "INT64"


@parallel
def test_parquet_gives_the_rows_back(bench: Any, parallel: str) -> None:
    outcome = bench.unload(QUERY, f"PARQUET PARALLEL {parallel}")
    tables = [pq.read_table(pa.BufferReader(bench.read(key))) for key in bench.data_names()]
    assert len(tables) == (4 if parallel == "ON" else 1)
    assert [tuple(row.values()) for row in pa.concat_tables(tables).to_pylist()] == bench.rows(QUERY)
    assert outcome.rows == len(NASTY)


def test_parquet_of_a_numeric_without_precision_is_rounded(bench: Any) -> None:
    bench.unload("select avg(x) as a, sum(x::bigint) as s from (values (1), (2), (2)) v(x)", "PARQUET PARALLEL OFF")
    table = pq.read_table(pa.BufferReader(bench.read("000.parquet")))
    assert table.schema.field("a").type == pa.decimal128(38, 10)
    assert table.to_pylist() == [{"a": Decimal("1.6666666667"), "s": Decimal(5)}]


def test_a_single_column_of_nulls_and_empty_strings_keeps_every_row(bench: Any) -> None:
    query = "select case when i % 2 = 0 then '' end as a from generate_series(1, 6) i order by i"
    bench.unload(query, "PARQUET PARALLEL OFF")
    table = pq.read_table(pa.BufferReader(bench.read("000.parquet")))
    assert [row["a"] for row in table.to_pylist()] == [None, "", None, "", None, ""]
    bench.unload(query, "CSV PARALLEL OFF", "csv/")
    assert bench.read("csv/000") == b'\n""\n\n""\n\n""\n'


@pytest.mark.parametrize(
    ("query", "options", "sqlstate", "words"),
    [
        ("select 1 as a, 2 as a", "PARQUET", "42701", 'column name "a" is duplicated'),
        ("select 1 as a, 2 as a", "JSON", "42701", 'column name "a" is duplicated'),
        ("select array[1] as a", "PARQUET", "0A000", "not supported for UNLOAD to PARQUET"),
        ("select 'infinity'::timestamp as a", "PARQUET", "22023", "cannot represent"),
        ("select * from no_such_table", "CSV", "42P01", "no_such_table"),
        ("select 1/(i-3) as a from generate_series(1, 5) i", "CSV", "22012", "division by zero"),
    ],
)
def test_what_cannot_be_unloaded_is_said(bench: Any, query: str, options: str, sqlstate: str, words: str) -> None:
    with pytest.raises(WarehouseError, match=words) as refused:
        bench.unload(query, options)
    assert refused.value.sqlstate == sqlstate
    assert bench.names() == []


def test_duplicate_names_are_fine_in_csv(bench: Any) -> None:
    bench.unload("select 1 as a, 2 as a", "CSV HEADER PARALLEL OFF")
    assert bench.read("000") == b"a,a\n1,2\n"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("CSV", b'a,"b ""c"", d"\n1,x\n'),
        ("", b'a|b "c", d\n1|x\n'),
        ("ADDQUOTES ESCAPE", b'"a"|"b \\"c\\", d"\n"1"|"x"\n'),
    ],
)
def test_the_header_undergoes_the_same_transformations(bench: Any, options: str, expected: bytes) -> None:
    outcome = bench.unload('select 1 as a, \'x\' as "b ""c"", d"', f"HEADER PARALLEL OFF {options}")
    assert bench.read("000") == expected
    assert outcome.rows == 1
