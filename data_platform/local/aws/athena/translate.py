"""Athena's SQL -> DuckDB's: parsed as Athena's, checked as Athena would, with what the two read differently corrected.

sqlglot translates words; the corrections here are where the same words mean something else, mostly without an error.
"""

import re
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any, cast

import sqlglot
from sqlglot import exp
from sqlglot.errors import OptimizeError, ParseError, SqlglotError, TokenError
from sqlglot.optimizer.annotate_types import annotate_types
from sqlglot.optimizer.qualify import qualify
from sqlglot.tokenizer_core import TokenType

from data_platform.local.aws.athena.errors import QueryFailedError
from data_platform.local.aws.athena.functions import FUNCTIONS

# One macro a line. Athena's AT TIME ZONE reads a timestamp as UTC, DuckDB's as local time: the wrong day otherwise.
MACROS = r"""
t_at_zone(t TIMESTAMP, z VARCHAR) AS timezone(z, timezone('UTC', t)), (t TIMESTAMPTZ, z VARCHAR) AS timezone(z, t)
t_with_zone(t, z) AS timezone(z, t::TIMESTAMP)
t_plus(d DATE, i INTERVAL) AS CAST(d + i AS DATE), (d TIMESTAMP, i INTERVAL) AS d + i, (d TIMESTAMPTZ, i INTERVAL) AS d + i
t_trunc(u, d DATE) AS CAST(date_trunc(u, d) AS DATE), (u, d TIMESTAMP) AS date_trunc(u, d), (u, d TIMESTAMPTZ) AS date_trunc(u, d)
t_divide(a, b) AS CASE WHEN b = 0 THEN error('DIVISION_BY_ZERO: Division by zero') ELSE a // b END
t_map_get(m, k) AS CASE WHEN m IS NULL THEN NULL WHEN NOT map_contains(m, k) THEN error('INVALID_FUNCTION_ARGUMENT: Key not present in map: ' || k::VARCHAR) ELSE m[k] END
t_numbers(a, b) AS generate_series(a, b, CASE WHEN a <= b THEN 1 ELSE -1 END)
t_greatest(a) AS CASE WHEN len(list_filter(a, lambda x: x IS NULL)) > 0 THEN NULL ELSE list_max(a) END
t_least(a) AS CASE WHEN len(list_filter(a, lambda x: x IS NULL)) > 0 THEN NULL ELSE list_min(a) END
t_position(a, e) AS coalesce(list_position(a, e), 0)
t_slice(a, s, n) AS list_slice(a, s, s + n - 1)
t_bucket(x, bins) AS len(list_filter(bins, lambda b: b <= x))
t_to_integer(x) AS floor(x + 0.5)
t_extract(s, p, g) AS CASE WHEN regexp_matches(s, p) THEN regexp_extract(s, p, g) END
map_agg(k, v) AS map_from_entries(list({'k': k, 'v': v}))
every(x) AS bool_and(x)
array_union(a, b) AS list_distinct(list_concat(a, b))
arrays_overlap(a, b) AS list_has_any(a, b)
nan() AS 'nan'::DOUBLE
infinity() AS 'inf'::DOUBLE
to_iso8601(d DATE) AS strftime(d, '%Y-%m-%d'), (d TIMESTAMP) AS strftime(d, '%Y-%m-%dT%H:%M:%S.%g'), (d TIMESTAMPTZ) AS strftime(d, '%Y-%m-%dT%H:%M:%S.%gZ')
"""  # noqa: E501 - a macro is one line

Schema = Mapping[str, Mapping[str, Mapping[str, str]]]  # database, table, column: Trino's type
_INTEGERS = exp.DataType.INTEGER_TYPES
_DOUBLES = {exp.DataType.Type.DOUBLE, exp.DataType.Type.FLOAT}
_KINDS: Mapping[str, set[Any]] = {
    "varchar": set(exp.DataType.TEXT_TYPES),
    "number": set(exp.DataType.NUMERIC_TYPES),
    "date": {exp.DataType.Type.DATE},
    "timestamp": set(exp.DataType.TEMPORAL_TYPES) - {exp.DataType.Type.DATE},
    "boolean": {exp.DataType.Type.BOOLEAN},
}
_COMPARABLE = {frozenset({"date", "timestamp"})}
_UNRESOLVED = re.compile(r"[Cc]olumn '?\"?([^'\" ]+(?:\"\.\"[^'\" ]+)?)'?\"? could not be resolved")


def macros() -> str:
    """The statements that make the functions the translation calls."""
    return "; ".join(f"CREATE MACRO {line}" for line in MACROS.strip().splitlines())


