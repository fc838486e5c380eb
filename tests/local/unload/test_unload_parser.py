"""The UNLOAD grammar: what is read, what is refused and where, and that un-quoting inverts quoting."""

import contextlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_platform.local.warehouse.unload import is_unload, parse_unload
from data_platform.local.warehouse.unload.contract import MEGABYTE, WarehouseError
from data_platform.local.warehouse.unload.tokens import Kind, tokenize, unquote

pytestmark = pytest.mark.unit

unhurried = settings(deadline=None)  # the first example pays for imports, and cores are shared

HEAD = "UNLOAD ('select 1 as a') TO 's3://bucket/prefix/'"
ROLE = "IAM_ROLE 'arn:aws:iam::123456789012:role/unload'"

OPTIONS: list[tuple[str, dict[str, Any]]] = [
    ("", {"format": "text", "delimiter": "|", "parallel": True, "manifest": False, "compression": None}),
    ("FORMAT AS CSV", {"format": "csv", "delimiter": ","}),
    ("FORMAT CSV", {"format": "csv"}),
    ("CSV", {"format": "csv"}),
    ("format as parquet", {"format": "parquet"}),
    ("PARQUET", {"format": "parquet"}),
    ("FORMAT JSON", {"format": "json"}),
    ("JSON GZIP", {"format": "json", "compression": "gzip"}),
    ("CSV DELIMITER AS ';'", {"delimiter": ";"}),
    ("CSV DELIMITER '|'", {"delimiter": "|"}),
    (r"DELIMITER '\t'", {"delimiter": "\t"}),
    (r"DELIMITER '\011'", {"delimiter": "\t"}),
    (r"DELIMITER '\x09'", {"delimiter": "\t"}),
    ("FIXEDWIDTH 'a:3,b:10'", {"fixed_width": (("a", 3), ("b", 10))}),
    ("FIXEDWIDTH AS '0:3 , 1:10'", {"fixed_width": (("0", 3), ("1", 10))}),
    ("ADDQUOTES ESCAPE", {"add_quotes": True, "escape": True}),
    ("NULL AS 'null'", {"null_as": "null"}),
    (r"NULL '\\N'", {"null_as": r"\N"}),
    ("NULL ''", {"null_as": ""}),
    ("HEADER", {"header": True}),
    ("GZIP", {"compression": "gzip"}),
    ("BZIP2", {"compression": "bzip2"}),
    ("ZSTD", {"compression": "zstd"}),
    ("PARALLEL", {"parallel": True}),
    ("PARALLEL ON", {"parallel": True}),
    ("PARALLEL TRUE", {"parallel": True}),
    ("PARALLEL OFF", {"parallel": False}),
    ("parallel false", {"parallel": False}),
    ("MAXFILESIZE 200", {"max_file_size": 200 * MEGABYTE}),
    ("MAXFILESIZE AS 200 MB", {"max_file_size": 200 * MEGABYTE}),
    ("MAXFILESIZE 5MB", {"max_file_size": 5 * MEGABYTE}),
    ("MAXFILESIZE 1.5 GB", {"max_file_size": 1536 * MEGABYTE}),
    ("MAXFILESIZE 6.2 GB", {"max_file_size": 6657199308}),
    ("PARQUET ROWGROUPSIZE 64 MB", {"row_group_size": 64 * MEGABYTE}),
    ("PARQUET ROWGROUPSIZE AS 128", {"row_group_size": 128 * MEGABYTE}),
    ("MANIFEST", {"manifest": True, "manifest_verbose": False}),
    ("MANIFEST VERBOSE", {"manifest": True, "manifest_verbose": True}),
    ("PARTITION BY (Ds)", {"partition_by": ("ds",), "partition_include": False}),
    ('PARTITION BY (a, "B c") INCLUDE', {"partition_by": ("a", "B c"), "partition_include": True}),
    ("ALLOWOVERWRITE", {"allow_overwrite": True}),
    ("CLEANPATH", {"clean_path": True}),
    ("REGION 'eu-west-1'", {"region": "eu-west-1"}),
    ("REGION AS 'eu-west-1'", {"region": "eu-west-1"}),
    ("ENCRYPTED", {"encrypted": True, "encrypted_auto": False}),
    ("ENCRYPTED AUTO", {"encrypted": True, "encrypted_auto": True}),
    ("KMS_KEY_ID 'k-1' ENCRYPTED", {"kms_key_id": "k-1", "encrypted": True}),
    ("EXTENSION 'csv.gz' CSV GZIP", {"extension": "csv.gz"}),
    (
        "MANIFEST VERBOSE PARALLEL OFF GZIP HEADER DELIMITER ',' FORMAT CSV EXTENSION 'csv.gz' MAXFILESIZE 1 GB",
        {"manifest_verbose": True, "parallel": False, "compression": "gzip", "header": True, "format": "csv"},
    ),
    ("/* in /* nested */ comments */ HEADER -- and to the end\n CSV;", {"header": True, "format": "csv"}),
]


