"""The catalogue's rules for a partition's rows, asked in ClickHouse: one statement for all rules of a partition.

Values of rows stay in ClickHouse: a breach tells how many rows and the SQL that shows them, never what is in them.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING

from data_platform.catalog.ddl import DS, qualified, quote
from data_platform.catalog.models import Check, Dataset, NotNull, Range, RedshiftSource, RowDrift, Unique
from data_platform.quality.finding import Finding, Weight, make_again

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

# A median of fewer days says nothing: the first days of a dataset pass.
DRIFT_LEAST_DAYS = 3
# `days` partitions are looked for in this many calendar days before, so that old history is not read.
DRIFT_REACH = 4
# GROUP BY spills to disk from here on; an exact count of distinct keys in memory could take the server down.
SPILL_BYTES = 512 * 2**20


@dataclass(frozen=True)
class Rule:
    """A catalogue check with the name it has in the UI."""

    name: str
    check: Check

    @property
    def weight(self) -> Weight:
        """Drift may be a holiday; all else is wrong data."""
        return Weight.WARNING if isinstance(self.check, RowDrift) else Weight.ERROR

    @property
    def description(self) -> str:
        """The rule in words."""
        match self.check:
            case NotNull(columns=columns):
                return f"No null in {', '.join(columns)}."
            case Unique(columns=columns):
                return f"No two rows of a partition agree in all of {', '.join(columns)}."
            case Range(column=column, min=low, max=high):
                bounds = [f"at least {low:g}"] if low is not None else []
                bounds += [f"at most {high:g}"] if high is not None else []
                return f"{column} is {' and '.join(bounds) or 'anything'}, or null."
            case RowDrift(tolerance=tolerance, days=days):
                return f"The rows differ from the median of the {days} partitions before by at most {tolerance:.0%}."


def rules_of(dataset: Dataset) -> list[Rule]:
    """The dataset's rules under names that stay when others are added behind them."""
    seen: Counter[str] = Counter()
    rules: list[Rule] = []
    for check in dataset.checks:
        stem = f"range_{check.column}" if isinstance(check, Range) else check.kind
        seen[stem] += 1
        rules.append(Rule(stem if seen[stem] == 1 else f"{stem}_{seen[stem]}", check))
    return rules


def statement_of(dataset: Dataset, rules: Sequence[Rule]) -> str:
    """One SELECT with the rows of the partition `{ds:Date}` and, in order, one number per rule (drift: the median)."""
    table = qualified(dataset.domain, dataset.storage_name)
    cells = ["count()", *(_measure(table, rule.check) for rule in rules)]
    return "SELECT\n    " + ",\n    ".join(cells) + f"\nFROM {table}\nWHERE {quote(DS)} = {{ds:Date}}"


def check_rows(client: "Client", dataset: Dataset, ds: date, rules: Sequence[Rule] | None = None) -> list[Finding]:
    """Ask all `rules` (default: the dataset's) of one partition. Raises ClickHouse's errors as they are."""
    asked = rules_of(dataset) if rules is None else rules
    if not asked:
        return []
    answer = client.query(
        statement_of(dataset, asked),
        parameters={"ds": ds, **{f"since_{days}": ds - timedelta(days=days * DRIFT_REACH) for days in _drifts(asked)}},
        settings={"max_bytes_before_external_group_by": SPILL_BYTES},
    ).result_rows[0]
    rows, *measured = answer
    return [judge(dataset, ds, rule, int(rows), value) for rule, value in zip(asked, measured, strict=True)]


def judge(dataset: Dataset, ds: date, rule: Rule, rows: int, value: object) -> Finding:
    """The finding for what was measured: breaching rows, or `(days, median)` for drift."""
    if isinstance(rule.check, RowDrift):
        return _judge_drift(dataset, ds, rule, rule.check, rows, value)
    breaching = int(value or 0)  # pyright: ignore[reportArgumentType]
    facts: dict[str, int | float | str] = {"rows": rows, "breaching_rows": breaching}
    if breaching == 0:
        return Finding(rule.name, True, f"{rule.description} {rows:,} rows hold to it.", rule.weight, facts=facts)
    facts["show_them"] = rows_sql(dataset, ds, rule.check)
    return Finding(
        rule.name,
        False,
        f"{breaching:,} of {rows:,} rows of {dataset.key} {ds} breach the rule: {rule.description}",
        rule.weight,
        "See them with the SQL in the check's metadata in Dagster (show_them). Correct them at the source and make the "
        f"day again: {make_again(dataset, ds)}. Where the rule is wrong, correct it in the dataset's catalogue file.",
        facts,
    )


