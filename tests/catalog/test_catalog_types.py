"""The one type table: text, Arrow, Redshift, what may feed what, what is wider."""

import io
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_platform.catalog import Catalog
from data_platform.catalog.types import (
    ColumnType,
    arrow_type,
    curated_schema,
    parse,
    redshift_type,
    refusal,
    widens,
)

pytestmark = pytest.mark.unit

PLAIN = [
    *("Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32", "UInt64", "Float32", "Float64"),
    *("String", "Bool", "Date", "Date32", "DateTime('UTC')", "UUID"),
]
scalars = st.one_of(
    st.sampled_from(PLAIN),
    st.integers(0, 9).map(lambda n: f"DateTime64({n}, 'UTC')"),
    st.integers(1, 99).map(lambda n: f"FixedString({n})"),
    st.integers(1, 38).flatmap(lambda p: st.integers(0, p).map(lambda s: f"Decimal({p}, {s})")),
    st.sampled_from(["LowCardinality(String)", "LowCardinality(Nullable(String))"]),
)
texts = st.recursive(
    scalars | scalars.filter(lambda text: "Low" not in text).map(lambda text: f"Nullable({text})"),
    lambda inner: inner.map(lambda t: f"Array({t})") | inner.map(lambda t: f"Map(String, {t})"),
    max_leaves=3,
)


@given(texts)
def test_canonical_text_survives_parsing(text: str) -> None:
    assert parse(text).sql == text


@given(texts)
def test_every_type_has_an_arrow_type_that_parquet_gives_back_and_that_feeds_it(text: str) -> None:
    column = parse(text)
    schema = pa.schema([pa.field("c", arrow_type(column), nullable=column.nullable)])
    file = io.BytesIO()
    pq.write_table(schema.empty_table(), file)
    found = pq.read_schema(file)
    assert found.equals(schema)
    assert refusal(column, found.field("c").type) is None
    assert redshift_type(column)


@given(texts)
def test_every_type_widens_to_itself_and_to_its_nullable_self(text: str) -> None:
    column = parse(text)
    assert widens(column, column)
    if not column.inner:
        assert widens(column, column.with_nullable(True))


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("DateTime", "DateTime('UTC')"),
        ("DateTime64(3)", "DateTime64(3, 'UTC')"),
        (" Map( String,String ) ", "Map(String, String)"),
        ("Decimal(10,2)", "Decimal(10, 2)"),
    ],
)
def test_shorter_spellings_mean_the_canonical_one(text: str, canonical: str) -> None:
    assert parse(text).sql == canonical


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Sting", "unknown type 'Sting'; did you mean String?"),
        ("int32", "did you mean Int32"),
        ("", "unknown type"),
        ("Int32(5)", "takes no arguments"),
        ("Decimal", "needs its arguments, e.g. Decimal"),
        ("Decimal(39, 2)", "the precision must be 1 to 38"),
        ("Decimal(5, 6)", "the scale must be 0 to 5"),
        ("DateTime64(10)", "the fraction digits must be 0 to 9"),
        ("DateTime('Asia/Seoul')", "must be 'UTC', not 'Asia/Seoul'"),
        ("DateTime64(3, 'Europe/Berlin')", "must be 'UTC'"),
        ("FixedString(0)", "the length must be 1 to 65535"),
        ("LowCardinality(Int32)", "LowCardinality is for String"),
        ("Nullable(Nullable(String))", "stands once"),
        ("Nullable(LowCardinality(String))", "inside LowCardinality"),
        ("Nullable(Array(String))", "cannot be nullable"),
        ("Map(Nullable(String), String)", "the key of a Map"),
        ("Array(String", "its end"),
        ("String)", "goes on after its end"),
        ("String; DROP TABLE x", "cannot read the type"),
    ],
)
def test_a_type_that_is_none_says_why(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=re.escape(reason)):
        parse(text)


