"""The words of an UNLOAD statement: comments, quoted strings with both kinds of escape, dollar quotes, numbers, names.

Lexical only: knows no option and no rule of UNLOAD.
"""

import re
from dataclasses import dataclass
from enum import Enum

from data_platform.local.warehouse.unload.contract import WarehouseError


class Kind(Enum):
    """What a token is."""

    WORD = "word"
    STRING = "string"
    IDENTIFIER = "quoted identifier"
    NUMBER = "number"
    SYMBOL = "symbol"
    END = "end"


@dataclass(frozen=True)
class Token:
    """`text` is the value (a string is already un-quoted), `raw` what was written, `position` 1-based."""

    kind: Kind
    text: str
    raw: str
    position: int

    def is_word(self, *words: str) -> bool:
        """Whether it is one of these key words (given in upper case)."""
        return self.kind is Kind.WORD and self.text.upper() in words


_SKIP = re.compile(r"(?:\s+|--[^\r\n]*)+")
_WORD = re.compile(r"[^\W\d][\w$]*")
_NUMBER = re.compile(r"\d+(?:\.\d*)?|\.\d+")
_STRING = re.compile(r"'((?:[^'\\]++|\\.|'')*+)'", re.DOTALL)
_IDENTIFIER = re.compile(r'"((?:[^"]|"")+)"')
_DOLLAR = re.compile(r"\$([^\W\d]\w*)?\$")
_COMMENT_EDGE = re.compile(r"/\*|\*/")
_ESCAPE = re.compile(r"''|\\(?:([0-7]{1,3})|x([0-9A-Fa-f]{1,2})|(.))", re.DOTALL)
_LETTER_ESCAPES = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}


def tokenize(text: str) -> list[Token]:
    """All tokens of `text`, comments left out, an END token last. Raises WarehouseError 42601 with the position."""
    tokens: list[Token] = []
    at = 0
    while (at := skip_blank(text, at)) < len(text):
        token, at = _next(text, at)
        tokens.append(token)
    tokens.append(Token(Kind.END, "", "", len(text) + 1))
    return tokens


def skip_blank(text: str, at: int) -> int:
    """The index of the first character that is neither white space nor a comment."""
    while True:
        if blank := _SKIP.match(text, at):
            at = blank.end()
        elif text.startswith("/*", at):
            at = _end_of_comment(text, at)
        else:
            return at


def _end_of_comment(text: str, start: int) -> int:
    """Block comments nest, as in PostgreSQL."""
    depth = 0
    for edge in _COMMENT_EDGE.finditer(text, start):
        depth += 1 if edge.group() == "/*" else -1
        if depth == 0:
            return edge.end()
    raise WarehouseError("42601", "unterminated /* comment", position=start + 1)


def _next(text: str, at: int) -> tuple[Token, int]:
    character = text[at]
    if character == "'":
        if not (found := _STRING.match(text, at)):
            raise WarehouseError("42601", "unterminated quoted string", position=at + 1)
        return Token(Kind.STRING, unquote(found.group(1), at + 1), found.group(), at + 1), found.end()
    if character == '"':
        if not (found := _IDENTIFIER.match(text, at)):
            raise WarehouseError("42601", "unterminated or zero-length quoted identifier", position=at + 1)
        return Token(Kind.IDENTIFIER, found.group(1).replace('""', '"'), found.group(), at + 1), found.end()
    if character == "$" and (tag := _DOLLAR.match(text, at)):
        end = text.find(tag.group(), tag.end())
        if end < 0:
            raise WarehouseError("42601", "unterminated dollar-quoted string", position=at + 1)
        stop = end + len(tag.group())
        return Token(Kind.STRING, text[tag.end() : end], text[at:stop], at + 1), stop
    for kind, pattern in ((Kind.WORD, _WORD), (Kind.NUMBER, _NUMBER)):
        if found := pattern.match(text, at):
            return Token(kind, found.group(), found.group(), at + 1), found.end()
    return Token(Kind.SYMBOL, character, character, at + 1), at + 1


def unquote(body: str, position: int | None = None) -> str:
    """The text a quoted literal means: `''` is a quote, a backslash escapes (octal and \\x give bytes of UTF-8).

    Raises WarehouseError 22021 when escaped bytes are no UTF-8.
    """
    out = bytearray()
    at = 0
    for found in _ESCAPE.finditer(body):
        out += body[at : found.start()].encode()
        octal, hexadecimal, letter = found.groups()
        if octal:
            out.append(int(octal, 8) & 0xFF)
        elif hexadecimal:
            out.append(int(hexadecimal, 16))
        elif letter:
            out += _LETTER_ESCAPES.get(letter, letter).encode()
        else:
            out += b"'"
        at = found.end()
    out += body[at:].encode()
    try:
        return out.decode()
    except UnicodeDecodeError as error:
        raise WarehouseError("22021", 'invalid byte sequence for encoding "UTF8"', position=position) from error