def rows_sql(dataset: Dataset, ds: date, check: Check) -> str:
    """SQL for a person that shows the rows that breach the rule."""
    table, where = qualified(dataset.domain, dataset.storage_name), f"{quote(DS)} = '{ds.isoformat()}'"
    if isinstance(check, Unique):
        columns = ", ".join(map(quote, check.columns))
        return f"SELECT {columns}, count() FROM {table} WHERE {where} GROUP BY {columns} HAVING count() > 1 LIMIT 100"
    return f"SELECT * FROM {table} WHERE {where} AND ({_breach(check)}) LIMIT 100"


def _judge_drift(dataset: Dataset, ds: date, rule: Rule, check: RowDrift, rows: int, value: object) -> Finding:
    days, median = value  # pyright: ignore[reportGeneralTypeIssues] - a tuple of ClickHouse
    days, median = int(days), float(median) if int(days) else 0.0
    facts: dict[str, int | float | str] = {"rows": rows, "median_rows": median, "days_compared": days}
    if days < DRIFT_LEAST_DAYS:
        sentence = f"Only {days} earlier partitions: too few to compare with."
        return Finding(rule.name, True, sentence, rule.weight, facts=facts)
    drift = abs(rows - median) / median if median else float(rows > 0)
    facts["drift"] = round(drift, 4)
    if drift <= check.tolerance:
        return Finding(rule.name, True, f"{rows:,} rows, {drift:.0%} off the median.", rule.weight, facts=facts)
    return Finding(
        rule.name,
        False,
        f"{dataset.key} {ds}: {rows:,} rows where the median of the {days} partitions before is {median:,.0f}, "
        f"{drift:.0%} off; {check.tolerance:.0%} is allowed.",
        rule.weight,
        f"Count the day at its source ({_source_of(dataset, ds)}). If it has another number of rows by now, make the "
        f"day again: {make_again(dataset, ds)}. If not, ask whoever fills the source whether the day is complete "
        f"(source and owner stand in catalog/datasets/{dataset.key}.yaml); if it is, do nothing. It is a warning: "
        "readers have the day as it is, and no message is sent",
        facts,
    )


def _source_of(dataset: Dataset, ds: date) -> str:
    """Where a person counts the rows of a day at the source."""
    source = dataset.source
    if isinstance(source, RedshiftSource) and source.table is not None:
        where = "" if source.partition_column is None else f" WHERE {source.partition_column} = '{ds}'"
        return f"Redshift: SELECT count(*) FROM {source.table}{where}"
    return f"source in catalog/datasets/{dataset.key}.yaml"


def _measure(table: str, check: Check) -> str:
    if isinstance(check, RowDrift):
        days = f"SELECT count() AS n FROM {table} WHERE {quote(DS)} < {{ds:Date}} AND {quote(DS)} >= "
        days += f"{{since_{check.days}:Date}} GROUP BY {quote(DS)} ORDER BY {quote(DS)} DESC LIMIT {check.days}"
        return f"(SELECT (count(), quantileExact(0.5)(n)) FROM ({days}))"
    if isinstance(check, Unique):
        columns = ", ".join(map(quote, check.columns))
        keys = f"SELECT count() AS n FROM {table} WHERE {quote(DS)} = {{ds:Date}} GROUP BY {columns}"
        return f"(SELECT sum(n) - count() FROM ({keys}))"
    return f"countIf({_breach(check)})"


def _breach(check: Check) -> str:
    match check:
        case NotNull(columns=columns):
            return " OR ".join(f"{quote(column)} IS NULL" for column in columns)
        case Range(column=column, min=low, max=high):
            sides = [f"{quote(column)} < {low!r}"] if low is not None else []
            sides += [f"{quote(column)} > {high!r}"] if high is not None else []
            # A null is not out of range; ifNull keeps countIf's answer a number.
            return f"ifNull({' OR '.join(sides) or 'false'}, false)"
        case _:
            raise AssertionError(f"{check.kind} is measured by a statement of its own")


def _drifts(rules: Sequence[Rule]) -> Iterator[int]:
    for rule in rules:
        if isinstance(rule.check, RowDrift):
            yield rule.check.days
