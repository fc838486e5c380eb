r"""Where comments and literals of a SQL text are, read as Redshift reads them. Pure; what is allowed is guard.py.

The guard's parser gets a text of the same length without comments, escapes and odd characters, so that nothing can be a
comment to the parser and a statement to the warehouse, or the other way round.
"""

from dataclasses import dataclass

from data_platform.errors import PlatformError

MAX_PARENTHESES = 40
# Everything Redshift's grammar for queries needs outside literals, comments and names.
_PUNCTUATION = frozenset("(),.+-*/%<>=!|&~^:;")
_SPACE = frozenset(" \t\r\n\f")


class RefusedError(PlatformError):
    """The text is not sent to the warehouse; `part` is the offending text, `position` its first character from 1.

    `forbidden`: the statement is well-formed, only this caller may not run it.
    """

    def __init__(self, reason: str, *, part: str = "", position: int | None = None, forbidden: bool = False) -> None:
        where = "" if position is None else f" at character {position}"
        shown = f": {part[:80]!r}" if part else ""
        super().__init__(f"{reason}{where}{shown}")
        self.reason = reason
        self.part = part[:80]
        self.position = position
        self.forbidden = forbidden


@dataclass(frozen=True)
class PlainText:
    """A text of the same length as the original: comments are spaces, literals hold no quote and no backslash."""

    text: str
    semicolon: int | None  # where the one closing semicolon stands


def plain(sql: str) -> PlainText:
    """Read `sql`. Raises RefusedError at the first character that has no business in one query."""
    return _Reader(sql).read()


class _Reader:
    def __init__(self, sql: str) -> None:
        self._sql = sql
        self._out = list(sql)
        self._at = 0
        self._depth = 0
        self._semicolon: int | None = None

    def read(self) -> PlainText:
        sql = self._sql
        if "\0" in sql:
            raise RefusedError("a NUL character cannot be sent", position=sql.index("\0") + 1)
        if any("\ud800" <= char <= "\udfff" for char in sql):
            raise RefusedError("half a surrogate pair cannot be sent")
        while self._at < len(sql):
            char, following = sql[self._at], sql[self._at + 1 : self._at + 2]
            if char == "-" and following == "-":
                self._line_comment()
            elif char == "/" and following == "*":
                self._block_comment()
            elif char == "'":
                self._literal()
            elif char == '"':
                self._quoted_name()
            else:
                self._character(char)
        return PlainText("".join(self._out), self._semicolon)

    def _character(self, char: str) -> None:
        position = self._at + 1
        if char in _SPACE:
            self._at += 1
            return
        if self._semicolon is not None:
            raise RefusedError("one statement only: there is more after the semicolon", part=self._rest(),
                               position=position)  # fmt: skip
        if char == ";":
            self._semicolon = self._at
            self._out[self._at] = " "
        elif char == "(":
            self._depth += 1
            if self._depth > MAX_PARENTHESES:
                raise RefusedError(f"more than {MAX_PARENTHESES} parentheses in each other", position=position)
        elif char == ")":
            self._depth -= 1
        elif char == "$":
            if self._at == 0 or not _in_name(self._sql[self._at - 1]):
                raise RefusedError("parameters and dollar quotes are not allowed", part=self._rest(), position=position)
        elif not (_in_name(char) or char in _PUNCTUATION):
            raise RefusedError("a character that no query needs here", part=char, position=position)
        self._at += 1

    def _line_comment(self) -> None:
        # PostgreSQL, and so Redshift, ends it at either character.
        while self._at < len(self._sql) and self._sql[self._at] not in "\r\n":
            self._blank()

    def _block_comment(self) -> None:
        start, depth = self._at, 0
        while self._at < len(self._sql):
            pair = self._sql[self._at : self._at + 2]
            if pair in {"/*", "*/"}:
                depth += 1 if pair == "/*" else -1
                self._blank()
                self._blank()
                if depth == 0:
                    return
            else:
                self._blank()
        raise RefusedError("a comment that does not end", part=self._sql[start:], position=start + 1)

    def _literal(self) -> None:
        start = self._at
        self._not_after_semicolon()
        if start and _in_name(self._sql[start - 1]):
            word = self._word_before(start)
            raise RefusedError("prefixed literals (E'', U&'', B'', X'', N'') are not allowed", part=f"{word}'",
                               position=start + 1 - len(word))  # fmt: skip
        self._at += 1
        while self._at < len(self._sql):
            char = self._sql[self._at]
            if char == "\\":
                self._mask()
                if self._at < len(self._sql):
                    self._mask()
            elif char == "'" and self._sql[self._at + 1 : self._at + 2] == "'":
                self._mask()
                self._mask()
            elif char == "'":
                self._at += 1
                return
            else:
                self._at += 1
        raise RefusedError("a literal that does not end", part=self._sql[start:], position=start + 1)

    def _quoted_name(self) -> None:
        start = self._at
        self._not_after_semicolon()
        if start and (_in_name(self._sql[start - 1]) or self._sql[start - 1] == "&"):
            raise RefusedError("prefixed names are not allowed", part=self._sql[start - 1 :], position=start)
        end = self._sql.find('"', start + 1)
        if end < 0:
            raise RefusedError("a quoted name that does not end", part=self._sql[start:], position=start + 1)
        name = self._sql[start + 1 : end]
        if not name or self._sql[end + 1 : end + 2] == '"' or "\\" in name or not name.isprintable():
            raise RefusedError("a quoted name with quotes, backslashes or control characters in it, or an empty one",
                               part=self._sql[start : end + 2], position=start + 1)  # fmt: skip
        self._at = end + 1

    def _not_after_semicolon(self) -> None:
        if self._semicolon is not None:
            raise RefusedError("one statement only: there is more after the semicolon", part=self._rest(),
                               position=self._at + 1)  # fmt: skip

    def _word_before(self, end: int) -> str:
        start = end
        while start and _in_name(self._sql[start - 1]):
            start -= 1
        return self._sql[start:end]

    def _rest(self) -> str:
        return self._sql[self._at :]

    def _blank(self) -> None:
        if self._out[self._at] not in "\r\n":
            self._out[self._at] = " "
        self._at += 1

    def _mask(self) -> None:
        self._out[self._at] = "x"
        self._at += 1


def _in_name(char: str) -> bool:
    return char in {"_", "$"} or char.isalnum()