@pytest.mark.parametrize(
    ("column", "found"),
    [
        ("UInt8", pa.int64()),  # any width: the cast refuses the values that do not fit
        ("Int16", pa.float64()),  # pandas writes integers with nulls so
        ("Float32", pa.float64()),
        ("Float64", pa.int32()),
        ("Decimal(10, 2)", pa.decimal128(38, 9)),
        ("Decimal(10, 2)", pa.int64()),
        ("DateTime('UTC')", pa.timestamp("ns")),
        ("DateTime64(9, 'UTC')", pa.timestamp("ms", tz="Asia/Seoul")),
        ("String", pa.large_string()),
        ("LowCardinality(String)", pa.dictionary(pa.int32(), pa.string())),
        ("FixedString(4)", pa.binary(4)),
        ("Array(Int8)", pa.large_list(pa.int64())),
        ("Map(String, String)", pa.map_(pa.large_string(), pa.string())),
    ],
)
def test_what_may_feed_a_column(column: str, found: pa.DataType) -> None:
    assert refusal(parse(column), found) is None


@pytest.mark.parametrize(
    ("column", "found"),
    [
        ("Int32", pa.string()),
        ("String", pa.int32()),
        ("Bool", pa.int8()),
        ("Int8", pa.bool_()),
        ("Date", pa.timestamp("ms")),  # which day it is depends on a zone
        ("DateTime('UTC')", pa.date32()),
        ("DateTime('UTC')", pa.int64()),
        ("Decimal(10, 2)", pa.float64()),
        ("Array(Int8)", pa.list_(pa.string())),
        ("Array(Int8)", pa.int8()),
        ("Map(String, String)", pa.map_(pa.string(), pa.int32())),
        ("Map(String, String)", pa.string()),
    ],
)
def test_what_may_not_feed_a_column(column: str, found: pa.DataType) -> None:
    reason = refusal(parse(column), found)
    assert reason is not None
    assert "does not go into" in reason


@pytest.mark.parametrize(
    ("old", "new", "wider"),
    [
        ("Int8", "Int64", True),
        ("UInt8", "Int16", True),
        ("UInt8", "Int8", False),
        ("Int8", "UInt64", False),
        ("Int64", "Int32", False),
        ("Int64", "Float64", False),  # above 2**53 it rounds
        ("Float32", "Float64", True),
        ("Float64", "Float32", False),
        ("Nullable(Int8)", "Int8", False),
        ("String", "LowCardinality(String)", True),
        ("String", "FixedString(9)", False),
        ("Date", "Date32", True),
        ("Date32", "Date", False),
        ("DateTime64(3, 'UTC')", "DateTime64(6, 'UTC')", True),
        ("DateTime64(3, 'UTC')", "DateTime64(9, 'UTC')", False),  # 9 digits end in 2262
        ("DateTime64(6, 'UTC')", "DateTime64(3, 'UTC')", False),
        ("Decimal(10, 2)", "Decimal(12, 4)", True),
        ("Decimal(10, 2)", "Decimal(10, 4)", False),
        ("Decimal(10, 2)", "Decimal(12, 1)", False),
        ("Array(Int8)", "Array(Int16)", False),
    ],
)
def test_what_is_wider(old: str, new: str, wider: bool) -> None:
    assert widens(parse(old), parse(new)) is wider


def test_the_curated_schema_has_the_catalogue_s_columns_types_and_nulls(shipped: Catalog) -> None:
    schema = curated_schema(shipped.datasets["market/flights"])
    assert schema.field("dep_time") == pa.field("dep_time", pa.uint16())
    assert schema.field("origin") == pa.field("origin", pa.string(), nullable=False)
    assert schema.field("time_hour") == pa.field("time_hour", pa.timestamp("ms", tz="UTC"), nullable=False)
    assert schema.names == [column.name for column in shipped.datasets["market/flights"].columns]


def test_a_type_knows_no_null_where_clickhouse_knows_none() -> None:
    with pytest.raises(ValueError, match="Map cannot be nullable"):
        ColumnType("Map", inner=(parse("String"), parse("String"))).with_nullable(True)
