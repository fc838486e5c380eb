"""Hostile files, each with its verdict: which rows are good, which lines are rejected by which rule, or why the whole
file is refused; and how many data records it holds, counted by hand.
"""

import gzip
from collections.abc import Mapping
from dataclasses import dataclass, field

EN = "user_id,login_count,post_count\n"
JA = "ユーザーID,ログイン回数,投稿回数\n"
BOM = b"\xef\xbb\xbf"
Good = Mapping[str, tuple[int, int]]


@dataclass(frozen=True)
class Case:
    """A file and its verdict. `rejects`: (line, rule), in order. `options` are the catalogue's for it."""

    name: str
    body: bytes
    records: int
    good: Good = field(default_factory=dict[str, tuple[int, int]])
    rejects: tuple[tuple[int, str], ...] = ()
    refused: str | None = None
    options: Mapping[str, object] = field(default_factory=dict[str, object])


def u(number: int) -> str:
    return f"U{number:05d}"


def ok(*numbers: int) -> Good:
    return {u(number): (number, number + 1) for number in numbers}


def line(number: int) -> str:
    return f"{u(number)},{number},{number + 1}\n"


def good(name: str, body: bytes | str, *numbers: int, **more: object) -> Case:
    """All records are good."""
    data = body.encode() if isinstance(body, str) else body
    return Case(name, data, len(numbers), ok(*numbers), options=more.get("options", {}))  # pyright: ignore[reportArgumentType]


def bad_row(name: str, row: str | bytes, rule: str, *, options: Mapping[str, object] | None = None) -> Case:
    """A good row, a bad one in line 3, a good row."""
    raw = row.encode() if isinstance(row, str) else row
    body = (EN + line(1)).encode() + raw + b"\n" + line(2).encode()
    return Case(name, body, 3, ok(1, 2), ((3, rule),), options=options or {})


def refused(name: str, body: bytes | str, records: int, rule: str, rejects: int = 0) -> Case:
    """Nothing is applied; `rejects` of the records are known to be bad."""
    data = body.encode() if isinstance(body, str) else body
    return Case(name, data, records, refused=rule, rejects=((0, rule),) * rejects)


