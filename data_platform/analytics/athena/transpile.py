"""The metrics' SQL files in Athena's words: one definition, two engines. Pure.

sqlglot translates; what it does not know of ClickHouse is corrected here, and nowhere else. Athena has no bitmaps:
the one CTE of a metric that works on bitmaps is written anew over the user-days (`sql/athena/metrics/`).
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from data_platform.analytics.metrics import METRICS, metric_called
from data_platform.analytics.sql_files import statement
from data_platform.catalog.models import Service
from data_platform.errors import PlatformError

if TYPE_CHECKING:
    from sqlglot import exp

# Metric: the CTE that is written by hand for Athena.
BY_HAND: Mapping[str, str] = {"dau": "people", "mau": "rolling", "retention": "days", "user_cohort": "ages"}
_CASTS = {"touint64": "BIGINT", "toint64": "BIGINT", "tofloat64": "DOUBLE"}
_RENAMED = {"arraysort": "ARRAY_SORT", "grouparray": "ARRAY_AGG"}


def metric_on_athena(metric: str, service: Service) -> str:
    """The metric's SELECT over `analytics_blocks.*`, with the placeholders :services, :days and :execution_date."""
    ages = service.cohorts
    return _transpiled(metric_called(metric).name, ages.recent, ages.active, ages.veteran)


@cache
def reads_of_blocks() -> Mapping[str, int]:
    """How often all metrics together read each block; what a CTE reads is read wherever the CTE is."""
    found: Counter[str] = Counter()
    for metric in METRICS:
        found += _reads(_transpiled(metric, 1, 2, 3))
    return found


def _reads(text: str) -> Counter[str]:
    import sqlglot
    from sqlglot import exp

    query: Any = sqlglot.parse_one(text, read="athena")
    tables: dict[str, list[Any]] = defaultdict(list)  # by the CTE that names them, "" for none
    for table in query.find_all(exp.Table):
        tables[getattr(table.find_ancestor(exp.CTE), "alias", "")].append(table)

    def of(owner: str) -> Counter[str]:
        found: Counter[str] = Counter()
        for table in tables[owner]:
            if table.db == "analytics_blocks":
                found["sessions" if table.name == "session_days" else table.name] += 1  # made of the sessions
            elif table.name != owner:
                found += of(table.name)
        return found

    return of("")


@cache
def _transpiled(metric: str, recent: int, active: int, veteran: int) -> str:
    import sqlglot

    ages = {"recent": str(recent), "active": str(active), "veteran": str(veteran)}
    query: Any = sqlglot.parse_one(statement(f"metrics/{metric}", **ages), read="clickhouse")
    by_hand = BY_HAND.get(metric)
    ctes = {cte.alias: cte for cte in query.ctes}
    if by_hand is not None:
        if by_hand not in ctes:
            raise PlatformError(f"metrics/{metric}.sql has no CTE {by_hand}, which Athena's file replaces")
        ctes[by_hand].set("this", _marker())
        _drop_unread(query)
    query = _corrected(query)
    if by_hand is not None:
        place = next(cte for cte in query.ctes if cte.alias == by_hand)
        place.set("this", sqlglot.parse_one(statement(f"athena/metrics/{metric}", **ages), read="athena"))
    text = query.sql("athena", pretty=True)
    left = [name for name in ("bitmap", "toUInt", "groupBitmap") if name.lower() in text.lower()]
    if left:
        raise PlatformError(f"metrics/{metric}.sql has {', '.join(left)}, which Athena does not know")
    return text


def _marker() -> "exp.Expr":
    from sqlglot import exp

    return exp.select(exp.Literal.number(1))


def _drop_unread(query: "exp.Expr") -> None:
    """Leave out CTEs that nobody reads any more."""
    from sqlglot import exp

    clause: Any = query.args["with_"]
    while True:
        read = {table.name for table in query.find_all(exp.Table)}
        kept = [cte for cte in clause.expressions if cte.alias in read]
        if len(kept) == len(clause.expressions):
            return
        clause.set("expressions", kept)


