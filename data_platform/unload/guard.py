"""Which SQL a caller may have unloaded: one read-only SELECT over schemas of an allow-list. Pure; fails closed.

Allow-lists over the parsed tree and over the names that are called, not patterns of what is bad: what is not known is
refused, with the offending part and its position. The original text is what is sent; the database user's grants (SELECT
and ASSUMEROLE FOR UNLOAD only) are the second wall.
"""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING

from data_platform.unload.sqltext import PlainText, RefusedError, plain

if TYPE_CHECKING:
    from sqlglot import exp

MAX_SQL_CHARACTERS = 100_000


def _words(*lines: str) -> frozenset[str]:
    return frozenset(word for line in lines for word in line.split())


_NODES = _words(
    "Select Subquery Union Except Intersect With CTE From Join Table TableAlias Alias Column Identifier Star Literal",
    "Null Boolean Where Group Having Qualify Order Ordered Limit Offset Fetch Distinct Window WindowSpec WithinGroup",
    "Filter Paren Tuple DataType DataTypeParam Interval Var IgnoreNulls RespectNulls Between In Is Like ILike",
    "SimilarTo Escape Any All Not Neg BitwiseNot Case If AtTimeZone Cube Rollup GroupingSets Add Sub Mul Div Mod EQ",
    "NEQ GT GTE LT LTE DPipe JSONPath JSONPathRoot JSONPathKey JSONPathSubscript BitwiseAnd BitwiseOr BitwiseXor",
    "BitwiseLeftShift BitwiseRightShift RegexpLike RegexpILike Pivot PivotAlias",
)
# Functions without parentheses tell no name to the check of calls: these are the ones that may stand.
_BARE_FUNCTIONS = frozenset({"CurrentDate", "CurrentTime", "CurrentTimestamp", "CurrentDatetime"})
_BARE_PREFIXES = ("Current", "Session", "Local", "Systimestamp", "Utc")
_CALL = re.compile(r'(\.\s*)?("[^"]+"|[^\W\d][\w$]*)\s*\(')
# Words that may stand before a parenthesis without being called: keywords, and types with a length.
_NOT_CALLED = _words(
    "all and any as asc between by case cube desc distinct else end except exists filter first from group having ilike",
    "in intersect interval is join last like limit minus not null nulls on or order over partition pivot qualify",
    "recursive rollup rows select sets similar some then to union unpivot using when where with within",
    "varchar character varying char nchar nvarchar bpchar text numeric decimal float timestamp timestamptz time timetz",
    "varbyte varbinary binary",
)


@dataclass(frozen=True)
class GuardedQuery:
    """A query that may be sent. `sql` is the caller's text less one closing semicolon.

    `columns` are the output names in lower case, None where a star hides them.
    """

    sql: str
    columns: tuple[str, ...] | None
    tables: tuple[str, ...]


@cache
def allowed_functions() -> frozenset[str]:
    """Names that may be called, in lower case: Redshift's own functions without effects, one list in functions.txt."""
    text = (files("data_platform.unload") / "functions.txt").read_text(encoding="utf-8")
    lines = (line.partition("#")[0] for line in text.splitlines())
    return frozenset(word for line in lines for word in line.split())


def guard(sql: str, schemas: Collection[str]) -> GuardedQuery:
    """Admit `sql` for a caller who may read `schemas`. Raises RefusedError with the part and its position."""
    return _guard(sql, frozenset(schema.lower() for schema in schemas))


@lru_cache(maxsize=512)
def _guard(sql: str, schemas: frozenset[str]) -> GuardedQuery:
    if len(sql) > MAX_SQL_CHARACTERS:
        raise RefusedError(f"the statement has {len(sql)} characters, {MAX_SQL_CHARACTERS} are allowed")
    text = plain(sql)
    root = _parse(text)
    _check_root(root, sql)
    nodes = list(root.walk())
    for node in nodes:
        _check_node(node, sql)
    _check_calls(nodes, text, sql)
    tables = tuple(_tables(nodes, sql, schemas))
    _check_qualifiers(nodes, sql)
    sent = sql if text.semicolon is None else f"{sql[: text.semicolon]} {sql[text.semicolon + 1 :]}"
    return GuardedQuery(sent, _columns(root), tuple(dict.fromkeys(tables)))