ROWS = line(1) + line(2) + line(3)
NO_INTEGER = [
    "2.5", "1e3", "0x10", "1_000", "+5", " 5", "5 ", "\t5", "１２", "٣", "=1+1", "@SUM(A1)", "1/2", "NaN", "inf",
    "true", "null", "5\v", "²", "1 000", "5L", "0b1", "1'000",
]  # fmt: skip
CASES = [
    good("english header", EN + ROWS, 1, 2, 3),
    good("japanese header", JA + ROWS, 1, 2, 3),
    good("byte order mark", BOM + (JA + ROWS).encode(), 1, 2, 3),
    good("CRLF", (EN + ROWS).replace("\n", "\r\n"), 1, 2, 3),
    good("CR", (EN + ROWS).replace("\n", "\r"), 1, 2, 3),
    good("terminators mixed", EN.replace("\n", "\r\n") + line(1) + line(2).replace("\n", "\r") + line(3), 1, 2, 3),
    good("no terminator at the end", (EN + ROWS).rstrip("\n"), 1, 2, 3),
    good("full-width header", "ｕｓｅｒ＿ｉｄ,ｌｏｇｉｎ＿ｃｏｕｎｔ,ｐｏｓｔ＿ｃｏｕｎｔ\n" + ROWS, 1, 2, 3),
    good("half-width katakana header", "ﾕｰｻﾞｰID,ﾛｸﾞｲﾝ回数,投稿回数\n" + ROWS, 1, 2, 3),
    good("decomposed header", "ユーサ\u3099ーID,ロク\u3099イン回数,投稿回数\n" + ROWS, 1, 2, 3),
    good("quoted header", '"user_id","login_count","post_count"\n' + ROWS, 1, 2, 3),
    good("all quoted", EN + "".join(f'"{u(n)}","{n}","{n + 1}"\n' for n in (1, 2)), 1, 2),
    good("some quoted", EN + f'"{u(1)}",1,"2"\n' + line(2), 1, 2),
    good("all quoted, CRLF", (EN + f'"{u(1)}","1","2"\n').replace("\n", "\r\n"), 1),
    good("leading zeros of a count", EN + f"{u(1)},0000000000000000001,02\n", 1),
    good("header alone", EN),
    good("header alone without terminator", JA.rstrip("\n")),
    good("gzip", gzip.compress((EN + ROWS).encode()), 1, 2, 3),
    good("gzip of two members", gzip.compress(EN.encode()) + gzip.compress(ROWS.encode()), 1, 2, 3),
    good("gzip with byte order mark", gzip.compress(BOM + (JA + ROWS).encode()), 1, 2, 3),
    good("cp932 where it is declared", (JA + ROWS).encode("cp932"), 1, 2, 3, options={"encoding": "cp932"}),
    good("utf-16 where it is declared", (JA + ROWS).encode("utf-16"), 1, 2, 3, options={"encoding": "utf-16"}),
    Case(
        "the largest count", f"{EN}{u(1)},{2**63 - 1},0\n{u(2)},0,{2**63 - 1}\n".encode(), 2,
        {u(1): (2**63 - 1, 0), u(2): (0, 2**63 - 1)},
    ),
    Case("an id of leading zeros", f"{EN}00007,1,2\n7,1,2\n".encode(), 2, {"00007": (1, 2)}, ((3, "user_not_found"),)),
    Case("ids are case-sensitive", f"{EN}u00001,1,2\n{line(1)}".encode(), 2, ok(1), ((2, "user_not_found"),)),
    *(bad_row(f"count {text!r}", f"{u(9)},{text},1", "not_an_integer") for text in NO_INTEGER),
    *(bad_row(f"last count {text!r}", f"{u(9)},1,{text}", "not_an_integer") for text in ("2.5", "", " 1", "1;")),
    bad_row("negative", f"{u(9)},-1,1", "negative"),
    bad_row("minus alone", f"{u(9)},-,1", "not_an_integer"),
    bad_row("empty count", f"{u(9)},,1", "not_an_integer"),
    bad_row("one beyond bigint", f"{u(9)},{2**63},1", "overflow"),
    bad_row("19 nines", f"{u(9)},1,{'9' * 19}", "overflow"),
    bad_row("20 digits", f"{u(9)},00000000000000000001,1", "overflow"),
    bad_row("a count of 5,000 digits", f"{u(9)},{'9' * 5000},1", "overflow"),
    bad_row("no such user", "U99999,1,1", "user_not_found"),
    bad_row("empty id", ",1,1", "user_id"),
    bad_row("blank around the id", f" {u(9)},1,1", "user_id"),
    bad_row("id of 65 characters", f"{'a' * 65},1,1", "user_id"),
    bad_row("id of 64 characters that nobody has", f"{'a' * 64},1,1", "user_not_found"),
    bad_row("id with a dash", "U-0009,1,1", "user_id"),
    bad_row("id in full-width letters", "Ｕ00009,1,1", "user_id"),
    bad_row("formula in the id", "=cmd|'/c calc'!A1,1,1", "user_id"),
    bad_row("SQL in the id", "U1'; DROP TABLE users;--,1,1", "user_id"),
    bad_row("a NUL in the id", b"U000\x0009,1,1", "user_id"),
    bad_row("a NUL in a count", b"U00009,1\x00,1", "not_an_integer"),
    bad_row("no UTF-8 in the id", b"U\xff\xfe9,1,1", "user_id"),
    bad_row("no UTF-8 in a count", b"U00009,\xe3\x81,1", "not_an_integer"),
    bad_row("COPY's end of data", "\\.,1,1", "user_id"),
    bad_row("COPY's null", "\\N,1,1", "user_id"),
    bad_row("one column", u(9), "missing_column"),
    bad_row("two columns", f"{u(9)},1", "missing_column"),
    bad_row("blank line", "", "missing_column"),
    bad_row("blank line of blanks", "   ", "missing_column"),
    bad_row("four columns", f"{u(9)},1,1,1", "extra_column"),
    bad_row("a separator at the end", f"{u(9)},1,1,", "extra_column"),
    bad_row("semicolons", f"{u(9)};1;1", "missing_column"),
    bad_row("tabs", f"{u(9)}\t1\t1", "missing_column"),
    bad_row("a separator in quotes", f'{u(9)},"1,000",1', "not_an_integer"),
    bad_row("doubled quotes", f'"{u(9)}""",1,1', "user_id"),
    bad_row("a quote within", f'{u(9)},5"5,1', "quoting"),
    bad_row("text behind a closing quote", f'{u(9)},"5"x,1', "quoting"),
    bad_row("a quote behind a blank", f'{u(9)}, "5",1', "quoting"),
    bad_row("the header again", EN.rstrip("\n"), "user_id"),
    bad_row("a byte order mark within", BOM + f"{u(9)},1,1".encode(), "user_id"),
    bad_row("an inactive user where that is refused", f"{u(100)},1,1", "inactive_user",
            options={"refuse_inactive_users": True}),
    good("an inactive user", EN + line(100), 100),
    bad_row("a huge field", f"{u(9)},{'x' * 500_000},1", "not_an_integer"),
    bad_row("a huge quoted field", f'{u(9)},"{"x" * 500_000}",1', "not_an_integer"),
    Case("a quoted newline", f'{EN}{line(1)}"U\n9",1,1\n{line(2)}'.encode(), 3, ok(1, 2), ((3, "user_id"),)),
    Case("a quoted CRLF", f'{EN}{line(1)}{u(9)},"1\r\n",1\n{line(2)}'.encode(), 3, ok(1, 2), ((3, "not_an_integer"),)),
    Case("rows within a quoted field are none", f'{EN}"x\n{line(5)}y",1,1\n{line(1)}'.encode(), 2, ok(1),
         ((2, "user_id"),)),
    Case("CR before CRLF", f"{EN}{u(1)},1,2\r\r\n{line(2)}".encode(), 3, ok(1, 2), ((3, "missing_column"),)),
    Case("blank lines at the end", f"{EN}{line(1)}\n\n".encode(), 3, ok(1),
         ((3, "missing_column"), (4, "missing_column"))),
    Case("cut off in the last row", f"{EN}{line(1)}{u(2)},5".encode(), 2, ok(1), ((3, "missing_column"),)),
    Case("a user twice", f"{EN}{line(1)}{line(2)}{line(1)}".encode(), 3, ok(2),
         ((2, "duplicate_user"), (4, "duplicate_user"))),
    Case("a user twice with other values", f"{EN}{line(1)}{u(1)},7,7\n".encode(), 2, {},
         ((2, "duplicate_user"), (3, "duplicate_user"))),
    Case("a user thrice, once malformed", f"{EN}{line(1)}{u(1)},x,7\n{line(1)}{line(2)}".encode(), 4, ok(2),
         ((2, "duplicate_user"), (3, "not_an_integer"), (4, "duplicate_user"))),
    Case("a user quoted and plain", f'{EN}{line(1)}"{u(1)}",1,2\n{line(2)}'.encode(), 3, ok(2),
         ((2, "duplicate_user"), (3, "duplicate_user"))),
    Case("every kind at once", f"{EN}{line(1)}{u(2)},-1,0\nU99999,1,1\n{u(3)},1\n{u(4)},1,1,1\n{line(5)}".encode(), 6,
         ok(1, 5), ((3, "negative"), (4, "user_not_found"), (5, "missing_column"), (6, "extra_column"))),
    refused("0 bytes", b"", 0, "header"),
    refused("a byte order mark alone", BOM, 0, "header"),
    refused("newlines alone", "\n\n\n", 2, "header"),
    refused("no header", ROWS, 2, "header"),
    refused("header swapped", "user_id,post_count,login_count\n" + ROWS, 3, "header"),
    refused("header of two languages", "ユーザーID,login_count,post_count\n" + ROWS, 3, "header"),
    refused("header in capitals", EN.upper() + ROWS, 3, "header"),
    refused("header with blanks", EN.replace(",", ", ") + ROWS, 3, "header"),
    refused("header with a fourth column", EN.replace("\n", ",x\n") + ROWS, 3, "header"),
    refused("header with two columns", "user_id,login_count\n" + ROWS, 3, "header"),
    refused("header with semicolons", EN.replace(",", ";") + ROWS, 3, "header"),
    refused("two byte order marks", BOM + BOM + (EN + ROWS).encode(), 3, "header"),
    refused("cp932 that is not declared", (JA + ROWS).encode("cp932"), 3, "header"),
    refused("utf-16 that is not declared", (EN + "U1,1,1\n").encode("utf-16-le"), 2, "header"),
    refused("a blank line first", "\n" + EN + ROWS, 4, "header"),
    refused("a comment first", "# export\n" + EN + ROWS, 4, "header"),
    refused("a picture", b"\x89PNG\r\n\x1a\n" + bytes(range(256)), 4, "header"),
    refused("an unclosed quote", f'{EN}{line(1)}"{u(2)},2,3\n{line(3)}{line(4)}', 2, "unclosed_quote", 1),
    refused("an unclosed quote in the last field", f'{EN}{line(1)}{u(2)},2,"3', 2, "unclosed_quote", 1),
    refused("a quote closed by the next stray one", f'{EN}"{u(1)},1\n{u(2)},"2",3\n{line(3)}', 2, "unclosed_quote", 1),
    refused("gzip cut off", gzip.compress((EN + ROWS).encode())[:-6], 3, "gzip"),
    refused("gzip with garbage behind", gzip.compress((EN + ROWS).encode()) + b"garbage", 3, "gzip"),
    refused("a record without end", EN + "x" * 1_200_000, 1, "record_size", 1),
]  # fmt: skip
