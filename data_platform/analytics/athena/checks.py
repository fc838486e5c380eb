"""What must hold of a service's tables on Athena after a run, with tolerance 0: as on ClickHouse, and equal to it."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from typing import TYPE_CHECKING, Any

from data_platform.analytics.athena import layout, sources
from data_platform.analytics.athena.blocks import Work
from data_platform.analytics.athena.summaries import read_rows
from data_platform.analytics.checks import IDENTITIES, RECONCILED_DAYS, Check
from data_platform.analytics.days import DAY
from data_platform.analytics.metrics import METRICS, metric_called, table_of
from data_platform.analytics.sql_files import statement
from data_platform.catalog.models import Service

if TYPE_CHECKING:
    import pyarrow as pa

SHOWN = 5
OtherRows = Callable[[Service, str], "pa.Table | None"]


def check_names(metric: str) -> list[str]:
    """The checks of a metric's table on Athena."""
    own = [name for name, (mine, *_) in IDENTITIES.items() if mine == metric]
    extra = {"dau": ["equals_raw_events"], "mau": ["equals_distinct_users"]}
    return ["not_empty", "not_stale", *own, *extra.get(metric, []), "equals_other_engine"]


def check_tables(work: Work, run_date: date, other: OtherRows | None = None) -> list[Check]:
    """All checks of all tables, read back from where Glue points; queries run side by side.

    `other` gives the same table of the other engine as rows, None where it has none made by a run of the same day.
    """
    made = [metric for metric in METRICS if metric in work.state.tables]
    calls: list[Callable[[], list[Check]]] = []
    for metric in made:
        calls.append(lambda metric=metric: _read_back(work, metric, run_date))
        calls.append(lambda metric=metric: [_equals_other(work, metric, other)])
    calls += [lambda name=name: [_identity(work, name)] for name, (mine, *_) in IDENTITIES.items() if mine in made]
    if "dau" in made:
        calls.append(lambda: [_raw(work)])
    if "mau" in made:
        calls.append(lambda: [_distinct_users(work)])
    with ThreadPoolExecutor(8, thread_name_prefix="athena-check") as pool:
        try:
            return [check for found in pool.map(lambda call: call(), calls) for check in found]
        except BaseException:
            work.athena.cancel.set()
            raise


def _read_back(work: Work, metric: str, run_date: date) -> list[Check]:
    known = work.state.tables[metric]
    location = work.glue.location(table_of(work.service, metric))
    rows = read_rows(work, known.model_copy(update={"location": location or known.location}))
    dates: list[date] = rows.column("execution_date").to_pylist()
    last = max(dates, default=None)
    return [
        Check(metric, "not_empty", rows.num_rows > 0, f"record_count {rows.num_rows}"),
        Check(metric, "not_stale", last is not None and last >= run_date, f"last_execution {last}, run of {run_date}"),
    ]


def _identity(work: Work, name: str) -> Check:
    metric, other, mine_sql, other_sql = IDENTITIES[name]
    tables = work.state.tables
    if other not in tables or tables[other].generation != tables[metric].generation:
        return Check(metric, name, passed=True, detail=f"not compared: {other} is of another generation")
    names = {
        each: f'"{work.database}"."{table_of(work.service, what)}"'
        for each, what in (("mine", metric), ("other", other))
    }
    sql = (
        "SELECT day, sum(a) AS here, sum(b) AS there FROM ("
        f"SELECT day, n AS a, 0 AS b FROM ({_grouped_by_columns(mine_sql.format(**names))}) AS mine "
        f"UNION ALL SELECT day, 0 AS a, n AS b FROM ({_grouped_by_columns(other_sql.format(**names))}) AS other"
        f") AS sides GROUP BY day HAVING sum(a) <> sum(b) ORDER BY day LIMIT {SHOWN}"
    )
    return _compared(metric, name, _rows(work, sql, name), other)


def _grouped_by_columns(sql: str) -> str:
    """The identity in Athena's words: it groups by columns, never by the names a SELECT gives them."""
    import sqlglot

    query: Any = sqlglot.parse_one(sql, read="athena")
    group = query.args.get("group")
    if group is not None:
        known = {each.alias: each.this for each in query.expressions if each.alias}
        group.set("expressions", [known.get(each.name, each).copy() for each in group.expressions])
    return query.sql("athena")