@pytest.mark.parametrize(("options", "expected"), OPTIONS, ids=[options or "(none)" for options, _ in OPTIONS])
@pytest.mark.parametrize("role_first", [True, False])
def test_options_are_read_before_and_after_the_role(options: str, expected: dict[str, Any], role_first: bool) -> None:
    text = f"{HEAD} {ROLE} {options}" if role_first else f"{HEAD} {options.removesuffix(';')} {ROLE} ;"
    statement = parse_unload(text)
    assert {name: getattr(statement, name) for name in expected} == expected
    assert (statement.query, statement.prefix) == ("select 1 as a", "s3://bucket/prefix/")
    assert (statement.bucket, statement.key_prefix) == ("bucket", "prefix/")


@pytest.mark.parametrize(
    ("written", "query"),
    [
        ("'select ''a'''", "select 'a'"),
        (r"'select \'a\''", "select 'a'"),
        (r"'select ''\\d+'''", r"select '\d+'"),
        ("'select coalesce(a,'''')||coalesce(b,'''') from t'", "select coalesce(a,'')||coalesce(b,'') from t"),
        ("$$select 'a\\b'$$", "select 'a\\b'"),
        ("$q$select $$x$$$q$", "select $$x$$"),
        ("'select 1 -- the end\n'", "select 1 -- the end\n"),
        ("'select ''日本'' -- ''\n'", "select '日本' -- '\n"),
        ("'select * from (select 1 limit 5)'", "select * from (select 1 limit 5)"),
        ("'with a as (select 1 limit 1) select * from a'", "with a as (select 1 limit 1) select * from a"),
        ("'select 1 union all select 2'", "select 1 union all select 2"),
    ],
)
def test_the_query_is_unquoted(written: str, query: str) -> None:
    assert parse_unload(f"unload({written})to's3://bucket/p'iam_role default").query == query


@pytest.mark.parametrize(
    "role",
    [
        "default",
        "DEFAULT",
        "'arn:aws:iam::123456789012:role/a'",
        "AS 'arn:aws:iam::123456789012:role/path/to/a-b_c.d'",
        "'arn:aws-cn:iam::123456789012:role/a'",
        "'arn:aws:iam::123456789012:role/a,arn:aws:iam::210987654321:role/b'",
    ],
)
def test_well_formed_roles_are_accepted(role: str) -> None:
    assert parse_unload(f"{HEAD} IAM_ROLE {role}").iam_role == role.removeprefix("AS ").strip("'").replace(
        "DEFAULT", "default"
    )