def _parse(text: PlainText) -> "exp.Query":
    from sqlglot import exp, parse
    from sqlglot.errors import ParseError, SqlglotError

    if not text.text.strip():
        raise RefusedError("there is no statement")
    try:
        statements = parse(text.text, dialect="redshift")
    except ParseError as error:
        first = error.errors[0] if error.errors else {}
        part = str(first.get("highlight") or "")
        reason = f"the statement cannot be read: {first.get('description') or 'not SQL'}"
        raise RefusedError(
            reason, part=part, position=_offset(text.text, first.get("line"), first.get("col"))
        ) from None
    except SqlglotError:
        raise RefusedError("the statement cannot be read") from None
    except RecursionError:
        raise RefusedError("the statement is nested too deeply") from None
    except (ValueError, TypeError, AttributeError, KeyError, IndexError):
        # The parser's own faults: what it cannot read nobody vouches for.
        raise RefusedError("the statement cannot be read") from None
    if len(statements) != 1 or statements[0] is None:
        raise RefusedError("one statement only")
    if not isinstance(statements[0], exp.Query):
        word = text.text.split(None, 1)[0]
        raise RefusedError("only a SELECT can be unloaded", part=word, position=text.text.index(word) + 1)
    return statements[0]


def _offset(text: str, line: object, column: object) -> int | None:
    """The position from 1 of the parser's line and column (of the token's last character, as it counts)."""
    if not isinstance(line, int) or not isinstance(column, int):
        return None
    lines = text.split("\n")
    return sum(len(each) + 1 for each in lines[: line - 1]) + max(column, 1)


def _check_root(root: "exp.Query", sql: str) -> None:
    """UNLOAD takes a SELECT, a set operation or either in parentheses, without an outer LIMIT or TOP."""
    from sqlglot import exp

    inner: exp.Expr | None = root
    while inner is not None:
        if not isinstance(inner, exp.Select | exp.SetOperation | exp.Subquery):
            raise RefusedError("only a SELECT can be unloaded", part=type(inner).__name__.upper())
        if isinstance(inner, exp.Select) and not inner.expressions:
            raise RefusedError("the SELECT names no columns")
        limit = inner.args.get("limit")
        if limit is not None:
            raise RefusedError(
                "UNLOAD takes no outer LIMIT or TOP; nest it: select * from (select ... limit n)",
                part=_text(limit, sql) or "LIMIT",
                position=_position(limit),
            )
        inner = inner.this if isinstance(inner, exp.Subquery) else None


def _check_node(node: "exp.Expr", sql: str) -> None:
    from sqlglot import exp

    name = type(node).__name__
    if isinstance(node, exp.Func) and not isinstance(node, exp.Unnest):
        if name.startswith(_BARE_PREFIXES) and name not in _BARE_FUNCTIONS:
            raise RefusedError("this function is not allowed", part=_text(node, sql) or node.sql_name(),
                               position=_position(node))  # fmt: skip
        return
    if name not in _NODES:
        raise RefusedError(f"{name} is not allowed in a query that is unloaded", part=_text(node, sql),
                           position=_position(node))  # fmt: skip


