"""What the front has to know about a statement before the engine sees it, found with ClickHouse's own lexical rules.

Belongs here: cutting SQL into tokens, where inline insert data begins, which output format a query asks for, names that
have to be led elsewhere. Does not: a grammar (the engine has one), settings (set on the connection, never in the text).
Offsets are bytes: what follows an INSERT's FORMAT clause is data and need not be text.
Cutting a statement of 400 bytes takes 0.3 ms of Python: what a search in the text answers is not asked of its tokens.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from data_platform.local.clickhouse.config import QUERY_ID_SETTING

# One alternative per lexical class; strings escape by backslash and by doubling, heredocs end at their own tag.
_TOKEN = re.compile(
    rb"""
      (?P<space>\s+)
    | (?P<comment>--[^\n]*|//[^\n]*|\#[!\s][^\n]*)
    | (?P<block>/\*)
    | (?P<string>'(?:[^'\\]|\\.|'')*')
    | (?P<quoted>`(?:[^`\\]|\\.|``)*`|"(?:[^"\\]|\\.|"")*")
    | (?P<heredoc>\$(?P<tag>\w*)\$.*?\$(?P=tag)\$)
    | (?P<word>[A-Za-z_][A-Za-z0-9_$]*)
    | (?P<number>[0-9][A-Za-z0-9_.]*)
    | (?P<symbol>.)
    """,
    re.VERBOSE | re.DOTALL,
)
_ROWS = frozenset({b"SHOW", b"DESCRIBE", b"DESC", b"EXISTS", b"EXPLAIN", b"CHECK"})
_SILENT = frozenset({"space", "comment"})
_COMMENT_EDGE = re.compile(rb"/\*|\*/")
_OPENING, _CLOSING = (b"(", b"[", b"{"), (b")", b"]", b"}")
_AFTER_FORMAT = re.compile(rb"[ \t\f]*;?[ \t\f]*(?:\r?\n)?")
_SYSTEM_PROCESSES_BY_ID = (
    b"(SELECT * REPLACE (if(Settings['%(tag)s'] = '', query_id, Settings['%(tag)s']) AS query_id) "
    b"FROM system.processes)" % {b"tag": QUERY_ID_SETTING.encode()}
)


class Verb(StrEnum):
    """The statements the front treats differently: ROWS answers rows without being a SELECT; the rest is OTHER."""

    SELECT = "SELECT"
    INSERT = "INSERT"
    SET = "SET"
    USE = "USE"
    KILL = "KILL"
    ROWS = "ROWS"
    OTHER = "OTHER"


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of SQL; `word` is its upper-case form when it is a bare word, else empty."""

    kind: str
    text: bytes
    start: int
    end: int

    @property
    def word(self) -> bytes:
        """The keyword it may be."""
        return self.text.upper() if self.kind == "word" else b""

    @property
    def name(self) -> bytes:
        """The identifier it may be, without its quotes."""
        return self.text[1:-1] if self.kind == "quoted" else self.text if self.kind == "word" else b""


@dataclass(frozen=True, slots=True)
class InlineInsert:
    """An INSERT whose rows come with the statement.

    `sql[:target_end]` names the table and columns, `sql[:head_end]` adds the settings, `sql[data_start:]` are the rows.
    """

    target_end: int
    head_end: int
    format: str
    data_start: int
    from_input: bool = False  # INSERT ... SELECT ... FROM input(...)


def tokens(sql: bytes) -> Iterator[Token]:
    """The tokens that mean something, without spaces and comments; lazily, since data may follow."""
    position = 0
    while (match := _TOKEN.match(sql, position)) is not None:
        kind = str(match.lastgroup)
        position = match.end() if kind != "block" else _end_of_comment(sql, match.end())
        if kind != "block" and kind not in _SILENT:
            yield Token(kind, match.group(), match.start(), match.end())


def _end_of_comment(sql: bytes, position: int) -> int:
    """Behind a block comment that began before `position`; ClickHouse nests them."""
    depth = 1
    for edge in _COMMENT_EDGE.finditer(sql, position):
        depth += 1 if edge.group() == b"/*" else -1
        if depth == 0:
            return edge.end()
    return len(sql)


def verb(sql: bytes) -> Verb:
    """What kind of statement it is, by its first word (a query may begin with WITH, FROM or a parenthesis)."""
    for token in tokens(sql):
        if token.text == b"(":
            continue
        if token.word == b"WITH":
            return _verb_after_with(sql)
        if token.word == b"FROM":
            return Verb.SELECT
        if token.word in _ROWS:
            return Verb.ROWS
        word = token.word.decode()
        return Verb(word) if word in Verb.__members__ else Verb.OTHER
    return Verb.OTHER


def _verb_after_with(sql: bytes) -> Verb:
    for token, depth in _with_depth(tokens(sql)):
        if depth == 0 and token.word in (b"SELECT", b"INSERT", b"FROM"):
            return Verb.INSERT if token.word == b"INSERT" else Verb.SELECT
    return Verb.SELECT


def _with_depth(stream: Iterator[Token]) -> Iterator[tuple[Token, int]]:
    depth = 0
    for token in stream:
        if token.text in _CLOSING:
            depth -= 1
        yield token, depth
        if token.text in _OPENING:
            depth += 1


def output_format(sql: bytes) -> str | None:
    """The format the FORMAT clause of a query names, None without one."""
    if b"FORMAT" not in sql.upper():
        return None
    found = None
    previous = None
    for token, depth in _with_depth(tokens(sql)):
        if depth == 0 and previous is not None and previous.word == b"FORMAT" and token.kind == "word":
            found = token.text.decode()
        previous = token
    return found


def statements(sql: bytes) -> int:
    """How many statements the text holds (an INSERT's data must not be in it)."""
    if b";" not in sql:
        return int(any(True for _ in tokens(sql)))
    count, open_statement = 0, False
    for token in tokens(sql):
        if token.text == b";":
            open_statement = False
        elif not open_statement:
            count, open_statement = count + 1, True
    return count


def has_word(sql: bytes, *words: bytes) -> bool:
    """Whether one of the upper-case `words` stands in the statement as a bare word."""
    text = sql.upper()
    return any(word in text for word in words) and any(token.word in words for token in tokens(sql))


def changes_session(sql: bytes) -> bool:
    """Whether the statement leaves something in its session: SET, USE, a temporary table."""
    found = verb(sql)
    return found in (Verb.SET, Verb.USE) or (found is Verb.OTHER and has_word(sql, b"TEMPORARY"))


def inline_insert(sql: bytes) -> InlineInsert | None:
    """Where an INSERT's statement ends and its rows begin; None for an INSERT ... SELECT or FROM INFILE."""
    text = sql.upper()
    if b"FORMAT" not in text and b"VALUES" not in text:
        return None
    stream = _with_depth(_after_target(sql))
    selects = from_input = False
    settings: int | None = None
    for token, depth in stream:
        if token.word == b"INPUT":
            from_input = True
        if depth != 0:
            continue
        if token.word in (b"SELECT", b"WITH", b"FROM", b"WATCH"):
            selects = True
        elif token.word == b"INFILE":
            return None
        elif token.word == b"SETTINGS":
            settings = token.start
        elif token.word == b"VALUES" and not selects:
            target_end = token.start if settings is None else settings
            return InlineInsert(target_end, token.start, "Values", token.end)
        elif token.word == b"FORMAT":
            name, _ = next(stream, (None, 0))
            if name is None or name.kind != "word":
                continue
            if selects and not from_input:
                return None
            data = _AFTER_FORMAT.match(sql, name.end)
            start = data.end() if data is not None else name.end
            target_end = token.start if settings is None else settings
            return InlineInsert(target_end, token.start, name.text.decode(), start, from_input=selects)
    return None


def _after_target(sql: bytes) -> Iterator[Token]:
    """The tokens behind the table's name, which may itself be called `format` or `values`."""
    stream = tokens(sql)
    for token in stream:
        if token.word not in (b"INSERT", b"INTO", b"TABLE", b"FUNCTION"):
            break
    else:
        return
    for token in stream:
        if token.text == b".":
            next(stream, None)
            continue
        yield token
        break
    yield from stream


def input_call(sql: bytes) -> tuple[int, int] | None:
    """Start and end of `input(` in an INSERT ... SELECT ... FROM input('structure')."""
    previous = None
    for token in tokens(sql):
        if token.text == b"(" and previous is not None and previous.word == b"INPUT":
            return previous.start, token.end
        previous = token
    return None


def with_query_ids(sql: bytes) -> bytes:
    """The statement with query ids meaning the callers' ids.

    The engine gives every query an id of its own and cannot be told another, so the front writes the caller's into a
    setting. `KILL QUERY WHERE query_id = ...` compares that setting, and `system.processes` is read through a subquery
    that shows it (`system.query_log` is a view that does).
    """
    if b"query_id" not in sql and b"processes" not in sql.lower():
        return sql
    pieces: list[bytes] = []
    position = 0
    window: list[Token] = []
    kill = verb(sql) is Verb.KILL
    for token in tokens(sql):
        window = [*window[-2:], token]
        if kill and token.name == b"query_id":
            pieces += [sql[position : token.start], f"Settings['{QUERY_ID_SETTING}']".encode()]
            position = token.end
        elif not kill and _is_processes(window):
            pieces += [sql[position : window[0].start], _SYSTEM_PROCESSES_BY_ID]
            position = token.end
    return b"".join([*pieces, sql[position:]]) if pieces else sql


def _is_processes(window: list[Token]) -> bool:
    return (
        len(window) == 3
        and window[0].name.lower() == b"system"
        and window[1].text == b"."
        and window[2].name.lower() == b"processes"
    )


def answers_rows(sql: bytes) -> bool:
    """Whether a server names a result format in its answer: it does not for INSERT, DDL, SET."""
    return verb(sql) in (Verb.SELECT, Verb.ROWS, Verb.KILL)