def _raw(work: Work) -> Check:
    """The newest days counted again from the curated events, with all days that have copies of their records."""
    shown = {row["activity_date"]: (row["events"], row["dau"]) for row in _newest(work, "dau")}
    if not shown:
        return Check("dau", "equals_raw_events", passed=True, detail="no days")
    ds = sources.partitions_of(work.service, work.state.graph.copies(shown), work.state.sources)
    files = [file for each in ds for file in work.state.sources[each].files]
    stretches = layout.stretches_of(work.service, ds)
    cte = layout.kept(work.database, work.service, stretches, ds, files, work.min_data_date())
    rows = _rows(work, statement("athena/raw_days", kept=cte, days=layout.days(shown)), "raw_days")
    counted = {date.fromisoformat(str(day)): (int(str(events)), int(str(users))) for day, events, users in rows}
    wrong = [(day, shown[day], counted.get(day)) for day in sorted(shown) if shown[day] != counted.get(day)]
    return _compared("dau", "equals_raw_events", wrong, "the curated events")


def _distinct_users(work: Work) -> Check:
    """MAU of the newest days by counting distinct users, without the running sum."""
    shown = {row["activity_date"]: row["mau_30"] for row in _newest(work, "mau")}
    if not shown:
        return Check("mau", "equals_distinct_users", passed=True, detail="no days")
    counts = ", ".join(
        f"count(DISTINCT if(day BETWEEN {layout.day(day - DAY * 29)} AND {layout.day(day)}, user_id)) AS n{number}"
        for number, day in enumerate(sorted(shown))
    )
    source = layout.block_source(
        work.database, "user_days", work.service, min(shown) - DAY * 29, max(shown), work.min_data_date()
    )
    (row,) = _rows(work, f"SELECT {counts} FROM {source} AS active", "distinct_users")
    found = dict(zip(sorted(shown), (int(str(value)) for value in row), strict=True))
    wrong = [(day, shown[day], found[day]) for day in sorted(shown) if shown[day] != found[day]]
    return _compared("mau", "equals_distinct_users", wrong, "the distinct users of the user-days")


def _equals_other(work: Work, metric: str, other: OtherRows | None) -> Check:
    theirs = None if other is None else other(work.service, metric)
    name = "equals_other_engine"
    if theirs is None:
        return Check(metric, name, passed=True, detail="not compared: ClickHouse has no table of a run of this day")
    wrong = differences(read_rows(work, work.state.tables[metric]), theirs, metric)
    return _compared(metric, name, wrong, "ClickHouse")


def differences(mine: "pa.Table", theirs: "pa.Table", metric: str) -> list[tuple[Any, Any, Any]]:
    """(key, row here, row there) of every row that differs between two tables of a metric, execution_date left out."""
    chosen = metric_called(metric)

    def keyed(table: "pa.Table") -> Mapping[Any, Any]:
        rows = table.drop_columns(["execution_date"]).to_pylist()
        return {tuple(row[name] for name in (chosen.day, *chosen.key)): row for row in rows}

    a, b = keyed(mine), keyed(theirs)
    return [(key, a.get(key), b.get(key)) for key in sorted(a.keys() | b.keys()) if a.get(key) != b.get(key)]


def _newest(work: Work, metric: str) -> list[dict[str, Any]]:
    rows = read_rows(work, work.state.tables[metric])
    return rows.slice(max(rows.num_rows - RECONCILED_DAYS, 0)).to_pylist()


def _rows(work: Work, sql: str, what: str) -> list[tuple[str | None, ...]]:
    versions = " ".join(f"{metric}{each.sequence}" for metric, each in sorted(work.state.tables.items()))
    key = f"{work.service.name} check {what} g{work.state.generation} {versions}"
    return list(work.athena.rows(work.athena.run(lambda _attempt: sql, key)))


def _compared(metric: str, name: str, rows: list[Any], other: str) -> Check:
    if not rows:
        return Check(metric, name, passed=True, detail=f"equal to {other} on every day compared")
    day, mine, theirs = rows[0]
    detail = f"{day}: {mine} in the table of {metric} on Athena, {theirs} in {other}; {len(rows)} or more differ"
    return Check(metric, name, passed=False, detail=detail)