def parse(sql: str) -> exp.Expr:
    """One statement of Athena's. Raises QueryFailedError for what Athena would refuse at once."""
    try:
        tokens = sqlglot.tokenize(sql, read="athena")
        statements = sqlglot.parse(sql, read="athena")
    except (ParseError, TokenError) as error:
        raise QueryFailedError("SYNTAX_ERROR", str(error).splitlines()[0]) from None
    if len(statements) != 1 or statements[0] is None:
        raise QueryFailedError("SYNTAX_ERROR", "Only one sql statement is allowed")
    for token, following in pairwise(tokens):
        if token.token_type == TokenType.ILIKE:
            raise QueryFailedError("SYNTAX_ERROR", f"line {token.line}:{token.col}: mismatched input 'ILIKE'")
        call = following.token_type == TokenType.L_PAREN and token.text.replace("_", "").isalnum()
        quoted = token.token_type in {TokenType.IDENTIFIER, TokenType.STRING, TokenType.NUMBER}
        if call and not quoted and token.text.lower() not in FUNCTIONS and not _names_something(tokens, token):
            raise QueryFailedError(
                "FUNCTION_NOT_FOUND", f"line {token.line}:{token.col}: Function '{token.text}' not registered"
            )
    return statements[0]


def to_duckdb(query: exp.Expr, schema: Schema) -> tuple[exp.Expr, str]:
    """The query with every column traced to its table, and its text for DuckDB. Raises QueryFailedError."""
    try:
        qualified = qualify(
            query.copy(), schema=cast("Any", schema), dialect="athena", quote_identifiers=False, expand_alias_refs=False
        )
    except OptimizeError as error:
        missing = _UNRESOLVED.search(str(error))
        if missing is not None:
            name = missing[1].replace('"', "")
            raise QueryFailedError("COLUMN_NOT_FOUND", f"line 1:1: Column '{name}' cannot be resolved") from None
        raise QueryFailedError("SYNTAX_ERROR", str(error).splitlines()[0]) from None
    except SqlglotError as error:
        raise QueryFailedError("SYNTAX_ERROR", str(error).splitlines()[0]) from None
    typed = annotate_types(qualified, schema=cast("Any", schema), dialect="athena")
    _check(typed)
    return qualified, _corrected(typed.copy()).sql("duckdb")


def _names_something(tokens: list[Any], token: Any) -> bool:
    """Whether a word before a parenthesis is a name: of a CTE or an alias with columns, or follows a dot."""
    index = tokens.index(token)
    before = tokens[index - 1].text.lower() if index else ""
    return before in {"as", "with", ",", ".", ")", "into", "table", "recursive"} and token.text.islower()


def _check(query: exp.Expr) -> None:
    for node in query.find_all(exp.EQ, exp.NEQ, exp.GT, exp.GTE, exp.LT, exp.LTE, exp.In, exp.Between):
        others = [node.args.get(name) for name in ("expression", "low", "high")] + list(node.expressions)
        mine = _kind(node.this)
        for other in others:
            theirs = None if other is None else _kind(other)
            if mine and theirs and mine != theirs and frozenset({mine, theirs}) not in _COMPARABLE:
                raise QueryFailedError("TYPE_MISMATCH", f"line 1:1: Cannot apply operator: {mine} = {theirs}")
    for window in query.find_all(exp.Window):
        if window.this.find(exp.Distinct):
            raise QueryFailedError("NOT_SUPPORTED", "DISTINCT in window function parameters not yet supported")


def _kind(node: Any) -> str | None:
    type_ = _type(node)
    return next((name for name, types in _KINDS.items() if type_ in types), None)


def _type(node: Any) -> Any:
    return node.type.this if isinstance(node, exp.Expr) and node.type is not None else exp.DataType.Type.UNKNOWN


def _call(name: str, *arguments: Any) -> exp.Expr:
    return exp.Anonymous(this=name, expressions=[each for each in arguments if each is not None])


def _unit(node: exp.Expr) -> exp.Expr:
    unit = node.args.get("unit")
    return exp.Literal.string("day" if unit is None else unit.name.lower())


def _one(unit: exp.Expr) -> exp.Interval:
    return exp.Interval(this=exp.Literal.string("1"), unit=exp.var(unit.name))


def _corrected(root: exp.Expr) -> exp.Expr:
    """Correct bottom-up, so that a node's children are DuckDB's already and its own type is still Athena's."""
    for node in reversed(list(root.walk(bfs=False))):
        correct = next((each for kind, each in _CORRECTIONS.items() if isinstance(node, kind)), None)
        if correct is None:
            continue
        better = correct(node)
        if better is not node:
            better.type = node.type
            if node is root:
                root = better
            else:
                node.replace(better)
    return root


def _date_add(node: Any) -> exp.Expr:
    return _call("t_plus", node.this, exp.Mul(this=exp.Paren(this=node.expression), expression=_one(_unit(node))))


def _plus_interval(node: Any) -> exp.Expr:
    left, right = node.this, node.expression
    if isinstance(left, exp.Interval):
        left, right = right, left
    if not isinstance(right, exp.Interval):
        return node
    return _call("t_plus", left, exp.Neg(this=right) if isinstance(node, exp.Sub) else right)