REFUSALS = [
    (f"{HEAD}", "42601", "IAM_ROLE is missing"),
    (f"{HEAD} {ROLE} FORMAT ORC", "42601", 'at or near "ORC"'),
    (f"{HEAD} {ROLE} NONSENSE", "42601", 'at or near "NONSENSE"'),
    (f"{HEAD} {ROLE} CSV PARQUET", "42601", "conflicting or redundant"),
    (f"{HEAD} {ROLE} GZIP ZSTD", "42601", "conflicting or redundant"),
    (f"{HEAD} {ROLE} HEADER HEADER", "42601", "conflicting or redundant"),
    (f"{HEAD} {ROLE}; select 1", "42601", 'at or near "select"'),
    (f"{HEAD} {ROLE} DELIMITER ,", "42601", 'at or near ","'),
    (f"{HEAD} {ROLE} VERBOSE", "42601", 'at or near "VERBOSE"'),
    (f"{HEAD} {ROLE} MAXFILESIZE", "42601", "end of input"),
    (f"{HEAD} {ROLE} MAXFILESIZE '5'", "42601", "at or near"),
    (f"{HEAD} {ROLE} PARTITION BY ('a')", "42601", "at or near"),
    (f"{HEAD} {ROLE} PARTITION BY ()", "42601", "at or near"),
    (f"{HEAD} {ROLE} PARTITION BY (a, a)", "42701", "twice"),
    (f"{HEAD} {ROLE} FIXEDWIDTH 'a'", "42601", "FIXEDWIDTH"),
    (f"{HEAD} {ROLE} FIXEDWIDTH 'a:0'", "42601", "FIXEDWIDTH"),
    ("UNLOAD 'select 1' TO 's3://bucket/p' IAM_ROLE default", "42601", "at or near"),
    ("UNLOAD (select 1) TO 's3://bucket/p' IAM_ROLE default", "42601", 'at or near "select"'),
    ("UNLOAD ('select 1') INTO 's3://bucket/p' IAM_ROLE default", "42601", 'at or near "INTO"'),
    ("UNLOAD ('select 1) TO ", "42601", "unterminated quoted string"),
    ("UNLOAD ($$select 1) TO ", "42601", "unterminated dollar-quoted string"),
    ("UNLOAD /* ('select 1') TO ", "42601", "unterminated /* comment"),
    ('UNLOAD "', "42601", "unterminated or zero-length quoted identifier"),
    (r"UNLOAD ('select ''\xff''') TO 's3://bucket/p' IAM_ROLE default", "22021", "UTF8"),
    ("UNLOAD ('select 1') TO '/tmp/x' IAM_ROLE default", "0A000", "destination is not supported"),
    ("UNLOAD ('select 1') TO 'gs://bucket/x' IAM_ROLE default", "0A000", "destination is not supported"),
    (f"{HEAD} IAM_ROLE 'unload'", "22023", "well-formed"),
    (f"{HEAD} IAM_ROLE 'arn:aws:iam::12:role/a'", "22023", "well-formed"),
    (f"{HEAD} IAM_ROLE 'arn:aws:iam::123456789012:user/a'", "22023", "well-formed"),
    (f"{HEAD} IAM_ROLE ''", "22023", "well-formed"),
    (f"{HEAD} CREDENTIALS 'aws_access_key_id=AKIASECRET'", "0A000", "CREDENTIALS"),
    (f"{HEAD} WITH CREDENTIALS AS 'aws_access_key_id=AKIASECRET'", "0A000", "WITH"),
    (f"{HEAD} ACCESS_KEY_ID 'AKIASECRET' SECRET_ACCESS_KEY 'x'", "0A000", "ACCESS_KEY_ID"),
    (f"{HEAD} {ROLE} MASTER_SYMMETRIC_KEY 'AKIASECRET' ENCRYPTED", "0A000", "MASTER_SYMMETRIC_KEY"),
    *(
        (f"{HEAD} {ROLE} FORMAT PARQUET {option}", "42601", "not supported for UNLOAD to PARQUET")
        for option in (
            *("DELIMITER ','", "FIXEDWIDTH 'a:1'", "ADDQUOTES", "ESCAPE", "NULL AS ''"),
            *("HEADER", "GZIP", "BZIP2", "ZSTD"),
        )
    ),
    *(
        (f"{HEAD} {ROLE} FORMAT JSON {option}", "42601", "not supported for UNLOAD to JSON")
        for option in ("DELIMITER ','", "HEADER", "FIXEDWIDTH 'a:1'", "ADDQUOTES", "ESCAPE", "NULL AS ''")
    ),
    *(
        (f"{HEAD} {ROLE} FORMAT CSV {option}", "42601", "not supported for UNLOAD to CSV")
        for option in ("FIXEDWIDTH 'a:1'", "ADDQUOTES", "ESCAPE")
    ),
    (f"{HEAD} {ROLE} CLEANPATH ALLOWOVERWRITE", "42601", "cannot be used together"),
    (f"{HEAD} {ROLE} FIXEDWIDTH 'a:1' DELIMITER ','", "42601", "cannot be used together"),
    (f"{HEAD} {ROLE} FIXEDWIDTH 'a:1' HEADER", "42601", "cannot be used together"),
    (f"{HEAD} {ROLE} ENCRYPTED AUTO KMS_KEY_ID 'k'", "42601", "cannot be used together"),
    (f"{HEAD} {ROLE} KMS_KEY_ID 'k'", "42601", "needs ENCRYPTED"),
    (f"{HEAD} {ROLE} DELIMITER '||'", "22023", "single ASCII"),
    (f"{HEAD} {ROLE} DELIMITER '日'", "22023", "single ASCII"),
    (f"{HEAD} {ROLE} DELIMITER ''", "22023", "single ASCII"),
    (f"{HEAD} {ROLE} MAXFILESIZE 4.9 MB", "22023", "between 5 MB and 6.2 GB"),
    (f"{HEAD} {ROLE} MAXFILESIZE 6.3 GB", "22023", "between 5 MB and 6.2 GB"),
    (f"{HEAD} {ROLE} PARQUET ROWGROUPSIZE 31", "22023", "between 32 MB and 128 MB"),
    (f"{HEAD} {ROLE} PARQUET ROWGROUPSIZE 1 GB", "22023", "between 32 MB and 128 MB"),
    (f"{HEAD} {ROLE} ROWGROUPSIZE 64", "42601", "only supported for UNLOAD to PARQUET"),
]