def _corrected(query: Any) -> Any:
    from sqlglot import exp

    for select in list(query.find_all(exp.Select)):
        _expand_aliases(select)
        _array_join(select)
        _zeros_of_outer_joins(select)
    corrections = _corrections()
    for node in reversed(list(query.walk(bfs=False))):
        for kind, correct in corrections.items():
            if isinstance(node, kind):
                better = correct(node)
                if better is not node:
                    node.replace(better)
                break
    return query


def _expand_aliases(select: "exp.Select") -> None:
    """ClickHouse lets expressions name the aliases beside them; Athena does not."""
    from sqlglot import exp

    known: dict[str, Any] = {}

    def expanded(root: Any) -> None:
        for column in list(root.find_all(exp.Column)):
            meant = known.get(column.name) if not column.table else None
            if meant is not None and column.find_ancestor(exp.Select) is select:
                column.replace(exp.Paren(this=meant.copy()) if isinstance(meant, exp.Binary) else meant.copy())

    for projection in select.expressions:
        expanded(projection)
        if isinstance(projection, exp.Alias):
            defined = projection.this
            plain = isinstance(defined, exp.Column) and defined.name == projection.alias
            mentions = any(
                column.name == projection.alias and not column.table for column in defined.find_all(exp.Column)
            )
            if not plain and not mentions:
                known[projection.alias] = defined
    where = select.args.get("where")
    if where is not None:
        expanded(where)


def _array_join(select: "exp.Select") -> None:
    """ARRAY JOIN [(a, b), ...] AS x, with x.1 and x.2, as rows with columns."""
    from sqlglot import exp

    for join in select.args.get("joins") or []:
        if str(join.args.get("kind", "")).upper() != "ARRAY":
            continue
        (item,) = [join.this] if isinstance(join.this, exp.Alias) else join.expressions
        name, rows = item.alias, item.this
        width = len(rows.expressions[0].expressions)
        columns = [f"item_{number + 1}" for number in range(width)]
        for row in rows.expressions:
            row.replace(exp.Anonymous(this="ROW", expressions=list(row.expressions)))
        unnest = exp.Unnest(
            expressions=[rows.copy()],
            alias=exp.TableAlias(
                this=exp.to_identifier("items"), columns=[exp.to_identifier(each) for each in columns]
            ),
        )
        join.replace(exp.Join(this=unnest, kind="CROSS"))
        for access in list(select.find_all(exp.Column)):
            if access.table == name:
                access.replace(exp.column(columns[int(access.name) - 1], table="items"))


def _zeros_of_outer_joins(select: "exp.Select") -> None:
    """Where an outer join finds nothing ClickHouse gives zeros, Athena nulls."""
    from sqlglot import exp

    optional = {join.alias_or_name for join in select.args.get("joins") or [] if join.side == "LEFT"}
    for projection in select.expressions:
        for column in list(projection.find_all(exp.Column)):
            if column.table in optional:
                column.replace(exp.Coalesce(this=column.copy(), expressions=[exp.Literal.number(0)]))


def _corrections() -> Mapping[type, Callable[[Any], Any]]:
    from sqlglot import exp

    def count(node: Any) -> Any:
        if node.this is None:
            node.set("this", exp.Star())
        return node

    def named(node: Any) -> Any:
        name, arguments = str(node.this).lower(), node.expressions
        if name in _CASTS:
            return exp.cast(arguments[0], _CASTS[name])
        if name in _RENAMED:
            return exp.Anonymous(this=_RENAMED[name], expressions=arguments)
        match name:
            case "intdiv":
                return exp.Div(this=exp.Paren(this=arguments[0]), expression=arguments[1], typed=True, safe=False)
            case "bitmapcardinality":  # the hand-written CTE gives the count itself
                return arguments[0]
            case "bitmapandcardinality":
                return arguments[1]
            case _:
                return node

    def add(node: Any) -> Any:
        if isinstance(node.this, exp.Column) and node.this.name == "day" and isinstance(node.expression, exp.Literal):
            return exp.Anonymous(this="DATE_ADD", expressions=[exp.Literal.string("day"), node.expression, node.this])
        return node

    return {
        exp.Count: count,
        exp.AnonymousAggFunc: named,
        exp.Anonymous: named,
        exp.Add: add,
    }
