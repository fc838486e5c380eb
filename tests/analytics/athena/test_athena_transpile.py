"""The metrics' SQL in Athena's words: as the golden files say, without a trace of ClickHouse.

`python -m tests.analytics.athena.test_athena_transpile` writes the golden files anew.
"""

from datetime import UTC, date, datetime
from pathlib import Path

import pytest
import sqlglot

from data_platform.analytics.athena.layout import partitions, stretches_of
from data_platform.analytics.athena.transpile import BY_HAND, metric_on_athena
from data_platform.analytics.metrics import METRICS
from data_platform.catalog.models import Service
from data_platform.local.aws.athena.translate import parse

pytestmark = pytest.mark.unit
GOLDEN = Path(__file__).parent / "golden"
SERVICE = Service(name="theshop-brand")


def golden_of(metric: str) -> Path:
    return GOLDEN / f"{metric}.sql"


@pytest.mark.parametrize("metric", METRICS)
def test_the_statement_is_the_golden_one_and_athena_has_its_functions(metric: str) -> None:
    sql = metric_on_athena(metric, SERVICE)
    assert f"{sql}\n" == golden_of(metric).read_text(encoding="utf-8"), "see the docstring of this file"
    parse(sql.replace(":services", "('a')").replace(":days", "(DATE '2024-01-01')").replace(":execution_date", "1"))


@pytest.mark.parametrize("metric", METRICS)
def test_both_engines_give_the_same_columns_in_the_same_order(metric: str) -> None:
    from data_platform.analytics.summaries import metric_sql

    ours = sqlglot.parse_one(metric_sql(metric, SERVICE), read="clickhouse")
    theirs = sqlglot.parse_one(metric_on_athena(metric, SERVICE), read="athena")
    assert [each.alias_or_name for each in theirs.selects] == [each.alias_or_name for each in ours.selects]


def test_only_what_works_on_bitmaps_is_written_by_hand() -> None:
    from data_platform.analytics.summaries import metric_sql

    with_bitmaps = {metric for metric in METRICS if "bitmap" in metric_sql(metric, SERVICE).lower()}
    assert with_bitmaps == set(BY_HAND)


@pytest.mark.parametrize(
    ("first", "last", "inside", "outside"),
    [
        ("2024-03-08", "2024-03-20", ["2024-03-08", "2024-03-20"], ["2024-03-07", "2024-03-21", "2023-03-10"]),
        ("2023-12-30", "2024-01-02", ["2023-12-30", "2024-01-01", "2024-01-02"], ["2023-12-29", "2024-01-03"]),
        ("2022-05-10", "2024-02-03", ["2022-05-10", "2022-06-01", "2024-02-03"], ["2022-05-09", "2024-02-04"]),
    ],
)  # fmt: skip
def test_the_filter_on_year_month_and_day_is_exact(
    first: str, last: str, inside: list[str], outside: list[str]
) -> None:
    from datetime import date

    import duckdb

    condition = partitions(date.fromisoformat(first), date.fromisoformat(last))
    for text, expected in [*((each, True) for each in inside), *((each, False) for each in outside)]:
        year, month, day = text.split("-")
        row = duckdb.sql(
            f"SELECT {condition} FROM (SELECT '{year}' AS year, '{month}' AS month, '{day}' AS day)"
        ).fetchall()
        assert row == [(expected,)], text


def test_days_that_lie_years_apart_are_told_without_those_between() -> None:
    service = Service(name="theshop-pharmacy", time_zone="Asia/Seoul")
    found = stretches_of(service, [date(2024, 3, 1), date(2010, 11, 3), date(2010, 11, 9)])
    assert len(found.starts) == len(found.labels) <= 11 + 5 + 4
    assert list(found.starts) == sorted(found.starts)
    for at in (
        datetime(2010, 11, 3, 16, tzinfo=UTC),
        datetime(2010, 11, 6, tzinfo=UTC),
        datetime(2024, 3, 1, tzinfo=UTC),
    ):
        assert found.day_of(int(at.timestamp())) == (at.date() if at.hour < 15 else date(2010, 11, 4))


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for name in METRICS:
        golden_of(name).write_text(f"{metric_on_athena(name, SERVICE)}\n", encoding="utf-8")