@pytest.mark.parametrize(("text", "sqlstate", "words"), REFUSALS, ids=[text[-60:] for text, _, _ in REFUSALS])
def test_what_redshift_refuses_is_refused_with_its_state(text: str, sqlstate: str, words: str) -> None:
    with pytest.raises(WarehouseError) as refused:
        parse_unload(text)
    assert refused.value.sqlstate == sqlstate
    assert words in refused.value.message
    assert "AKIASECRET" not in f"{refused.value.message}{refused.value.detail}{refused.value.hint}"


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("select * from t limit 10", "Limit clause is not supported"),
        ("select top 10 * from t", "Limit clause is not supported"),
        ("(select 1 limit 2)", "Limit clause is not supported"),
        ("select 1 union all select 2 limit 3", "Limit clause is not supported"),
        ("with a as (select 1) select * from a limit 1", "Limit clause is not supported"),
        ("select 1; select 2", "exactly one SELECT"),
        ("", "exactly one SELECT"),
        ("delete from t", "a SELECT statement only"),
        ("drop table t", "a SELECT statement only"),
    ],
)
def test_inner_statements_redshift_does_not_unload_are_refused(query: str, words: str) -> None:
    with pytest.raises(WarehouseError, match=words) as refused:
        parse_unload(f"UNLOAD ($$ {query} $$) TO 's3://bucket/p' IAM_ROLE default")
    assert refused.value.sqlstate == "42601"


def test_a_query_only_the_engine_can_judge_is_let_through() -> None:
    assert parse_unload("UNLOAD ('selec from') TO 's3://bucket/p' IAM_ROLE default").query == "selec from"


def test_the_position_is_that_of_the_wrong_word() -> None:
    text = f"{HEAD} {ROLE} -- comment\n SURPRISE"
    with pytest.raises(WarehouseError) as refused:
        parse_unload(text)
    assert refused.value.position == text.index("SURPRISE") + 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("unload ('select 1') to 'x'", True),
        ("\n -- why\n /* so */ UnLoad('select 1')", True),
        ("/* a /* nested */ one */ unload ('select 1')", True),
        ("UNLOAD", True),
        ("/* unload", False),
        ("unloaded", False),
        ("select 'unload'", False),
        ("-- unload\nselect 1", False),
        ("", False),
    ],
)
def test_an_unload_is_told_from_other_statements(text: str, expected: bool) -> None:
    assert is_unload(text) is expected


SQL_TEXT = st.text(st.one_of(st.sampled_from("'\\\"$-/*\n;xn07 "), st.characters(exclude_categories=["Cs"])))


@unhurried
@given(SQL_TEXT)
def test_unquoting_inverts_quoting(text: str) -> None:
    assert unquote(text.replace("\\", "\\\\").replace("'", "''")) == text


@unhurried
@given(SQL_TEXT, SQL_TEXT)
def test_a_quoted_text_is_one_token_whatever_is_in_it(text: str, comment: str) -> None:
    quoted = "'" + text.replace("\\", "\\\\").replace("'", "''") + "\n'"
    line = comment.replace("\n", " ").replace("\r", " ")
    tokens = tokenize(f"unload ({quoted}) -- {line}\n to")
    assert [token.kind for token in tokens] == [
        *(Kind.WORD, Kind.SYMBOL, Kind.STRING, Kind.SYMBOL, Kind.WORD, Kind.END),
    ]
    assert tokens[2].text == text + "\n"


@unhurried
@given(st.text(st.sampled_from("unload('select1)to's3://b/;$$\\\"-/* \ncsv,")))
def test_any_text_is_parsed_or_refused_never_more(text: str) -> None:
    with contextlib.suppress(WarehouseError):  # any other exception fails the test
        assert parse_unload(text).iam_role
