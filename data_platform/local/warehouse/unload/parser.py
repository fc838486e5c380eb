"""UNLOAD text -> UnloadStatement: the grammar of its options, in any order. What excludes what is in rules.py."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from data_platform.local.warehouse.unload.contract import MEGABYTE, UnloadStatement, WarehouseError
from data_platform.local.warehouse.unload.rules import check_query, check_statement
from data_platform.local.warehouse.unload.tokens import Kind, Token, skip_blank, tokenize

_UNLOAD = re.compile(r"unload(?![\w$])", re.IGNORECASE)
_FIXED_WIDTH = re.compile(r"\s*([^:,]+?)\s*:\s*(\d+)\s*")
_FORMATS = ("CSV", "PARQUET", "JSON")
_COMPRESSIONS = ("GZIP", "BZIP2", "ZSTD")
_CREDENTIAL_WORDS = (
    *("CREDENTIALS", "ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN", "MASTER_SYMMETRIC_KEY", "WITH"),
)


def is_unload(text: str) -> bool:
    """Whether a statement is an UNLOAD (well-formed or not), comments before it skipped."""
    try:
        start = skip_blank(text, 0)
    except WarehouseError:  # a comment without end
        return False
    return _UNLOAD.match(text, start) is not None


def parse_unload(text: str) -> UnloadStatement:
    """Parse one UNLOAD statement and hold it against Redshift's rules.

    Raises WarehouseError: 42601 with the position for what is no UNLOAD; 42601, 22023 or 0A000 for what Redshift
    refuses.
    """
    parser = _Parser(tokenize(text))
    statement = parser.parse()
    check_statement(statement, parser.given)
    check_query(statement.query)
    return statement


@dataclass
class _Parser:
    tokens: list[Token]
    at: int = 0
    given: set[str] = field(default_factory=set[str])  # option names that were written, for the rules
    options: dict[str, Any] = field(default_factory=dict[str, Any])

    @property
    def token(self) -> Token:
        return self.tokens[self.at]

    def parse(self) -> UnloadStatement:
        self.expect_word("UNLOAD")
        self.expect_symbol("(")
        query = self.expect_string()
        self.expect_symbol(")")
        self.expect_word("TO")
        prefix = self.expect_string()
        while self.token.kind is not Kind.END and self.token.text != ";":
            self.option()
        while self.token.text == ";":
            self.at += 1
        if self.token.kind is not Kind.END:
            raise self.error()
        if "iam_role" not in self.options:
            raise WarehouseError(
                "42601",
                "UNLOAD must specify an authorization: IAM_ROLE is missing",
                hint="IAM_ROLE default or IAM_ROLE 'arn:aws:iam::<account>:role/<role>'",
                position=self.token.position,
            )
        if self.options.get("format") == "csv":
            self.options.setdefault("delimiter", ",")
        return UnloadStatement(query=query, prefix=prefix, **self.options)

    def option(self) -> None:
        token = self.token
        if token.is_word(*_CREDENTIAL_WORDS):
            raise WarehouseError(
                "0A000",
                f"{token.text.upper()} is not accepted: keys do not belong into a statement",
                hint="authorise with IAM_ROLE",
                position=token.position,
            )
        if token.kind is not Kind.WORD or token.text.upper() not in _OPTIONS:
            raise self.error()
        self.at += 1
        _OPTIONS[token.text.upper()](self, token)

    def set(self, name: str, token: Token, **values: Any) -> None:
        """Record an option; naming it twice is refused."""
        if name in self.given:
            raise WarehouseError("42601", "conflicting or redundant options", position=token.position)
        self.given.add(name)
        self.options.update(values)

    def error(self) -> WarehouseError:
        token = self.token
        if token.kind is Kind.END:
            return WarehouseError("42601", "syntax error at end of input", position=token.position)
        return WarehouseError("42601", f'syntax error at or near "{token.raw[:64]}"', position=token.position)

    def take_word(self, *words: str) -> str | None:
        """The next word in upper case if it is one of these, consumed."""
        if self.token.is_word(*words):
            self.at += 1
            return self.tokens[self.at - 1].text.upper()
        return None

    def expect_word(self, *words: str) -> str:
        if word := self.take_word(*words):
            return word
        raise self.error()

    def expect_symbol(self, symbol: str) -> None:
        if self.token.kind is not Kind.SYMBOL or self.token.text != symbol:
            raise self.error()
        self.at += 1

    def expect_string(self) -> str:
        if self.token.kind is not Kind.STRING:
            raise self.error()
        self.at += 1
        return self.tokens[self.at - 1].text

    def as_string(self) -> str:
        """`[AS] 'text'`."""
        self.take_word("AS")
        return self.expect_string()

    def size(self, default_unit: int = MEGABYTE) -> int:
        """`[AS] n [MB | GB]`, in bytes."""
        self.take_word("AS")
        if self.token.kind is not Kind.NUMBER:
            raise self.error()
        amount = Decimal(self.token.text)
        self.at += 1
        unit = {"MB": MEGABYTE, "GB": 1024 * MEGABYTE, None: default_unit}[self.take_word("MB", "GB")]
        return int(amount * unit)

    def column_name(self) -> str:
        """An identifier; unquoted ones fold to lower case."""
        token = self.token
        if token.kind not in (Kind.WORD, Kind.IDENTIFIER):
            raise self.error()
        self.at += 1
        return token.text if token.kind is Kind.IDENTIFIER else token.text.lower()


def _format(parser: _Parser, token: Token) -> None:
    parser.take_word("AS")
    parser.set("format", token, format=parser.expect_word(*_FORMATS).lower())


def _bare_format(parser: _Parser, token: Token) -> None:
    parser.set("format", token, format=token.text.lower())


def _compression(parser: _Parser, token: Token) -> None:
    parser.set("compression", token, compression=token.text.lower())


def _partition_by(parser: _Parser, token: Token) -> None:
    parser.expect_word("BY")
    parser.expect_symbol("(")
    names = [parser.column_name()]
    while parser.token.text == ",":
        parser.at += 1
        names.append(parser.column_name())
    parser.expect_symbol(")")
    include = parser.take_word("INCLUDE") is not None
    parser.set("partition by", token, partition_by=tuple(names), partition_include=include)


def _manifest(parser: _Parser, token: Token) -> None:
    verbose = parser.take_word("VERBOSE") is not None
    parser.set("manifest", token, manifest=True, manifest_verbose=verbose)


def _encrypted(parser: _Parser, token: Token) -> None:
    auto = parser.take_word("AUTO") is not None
    parser.set("encrypted", token, encrypted=True, encrypted_auto=auto)


def _fixed_width(parser: _Parser, token: Token) -> None:
    position = parser.token.position
    columns = [_FIXED_WIDTH.fullmatch(part) for part in parser.as_string().split(",")]
    widths = [(found.group(1), int(found.group(2))) for found in columns if found]
    if len(widths) != len(columns) or any(width == 0 for _, width in widths):
        raise WarehouseError(
            "42601", "invalid FIXEDWIDTH specification", hint="'column:width,column:width'", position=position
        )
    parser.set("fixedwidth", token, fixed_width=tuple(widths))


def _parallel(parser: _Parser, token: Token) -> None:
    parser.set("parallel", token, parallel=parser.take_word("ON", "TRUE", "OFF", "FALSE") not in ("OFF", "FALSE"))


def _iam_role(parser: _Parser, token: Token) -> None:
    role = "default" if parser.take_word("DEFAULT") else parser.as_string()
    parser.set("iam_role", token, iam_role=role)


def _flag(name: str, attribute: str) -> Callable[[_Parser, Token], None]:
    return lambda parser, token: parser.set(name, token, **{attribute: True})


def _text(name: str, attribute: str) -> Callable[[_Parser, Token], None]:
    return lambda parser, token: parser.set(name, token, **{attribute: parser.as_string()})


def _size(name: str, attribute: str) -> Callable[[_Parser, Token], None]:
    return lambda parser, token: parser.set(name, token, **{attribute: parser.size()})


_OPTIONS: dict[str, Callable[[_Parser, Token], None]] = {
    "FORMAT": _format,
    **dict.fromkeys(_FORMATS, _bare_format),
    **dict.fromkeys(_COMPRESSIONS, _compression),
    "PARTITION": _partition_by,
    "MANIFEST": _manifest,
    "HEADER": _flag("header", "header"),
    "DELIMITER": _text("delimiter", "delimiter"),
    "FIXEDWIDTH": _fixed_width,
    "ENCRYPTED": _encrypted,
    "KMS_KEY_ID": _text("kms_key_id", "kms_key_id"),
    "ADDQUOTES": _flag("addquotes", "add_quotes"),
    "NULL": _text("null as", "null_as"),
    "ESCAPE": _flag("escape", "escape"),
    "ALLOWOVERWRITE": _flag("allowoverwrite", "allow_overwrite"),
    "CLEANPATH": _flag("cleanpath", "clean_path"),
    "PARALLEL": _parallel,
    "MAXFILESIZE": _size("maxfilesize", "max_file_size"),
    "ROWGROUPSIZE": _size("rowgroupsize", "row_group_size"),
    "REGION": _text("region", "region"),
    "EXTENSION": _text("extension", "extension"),
    "IAM_ROLE": _iam_role,
}
