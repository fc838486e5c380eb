"""Every cast of the loader, executed on the real engine: exact or refused, never cut, wrapped around or made 0."""

import datetime as dt
from collections.abc import Iterator
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from clickhouse_connect.driver.exceptions import DatabaseError

from data_platform.catalog import types
from data_platform.catalog.ddl import literal
from data_platform.clients import clickhouse
from data_platform.clients.clickhouse import inner_code
from data_platform.loading.casts import cast_expression, read_type
from data_platform.settings import Settings

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

pytestmark = pytest.mark.integration
MAP = pa.map_(pa.string(), pa.field("v", pa.int64(), nullable=False))
# A syntax error would be a refusal, too: only these are refusals of a value.
THROWN = 395
REFUSALS = {THROWN, 6, 53, 69, 70, 131, 349, 376, 407}


@pytest.fixture(scope="module")
def client(settings: Settings) -> Iterator["Client"]:
    client = clickhouse.connect(settings)
    yield client
    client.close()


def cast(client: "Client", value: str, found: pa.DataType, wanted: str, *, nullable: bool = False) -> Any:
    """The value a column of the Parquet type `found` holding `value` arrives as."""
    source = read_type(found, nullable=nullable)
    expression = cast_expression("v", "v", source, types.parse(wanted).with_nullable(nullable))
    sql = f"SELECT {expression} AS value, toTypeName(value) FROM (SELECT CAST({value}, {literal(source.sql)}) AS v)"
    ((arrived, name),) = client.query(sql, settings={"input_format_null_as_default": 0}).result_rows
    assert name == types.parse(wanted).with_nullable(nullable).sql or nullable
    return arrived


@pytest.mark.parametrize(
    ("given", "found", "wanted", "kept"),
    [
        ("255", pa.int64(), "UInt8", 255),
        ("-128", pa.int64(), "Int8", -128),
        ("18446744073709551615", pa.uint64(), "UInt64", 2**64 - 1),
        ("5.0", pa.float64(), "Int32", 5),
        ("0.5", pa.float64(), "Float32", 0.5),
        ("9007199254740992", pa.int64(), "Float64", 2.0**53),
        ("7", pa.int64(), "Decimal(18, 2)", Decimal("7.00")),
        ("'1.50'", pa.decimal128(10, 4), "Decimal(5, 2)", Decimal("1.50")),
        ("'-1.50'", pa.decimal128(10, 4), "Decimal(5, 2)", Decimal("-1.50")),
        ("'abc'", pa.string(), "FixedString(3)", b"abc"),
        ("'abc'", pa.string(), "LowCardinality(String)", "abc"),
        ("'2106-02-07 06:28:15'", pa.timestamp("ms"), "DateTime", dt.datetime(2106, 2, 7, 6, 28, 15, tzinfo=dt.UTC)),
        (
            "'2024-01-01 00:00:00.123000'",
            pa.timestamp("us"),
            "DateTime64(3)",
            dt.datetime(2024, 1, 1, 0, 0, 0, 123000, dt.UTC),
        ),
        ("'2149-06-06'", pa.date32(), "Date", dt.date(2149, 6, 6)),
        ("'1970-01-01'", pa.date32(), "Date", dt.date(1970, 1, 1)),
        ("'61f0c404-5cb3-11e7-907b-a6006ad3dba0'", pa.string(), "UUID", "61f0c404-5cb3-11e7-907b-a6006ad3dba0"),
        ("[1, 2]", pa.list_(pa.field("e", pa.int64(), nullable=False)), "Array(Int32)", [1, 2]),
        (
            "map('a', 1)",
            pa.map_(pa.string(), pa.field("v", pa.int64(), nullable=False)),
            "Map(String, Int32)",
            {"a": 1},
        ),
    ],
)
def test_what_fits_arrives_exactly(client: "Client", given: str, found: pa.DataType, wanted: str, kept: Any) -> None:
    value = cast(client, given, found, wanted)
    if isinstance(value, dt.datetime):
        value = value.replace(tzinfo=dt.UTC)
    assert (str(value) if wanted == "UUID" else value) == kept


@pytest.mark.parametrize(
    ("given", "found", "wanted"),
    [
        ("256", pa.int64(), "UInt8"),
        ("-1", pa.int64(), "UInt64"),
        ("2147483648", pa.int64(), "Int32"),
        ("5.5", pa.float64(), "Int32"),
        ("nan", pa.float64(), "Int32"),
        ("0.1", pa.float64(), "Float32"),
        ("9007199254740993", pa.int64(), "Float64"),
        ("'1.505'", pa.decimal128(10, 3), "Decimal(10, 2)"),
        ("'99999999.99'", pa.decimal128(10, 2), "Decimal(5, 2)"),
        ("100000000000", pa.int64(), "Decimal(9, 2)"),
        ("'abcd'", pa.string(), "FixedString(3)"),
        ("'2024-01-01 00:00:00.001'", pa.timestamp("ms"), "DateTime"),
        ("'2024-01-01 00:00:00.123456'", pa.timestamp("us"), "DateTime64(3)"),
        ("'2024-01-01 00:00:00.000000001'", pa.timestamp("ns"), "DateTime64(6)"),
        ("'1969-12-31 23:59:59.000'", pa.timestamp("ms"), "DateTime"),
        ("'2106-02-07 06:28:16.000'", pa.timestamp("ms"), "DateTime"),
        ("'1969-12-31'", pa.date32(), "Date"),
        ("'2149-06-07'", pa.date32(), "Date"),
        ("'no uuid'", pa.string(), "UUID"),
        ("[2147483648]", pa.list_(pa.field("e", pa.int64(), nullable=False)), "Array(Int32)"),
        ("map('a', 2147483648)", MAP, "Map(String, Int32)"),
        ("'2300-01-01 00:00:00.000'", pa.timestamp("ms"), "DateTime64(9)"),
        ("[NULL]", pa.list_(pa.field("e", pa.int32(), nullable=True)), "Array(Int32)"),
    ],
)
def test_what_does_not_fit_is_refused(client: "Client", given: str, found: pa.DataType, wanted: str) -> None:
    with pytest.raises(DatabaseError) as caught:
        print(f"{given} of {found} became", cast(client, given, found, wanted))
    code = inner_code(caught.value).code
    assert code in REFUSALS, str(caught.value)
    if code == THROWN:
        assert "column v: a value of" in str(caught.value)


@pytest.mark.parametrize(
    ("found", "wanted"),
    [(pa.int32(), "Int64"), (pa.string(), "LowCardinality(String)"), (pa.string(), "FixedString(2)"),
     (pa.date32(), "Date"), (pa.timestamp("us"), "DateTime64(3)"), (pa.decimal128(9, 2), "Decimal(9, 1)")],
)  # fmt: skip
def test_a_null_is_never_a_default(client: "Client", found: pa.DataType, wanted: str) -> None:
    source = read_type(found, nullable=True)
    expression = cast_expression("v", "v", source, types.parse(wanted))
    with pytest.raises(DatabaseError) as caught:
        client.query(f"SELECT {expression} FROM (SELECT CAST(NULL, {literal(source.sql)}) AS v)")
    assert inner_code(caught.value).code in REFUSALS, str(caught.value)
    assert cast(client, "NULL", found, wanted, nullable=True) is None
