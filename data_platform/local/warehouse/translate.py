"""Redshift's SQL -> PostgreSQL's: what PostgreSQL cannot parse, or would answer differently without a word.

A statement that needs nothing passes byte for byte; otherwise only the words concerned are replaced and the rest stays
as written (sqlglot's lexer finds them). Functions that PostgreSQL can be given are SQL functions in sql/, not here.
"""

import re
from typing import Any, ClassVar

from sqlglot.dialects.postgres import Postgres
from sqlglot.dialects.redshift import Redshift
from sqlglot.errors import SqlglotError

from data_platform.local.warehouse.calls import CALLS, WORDS
from data_platform.local.warehouse.layout import PARAMETERS, statement
from data_platform.local.warehouse.rewriter import Rewriter, is_word

_WORDS = (
    *("sysdate", "nvl2?", "dateadd", "datediff", "date_add", "date_diff", "date_part", "listagg", "decode", "convert"),
    *("approximate", "top", "qualify", "minus", "regexp_replace", "super", "nvarchar", "varbyte", "identity"),
    *("distkey", "sortkey", "diststyle", "encode", "backup", "schema\\s+binding", "vacuum", "assumerole"),
    r"(?:varchar|varying)\s*\(\s*max",
    *PARAMETERS,
)
_NEEDED = re.compile(r"\b(?:" + "|".join(_WORDS) + r")\b", re.IGNORECASE)


class _WithoutFunctions(Redshift):
    """Redshift's syntax with every function left alone: sqlglot's own idea of DATEDIFF and others is not Redshift's."""

    class Tokenizer(Redshift.Tokenizer):
        """SHOW and VACUUM are words like others, not the beginning of an opaque string."""

        COMMANDS: ClassVar[set[Any]] = set()

    class Parser(Redshift.Parser):
        """Every call is a name with arguments."""

        FUNCTIONS: ClassVar[dict[str, Any]] = {}
        NO_PAREN_FUNCTIONS: ClassVar[dict[Any, Any]] = {}


class _BackslashEscapes(Postgres):
    """PostgreSQL with standard_conforming_strings off."""

    class Tokenizer(Postgres.Tokenizer):
        """A backslash escapes."""

        STRING_ESCAPES = ["'", "\\"]  # noqa: RUF012 - as sqlglot's classes have it


def translate(text: str) -> str:
    """`text` for a session with standard_conforming_strings off; unchanged when the lexer cannot read it."""
    if _NEEDED.search(text) is None:
        return text
    try:
        tokens = _WithoutFunctions().tokenize(text)
        if any(is_word(token, "QUALIFY") for token in tokens):
            text = _without_qualify(text)
            tokens = _WithoutFunctions().tokenize(text)
    except SqlglotError:
        return text  # PostgreSQL says what is wrong with it
    return Rewriter(text, tokens, CALLS, WORDS).statements(statement)


def _without_qualify(text: str) -> str:
    statements = _WithoutFunctions().parse(text)
    return ";\n".join(_BackslashEscapes().generate(tree) for tree in statements if tree is not None)
