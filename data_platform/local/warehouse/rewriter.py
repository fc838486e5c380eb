"""Walks the tokens of a SQL text and puts replacements in, everything else staying as written.

Which words and calls are replaced is decided by calls.py, which statements are rebuilt by layout.py.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from sqlglot.tokenizer_core import Token, TokenType

Rewrite = tuple[str, int]
"""A replacement, and the index of the token behind what it replaces."""


def is_word(token: Token, *words: str) -> bool:
    """Whether it is one of these words (upper case), not quoted."""
    return (
        token.token_type not in {TokenType.STRING, TokenType.IDENTIFIER, TokenType.HEREDOC_STRING}
        and token.text.upper() in words
    )


@dataclass(frozen=True)
class Call:
    """A function call: where its name is, its arguments as token ranges, the index behind its closing parenthesis."""

    name: int
    arguments: list[tuple[int, int]]
    end: int


@dataclass
class Rewriter:
    """Walks the tokens of a text; `render` gives the translated text of a range of them, gaps between them kept."""

    text: str
    tokens: list[Token]
    calls: Mapping[str, "Callable[[Rewriter, Call], Rewrite | None]"]
    words: Mapping[str, "Callable[[Rewriter, int, int], Rewrite | None]"]
    closing: dict[int, int] = field(default_factory=dict[int, int])

    def __post_init__(self) -> None:
        open_ones: list[int] = []
        for index, token in enumerate(self.tokens):
            if token.token_type is TokenType.L_PAREN:
                open_ones.append(index)
            elif token.token_type is TokenType.R_PAREN and open_ones:
                self.closing[open_ones.pop()] = index

    def statements(self, statement: "Callable[[Rewriter, int, int], str]") -> str:
        """The whole text, each statement (a range of tokens) as `statement` gives it."""
        pieces: list[str] = []
        start, at = 0, 0
        for end in [*self._semicolons(), len(self.tokens)]:
            if end > start:
                pieces += [self.text[at : self.tokens[start].start], statement(self, start, end)]
                at = self.tokens[end - 1].end + 1
            start = end + 1
        pieces.append(self.text[at:])
        return "".join(pieces)

    def _semicolons(self) -> list[int]:
        return [index for index, token in enumerate(self.tokens) if token.token_type is TokenType.SEMICOLON]

    def render(self, start: int, end: int) -> str:
        """Tokens `start` to `end` (exclusive), translated."""
        if start >= end:
            return ""
        pieces: list[str] = []
        index, at = start, self.tokens[start].start
        while index < end:
            token = self.tokens[index]
            pieces.append(self.text[at : token.start])
            replacement, index = self.piece(index, start, end)
            pieces.append(replacement)
            at = self.tokens[index - 1].end + 1
        return "".join(pieces)

    def piece(self, index: int, start: int, end: int) -> tuple[str, int]:
        """The translation of what begins at `index`, and the index behind it."""
        token = self.tokens[index]
        source = self.text[token.start : token.end + 1]
        if token.token_type is TokenType.L_PAREN and index in self.closing:
            close = self.closing[index]
            inner = self.text[token.end + 1 : self.tokens[index + 1].start] + self.render(index + 1, close)
            return source + inner + self.text[self.tokens[close - 1].end + 1 : self.tokens[close].end + 1], close + 1
        if token.token_type in {TokenType.STRING, TokenType.IDENTIFIER} or self._after_dot(index, start):
            return source, index + 1
        call = self._call(index, end)
        if call is not None:
            handler = self.calls.get(token.text.upper())
            rewritten = handler(self, call) if handler is not None else None
            if rewritten is not None:
                return rewritten
        word = self.words.get(token.text.upper())
        rewritten = word(self, index, end) if word is not None else None
        return rewritten if rewritten is not None else (source, index + 1)

    def _after_dot(self, index: int, start: int) -> bool:
        return index > start and self.tokens[index - 1].token_type is TokenType.DOT

    def _call(self, index: int, end: int) -> Call | None:
        opening = index + 1
        if opening >= end or opening not in self.closing:
            return None
        close = self.closing[opening]
        arguments: list[tuple[int, int]] = []
        begin = position = opening + 1
        while position < close:
            if position in self.closing:
                position = self.closing[position]
            elif self.tokens[position].token_type is TokenType.COMMA:
                arguments.append((begin, position))
                begin = position + 1
            position += 1
        if close > opening + 1:
            arguments.append((begin, close))
        return Call(index, arguments, close + 1)