def _div(node: Any) -> exp.Expr:
    left, right = _type(node.this), _type(node.expression)
    if left in _INTEGERS and right in _INTEGERS:
        return _call("t_divide", node.this, node.expression)
    node.set("typed", False)
    return node


def _sequence(node: Any) -> exp.Expr:
    start, end, step = node.args["start"], node.args["end"], node.args.get("step")
    temporal = _kind(start) in {"date", "timestamp"} or isinstance(step, exp.Interval)
    if not temporal:
        return node if step is not None else _call("t_numbers", start, end)
    # Written out: a macro of several forms inside a lateral join breaks DuckDB's binder.
    series = _call("generate_series", start, end, step or _one(exp.Literal.string("day")))
    return exp.cast(series, "DATE[]", dialect="duckdb") if _kind(start) == "date" else series


def _cast(node: Any) -> exp.Expr:
    if node.to.this in _INTEGERS and _type(node.this) in _DOUBLES:
        node.set("this", _call("t_to_integer", node.this))
    return node


def _bracket(node: Any) -> exp.Expr:
    if len(node.expressions) == 1 and node.expressions[0].is_string:
        return _call("t_map_get", node.this, node.expressions[0])
    if any(index.find(exp.Column) for index in node.expressions):
        node.set("offset", 1)  # the parser shifts constant positions only, the generator all whose type is known
    return node


def _unnest(node: Any) -> exp.Expr:
    """Rows of an array of rows come out as columns in Athena; DuckDB gives them as one struct."""
    alias: Any = node.args.get("alias")
    columns = [] if alias is None else list(alias.columns)
    if len(node.expressions) != 1 or len(columns) < 2 or node.args.get("offset"):
        return node
    array = node.expressions[0]
    is_map = _type(array) == exp.DataType.Type.MAP
    source = _call("map_entries", array) if is_map else array
    inner = exp.select(exp.alias_(_call("unnest", source), "item"))
    outer = exp.select(
        *(
            exp.alias_(_call("struct_extract_at", exp.column("item"), exp.Literal.number(n + 1)), column.name)
            for n, column in enumerate(columns)
        )
    ).from_(inner.subquery("items"))
    return outer.subquery(node.alias or "items")


def _anonymous(node: Any) -> exp.Expr:
    arguments = node.expressions
    match node.name.lower():
        case "with_timezone":
            return _call("t_with_zone", *arguments)
        case "at_timezone":
            return _call("t_at_zone", *arguments)
        case "any_match":
            return _call("coalesce", _call("list_bool_or", _call("list_transform", *arguments)), exp.false())
        case "all_match":
            return _call("coalesce", _call("list_bool_and", _call("list_transform", *arguments)), exp.true())
        case _:
            return node


def _extract(node: Any) -> exp.Expr:
    if node.this.name.upper() in {"DOW", "DAY_OF_WEEK"}:
        node.set("this", exp.var("ISODOW"))  # Athena's week begins with Monday = 1
    return node


def _row(node: Any) -> exp.Expr:
    return _call("row", *node.expressions)


_CORRECTIONS: Mapping[type[exp.Expr], Callable[[Any], exp.Expr]] = {
    exp.AtTimeZone: lambda node: _call("t_at_zone", node.this, node.args["zone"]),
    exp.DateDiff: lambda node: _call("date_sub", _unit(node), node.expression, node.this),
    exp.DateAdd: _date_add,
    exp.Add: _plus_interval,
    exp.Sub: _plus_interval,
    exp.TimestampTrunc: lambda node: _call("t_trunc", _unit(node), node.this),
    exp.DateTrunc: lambda node: _call("t_trunc", _unit(node), node.this),
    exp.Extract: _extract,
    exp.Div: _div,
    exp.Greatest: lambda node: _call("t_greatest", exp.Array(expressions=[node.this, *node.expressions])),
    exp.Least: lambda node: _call("t_least", exp.Array(expressions=[node.this, *node.expressions])),
    exp.Bracket: _bracket,
    exp.ArraySize: lambda node: _call("cardinality" if _type(node.this) == exp.DataType.Type.MAP else "len", node.this),
    exp.GenerateSeries: _sequence,
    exp.RegexpExtract: lambda node: _call(
        "t_extract", node.this, node.expression, node.args.get("group") or exp.Literal.number(0)
    ),
    exp.ArrayPosition: lambda node: _call("t_position", node.this, node.expression),
    exp.WidthBucket: lambda node: (
        node if node.args.get("num_buckets") else _call("t_bucket", node.this, node.args["min_value"])
    ),
    exp.Cast: _cast,
    exp.Unnest: _unnest,
    exp.Tuple: lambda node: _row(node) if isinstance(node.parent, exp.Array) else node,
    exp.Anonymous: _anonymous,
}
