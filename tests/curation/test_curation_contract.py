"""The contract of curated rows: exact casts or an error that names the column."""

import datetime as dt
import re
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_platform.curation.contract import ContractError, check_columns, conform

pytestmark = pytest.mark.unit
SECOND = dt.datetime(1970, 1, 1, 0, 0, 1, tzinfo=dt.UTC)


def conformed(values: list[Any], found: pa.DataType, wanted: pa.DataType, *, nullable: bool = True) -> list[Any]:
    batch = pa.RecordBatch.from_arrays([pa.array(values, found)], names=["v"])
    result = conform(batch, pa.schema([pa.field("v", wanted, nullable=nullable)]), where="shop/items")
    assert result.schema.field("v") == pa.field("v", wanted, nullable=nullable)
    return result.column("v").to_pylist()


@pytest.mark.parametrize(
    ("values", "found", "wanted", "kept"),
    [
        ([1, None, 255], pa.int64(), pa.uint8(), [1, None, 255]),
        ([1.0, 2.0], pa.float64(), pa.int32(), [1, 2]),
        ([Decimal("1.50")], pa.decimal128(10, 4), pa.decimal128(5, 2), [Decimal("1.50")]),
        ([7], pa.int32(), pa.decimal128(20, 2), [Decimal("7.00")]),
        (
            [1_000_000],
            pa.timestamp("us"),
            pa.timestamp("ms", tz="UTC"),
            [dt.datetime(1970, 1, 1, 0, 0, 1, tzinfo=dt.UTC)],
        ),
        (["a", None], pa.large_string(), pa.string(), ["a", None]),
        ([dt.date(2024, 2, 29)], pa.date32(), pa.date32(), [dt.date(2024, 2, 29)]),
        (["AA"], pa.dictionary(pa.int8(), pa.string()), pa.string(), ["AA"]),
    ],
)
def test_values_that_fit_come_through_unchanged(
    values: list[Any], found: pa.DataType, wanted: pa.DataType, kept: list[Any]
) -> None:
    assert conformed(values, found, wanted) == kept


@pytest.mark.parametrize(
    ("values", "found", "wanted"),
    [
        ([0.1], pa.float64(), pa.float32()),
        ([1e300], pa.float64(), pa.float32()),
        ([86_400_001], pa.timestamp("ms"), pa.date32()),
        ([2], pa.int8(), pa.bool_()),
        ([10**17], pa.int64(), pa.decimal128(18, 2)),
        ([256], pa.int64(), pa.uint8()),
        ([-1], pa.int64(), pa.uint64()),
        ([2**31], pa.int64(), pa.int32()),
        ([1.5], pa.float64(), pa.int32()),
        ([2**53 + 1], pa.int64(), pa.float64()),
        ([Decimal("1.505")], pa.decimal128(10, 3), pa.decimal128(10, 2)),
        ([Decimal("1000.00")], pa.decimal128(10, 2), pa.decimal128(5, 2)),
        ([1001], pa.timestamp("us"), pa.timestamp("ms", tz="UTC")),
        ([2**60], pa.timestamp("ms"), pa.timestamp("ns", tz="UTC")),
        (["x"], pa.string(), pa.int32()),
        (["ABC"], pa.string(), pa.binary(2)),
        ([b"\xff\xfe"], pa.binary(), pa.string()),
    ],
)
def test_a_value_that_does_not_fit_is_refused_by_column(
    values: list[Any], found: pa.DataType, wanted: pa.DataType
) -> None:
    with pytest.raises(ContractError, match=r"shop/items: column v: .* does not fit"):
        conformed(values, found, wanted)


def test_a_null_is_refused_where_the_column_has_none() -> None:
    with pytest.raises(ContractError, match="column v: 2 nulls in a column that is not nullable"):
        conformed([None, 1, None], pa.int32(), pa.int32(), nullable=False)


@given(
    st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1),
    st.sampled_from([pa.int8(), pa.uint16(), pa.int32(), pa.uint64()]),
)
def test_an_integer_arrives_as_it_was_or_not_at_all(values: list[int], wanted: pa.DataType) -> None:
    try:
        arrived = conformed(values, pa.int64(), wanted)
    except ContractError:
        return
    assert arrived == values


def test_columns_may_come_in_any_order() -> None:
    schema = pa.schema([("a", pa.int32()), ("b", pa.string())])
    batch = pa.RecordBatch.from_arrays([pa.array(["x"]), pa.array([1])], names=["b", "a"])
    assert conform(batch, schema, where="w").to_pylist() == [{"a": 1, "b": "x"}]


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (["a"], "missing column b$"),
        ([], "missing columns a, b$"),
        (["a", "b", "c"], "extra column c$"),
        (["a", "b", "b"], "doubled column b$"),
        (["a", "c", "d"], "missing column b; extra columns c, d$"),
    ],
)
def test_missing_extra_and_doubled_columns_are_all_named(found: list[str], reason: str) -> None:
    schema = pa.schema([("a", pa.int32()), ("b", pa.string())])
    with pytest.raises(ContractError) as caught:
        check_columns(found, schema, where="shop/items")
    assert re.search(reason, caught.value.message)


def test_a_value_that_is_no_number_stays_none() -> None:
    (value,) = conformed([float("nan")], pa.float64(), pa.float32())
    assert value != value  # noqa: PLR0124 - the mark of NaN