def _check_calls(nodes: "list[exp.Expr]", text: PlainText, sql: str) -> None:
    """Every `name (` is a function of the list; functions of a schema are users' own and may do anything."""
    from sqlglot import exp

    heads = {
        identifier.meta.get("start")
        for node in nodes
        if isinstance(node, exp.TableAlias) and node.columns and (identifier := node.this) is not None
    }
    without_literals = _blank_literals(text.text)
    for found in _CALL.finditer(without_literals):
        start = found.start(2)
        name = found.group(2)
        plain_name = name.strip('"').lower()
        if found.group(1):
            raise RefusedError("functions of a schema are not allowed", part=sql[start : found.end()],
                               position=start + 1)  # fmt: skip
        if start in heads or (not name.startswith('"') and plain_name in _NOT_CALLED):
            continue
        if plain_name not in allowed_functions():
            raise RefusedError("this function is not allowed", part=name, position=start + 1)


def _blank_literals(text: str) -> str:
    return re.sub(r"'[^']*'", lambda found: "'" + " " * (len(found.group()) - 2) + "'", text)


def _tables(nodes: "list[exp.Expr]", sql: str, schemas: frozenset[str]) -> Iterator[str]:
    from sqlglot import exp

    for node in nodes:
        if not isinstance(node, exp.Table):
            continue
        position = _position(node)
        if not isinstance(node.this, exp.Identifier):
            raise RefusedError("only tables can be read from", part=_text(node, sql), position=position)
        name, schema = node.name, node.db
        if node.catalog:
            raise RefusedError("another database cannot be read", part=node.catalog, position=position, forbidden=True)
        if not schema:
            if _is_cte(node):
                continue
            raise RefusedError(f"name the schema of table {name}; allowed: {_listed(schemas)}", part=name,
                               position=position, forbidden=True)  # fmt: skip
        if schema.lower() not in schemas:
            raise RefusedError(f"schema {schema} is not allowed to you; allowed: {_listed(schemas)}",
                               part=f"{schema}.{name}", position=position, forbidden=True)  # fmt: skip
        yield f"{schema.lower()}.{name.lower()}"


def _check_qualifiers(nodes: "list[exp.Expr]", sql: str) -> None:
    """Every `name.` before a column is a table of the query: old servers add a missing one to FROM by themselves."""
    from sqlglot import exp

    known = {each.alias_or_name.lower() for each in nodes if isinstance(each, exp.Table | exp.Subquery)}
    for node in nodes:
        if isinstance(node, exp.Column) and node.table and node.table.lower() not in known:
            raise RefusedError(f"{node.table} is no table of this query", part=_text(node, sql),
                               position=_position(node))  # fmt: skip


def _listed(schemas: frozenset[str]) -> str:
    return ", ".join(sorted(schemas)) or "none"


def _is_cte(table: "exp.Table") -> bool:
    """Whether the bare name is, where it stands, a common table expression: one defined before it, in its own WITH."""
    from sqlglot import exp

    name = table.name.lower()
    child: exp.Expr = table
    parent = table.parent
    while parent is not None:
        if isinstance(parent, exp.With):
            siblings = parent.expressions
            at = next(i for i, each in enumerate(siblings) if each is child)
            visible = siblings[: at + 1] if parent.recursive else siblings[:at]
        else:
            clause = parent.args.get("with_")
            visible = clause.expressions if isinstance(clause, exp.With) and clause is not child else []
        if any(cte.alias.lower() == name for cte in visible):
            return True
        child, parent = parent, parent.parent
    return False


def _columns(root: "exp.Query") -> tuple[str, ...] | None:
    from sqlglot import exp

    names = [select.alias_or_name.lower() for select in root.selects if isinstance(select, exp.Column | exp.Alias)]
    return tuple(names) if len(names) == len(root.selects) and "*" not in names else None


def _position(node: "exp.Expr") -> int | None:
    """The first character of the node, from 1, as far as the parser knows."""
    starts = [start for each in node.walk() if isinstance(start := each.meta.get("start"), int)]
    return min(starts) + 1 if starts else None


def _text(node: "exp.Expr", sql: str) -> str:
    marks = [(each.meta["start"], each.meta["end"]) for each in node.walk() if "start" in each.meta]
    return sql[min(start for start, _ in marks) : max(end for _, end in marks) + 1] if marks else ""
